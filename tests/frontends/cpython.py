"""What runs CPython's own test suites: prints one line of JSON for each test.

Its name, and "passed", or what went wrong, or "not applicable" and why (see not_applicable.py).
"""

from __future__ import annotations

import json
import sys
import unittest
from collections.abc import Iterable, Mapping
from typing import Any


class Result(unittest.TestResult):
    """Prints what came of each test."""

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self.said: list[str] = []

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.said.append(self.errors[-1][1])

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.said.append(self.failures[-1][1])

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.said.append(f"skipped: {reason}")

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        tell(name_of(test), "\n".join(self.said) or "passed")


def tell(test: str, outcome: str) -> None:
    """One line of JSON."""
    print(json.dumps([test, outcome]), file=sys.__stdout__, flush=True)


def name_of(test: Any) -> str:
    """'suite.test_name'."""
    return f"{type(test).__name__}.{test._testMethodName}"


def run(suites: Iterable[type[unittest.TestCase]], not_applicable: Mapping[str, str], wanted: list[str]) -> None:
    """Run all tests of the suites, or those that are named."""
    result = Result()
    suite = unittest.TestSuite()
    for kind in suites:
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
            name = name_of(test)
            if wanted and name not in wanted and kind.__name__ not in wanted:
                continue
            if name in not_applicable and name not in wanted:
                tell(name, f"not applicable: {not_applicable[name]}")
            else:
                suite.addTest(test)
    suite.run(result)
    for where, text in result.errors:
        if not isinstance(where, unittest.TestCase):  # what a whole class begins or ends with
            tell(str(where), text)

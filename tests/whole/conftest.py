"""Whole scripts, as users write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.network import TwoHosts
from tests.support.programs import Program, script

Run = Callable[..., Program]


@pytest.fixture
def run(own_folder: Path) -> Iterator[Run]:
    """Runs a script in a folder of its own, and ends it after the test."""
    started: list[Program] = []

    def begin(text: str, *arguments: str, **options: Any) -> Program:
        started.append(script(own_folder / "script.py", text, *arguments, **options))
        return started[-1]

    yield begin
    for program in started:
        program.kill()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Those that a test puts in here are ended after it."""
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    """Two machines, as far as their networks go."""
    with TwoHosts() as made:
        yield made


OPENING = """
import functools, os, sys
import parallel
"""

MAIN = """
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        m.add_slave(parallel.LocalSlave())
"""

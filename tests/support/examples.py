"""How many examples the tests try that search for a story that goes wrong, and whether they are new ones.

The suite tries the same ones each time: a run that fails tells of the change, and not of its luck.  To search, give a
number: PARALLEL_TEST_EXAMPLES=3000 tries so many that nobody has seen yet, or those of a seed, by pytest's option
--hypothesis-seed=N.  What a search finds is to be told by a test with a name.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_CHOSEN = os.environ.get("PARALLEL_TEST_EXAMPLES")


def load_profile() -> None:
    """For all tests that are read after this: the same examples each time, and no limit of time for one.

    How long one takes, or is made, tells of the machine and not of what is tested.
    """
    settings.register_profile(
        "parallel", derandomize=_CHOSEN is None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("parallel")


def stories(examples: int, steps: int, *, several_faults: bool = True) -> settings:
    """For a test that tries so many ``examples``, unless a number is given, of so many steps each."""
    return settings(
        max_examples=int(_CHOSEN or examples),
        stateful_step_count=steps,
        derandomize=_CHOSEN is None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=several_faults,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )

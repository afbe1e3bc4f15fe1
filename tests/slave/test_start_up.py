"""What a program and its slaves import before the first result: each module costs all of them milliseconds."""

from __future__ import annotations

import subprocess
import sys

from tests.support.programs import ROOT, environment

# each costs a millisecond or more, and is of no use to a slave that a master on this machine has started
SLOW = "argparse asyncio concurrent dis getpass inspect ipaddress pathlib platform ssl textwrap urllib uuid zipfile"
BY_HAND = "slave.by_hand slave.look_around slave.options slave.token"


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after it, and had not before."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); {statement}; "
    program += "print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-S", "-c", program]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def test_a_launched_slave_imports_nothing_that_is_slow_and_of_no_use_to_it() -> None:
    brought_by_the_library = imported_by("import multiprocessing.managers, multiprocessing.connection, logging, socket")
    needless = {*SLOW.split(), *BY_HAND.split()} - brought_by_the_library
    assert not imported_by("import slave.cli") & needless


def test_in_a_slave_the_users_import_of_this_library_costs_next_to_nothing() -> None:
    in_runner = "import slave.runner, slave.inside; slave.inside.enter(); import parallel"
    assert not {name for name in imported_by(in_runner) if name.startswith("parallel.")}
    assert "parallel.manager" in imported_by(f"{in_runner}; parallel.Manager, parallel.RemoteError, parallel.errors")
    assert "parallel.manager" in imported_by("import parallel")


LOCAL_RUN = """
import sys
sys.modules["ssl"] = None  # some Pythons have none
import functools, parallel
with parallel.Manager.local(1, output=None) as manager:
    context = manager.get_context()
    context.add_task(functools.partial(pow, 2, 3))
    print(*context.get_results_unordered())
needless = "_sysconfigdata getpass pkgutil slave.discovery slave.imports slave.link".split()
print([name for name in sys.modules if name.startswith(tuple(needless))])
try:
    parallel.Manager(port=0)
except parallel.InputError as error:
    print(error)
"""


def test_a_program_whose_slaves_are_all_here_imports_nothing_that_only_others_need() -> None:
    command = [sys.executable, "-c", LOCAL_RUN]
    variables = environment(USER="somebody")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)
    assert done.returncode == 0, done.stderr
    result, needless, refused = done.stdout.splitlines()
    assert (result, needless) == ("8", "[]")
    assert "has no module ssl; use a Python with" in refused
    assert refused.endswith("or Manager(encrypt=False): then what is sent is only authenticated")


def test_the_garbage_collector_does_what_it_did() -> None:
    for before, after in (("enable", "True"), ("disable", "False")):
        program = f"import gc; gc.{before}(); import parallel; print(gc.isenabled())"
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment())
        assert done.stdout == f"{after}\n"
    program = "import gc, slave.__main__; print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment())
    assert done.stdout == "True True\n"

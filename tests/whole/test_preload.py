"""Installed packages are imported once a machine, and a process that was forked then is what a fresh one would be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slave import process_tree
from tests.support.programs import ROOT, Program, script
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(
    not os.path.exists(f"/proc/self/task/{os.getpid()}/children"), reason="this system has no way to adopt orphans"
)

THREADS = {"OMP_NUM_THREADS": "1"}  # so many for two slaves as for three, whatever the machine has
NOTE = "import os\nwith open(os.environ['NOTES'], 'a') as file: file.write(f'{__name__} {os.getpid()}\\n')\n"
OPENING = """
import os, sys, time, multiprocessing
import parallel
def together(place, count):
    # so many tasks run at the same time, each in a process of its own
    open(f'{place}.{os.getpid()}', 'w').close()
    while len([name for name in os.listdir() if name.startswith(f'{place}.')]) < count:
        time.sleep(0.01)
"""
MAIN = """
if __name__ == '__main__':
    with parallel.Manager(preload='alone' not in sys.argv) as m:
        m.add_slaves(2)
        c = m.get_context()
"""


class Notes:
    """Who has imported which module."""

    def __init__(self, folder: Path) -> None:
        self.path, self.packages = folder / "notes", folder / "packages"
        self.packages.mkdir()

    def install(self, name: str, source: str = "") -> None:
        """Put a package where an installer would, so that its import is noted."""
        (self.packages / f"{name}-1.0.dist-info").mkdir()
        (self.packages / f"{name}.py").write_text(NOTE + source)

    def run(self, text: str, *arguments: str) -> Program:
        """Run a script that finds the packages."""
        path = os.pathsep.join([str(self.packages), str(ROOT)])
        program = script(
            self.path.parent / "script.py", text, *arguments, PYTHONPATH=path, NOTES=str(self.path), **THREADS
        )
        assert program.ends(120.0) == 0, program.err
        return program

    def of(self, module: str) -> list[int]:
        """The processes that have imported it, the master's aside, which was the first."""
        return [int(line.split()[1]) for line in self.path.read_text().splitlines() if line.split()[0] == module][1:]


@pytest.fixture
def notes(own_folder: Path) -> Notes:
    return Notes(own_folder)


CRASH = (
    OPENING
    + """
import heavy
import own
def process(number):
    if number == 2:
        os.kill(os.getpid(), 9)
    together(*(('first', 2) if number < 2 else ('then', 3)))
    time.sleep(0.3)  # of quick tasks a slave would get several
    parent = multiprocessing.parent_process().pid
    return os.getpid(), os.getppid() == parent, multiprocessing.current_process()._identity
"""
    + MAIN
    + """
        for number in range(2):
            c.add_task(process, number)
        print(*c.get_results_unordered(), sep=chr(10))
        c.add_task(process, 2)
        try:
            list(c.get_results_unordered())
        except parallel.TaskGivenUp as error:
            assert str(error).count('it was killed by SIGKILL') == 3 and 'task 3: process' in str(error), error
        m.add_slaves(1)
        m.wait_for_slaves(3)
        for number in range(3, 6):
            c.add_task(process, number)
        print(*c.get_results_unordered(), sep=chr(10))
"""
)


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_package_is_imported_once_and_after_a_crash_the_next_process_has_it(notes: Notes, alone: bool) -> None:
    notes.install("heavy")
    (notes.path.parent / "own.py").write_text(NOTE)
    program = notes.run(CRASH, *(["alone"] if alone else []))
    results = [eval(line) for line in program.out.splitlines()]
    runners = {pid for pid, _, _ in results}
    assert len(results) == 5 and len(runners) >= 4, "of two slaves, of the one that crashed, of the one that came late"
    assert all(child for _, child, _ in results), "the agent is their parent, for the library too"
    assert len({identity for _, _, identity in results}) == len(runners)
    importers = notes.of("heavy")
    if alone:
        assert set(importers) >= runners
    else:
        assert len(importers) == 1 and importers[0] not in runners
    assert set(notes.of("own")) >= runners, "the user's own modules are each process's own"


NUMBERS = (
    OPENING
    + """
import numpy
if 'seeded' in sys.argv:
    numpy.random.seed(5)
own = numpy.random.default_rng()
def draw(number):
    import random
    together('draw', 2)
    time.sleep(0.3)
    return os.getpid(), numpy.random.random(), own.random(), random.random(), 'numpy' in slave_had
import slave.environment
slave_had = slave.environment.preloaded
"""
    + MAIN
    + """
        for number in range(2):
            c.add_task(draw, number)
        print(*c.get_results_unordered(), sep=chr(10))
"""
)


@pytest.mark.parametrize("seeded", [False, True])
def test_numpys_random_numbers_are_those_that_fresh_processes_would_draw(notes: Notes, seeded: bool) -> None:
    pytest.importorskip("numpy")
    program = notes.run(NUMBERS, *(["seeded"] if seeded else []))
    one, other = (eval(line) for line in program.out.splitlines())
    assert one[0] != other[0] and one[4] and other[4]
    assert (one[1] == other[1]) == seeded, "its global generator: as the user's script seeds it, or not"
    assert one[2] != other[2] and one[3] != other[3]


BY_HAND = """
import os, subprocess, sys
import parallel
import heavy
def process(number):
    return os.getpid()
SLAVE = "import sys; from slave import template, cli; template.HOLD = float(sys.argv.pop()); cli.run()"
if __name__ == '__main__':
    with parallel.Manager(port=0) as m:
        c = m.get_context()
        for number in range(4):
            c.add_task(process, number)
        command = [sys.executable, '-c', SLAVE, '-v', '-n', '2', f'127.0.0.1:{m.address[1]}', sys.argv[1]]
        slave = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        print(*sorted(set(c.get_results_unordered())))
    print(slave.communicate(timeout=60)[1])
"""

IN_TEMPLATE = "import sys, time, threading\nif not hasattr(sys.modules['__main__'], '__file__'): "


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n", "a thread"),
        (IN_TEMPLATE + "time.sleep(1000)", ""),
        (IN_TEMPLATE + "raise ImportError('not here')", "heavy cannot be imported: ImportError: not here"),
        pytest.param(IN_TEMPLATE + "os._exit(3)", "that imports for all has ended", marks=pytest.mark.slow),
    ],
    ids=["thread", "hangs", "raises", "ends"],
)
def test_what_cannot_be_shared_is_left_to_each_process(notes: Notes, source: str, why: str) -> None:
    notes.install("heavy", source)
    runners, *words = notes.run(BY_HAND, "30" if why else "0.5").out.splitlines()
    assert set(map(int, runners.split())) <= set(notes.of("heavy"))
    told = [line for line in words if "each slave imports for itself" in line]
    assert [why in line for line in told] == ([True] if why else []), words


KILLED = (
    OPENING
    + """
import heavy
def process(number):
    if number == 0 and not os.path.exists('agent'):
        with open('new', 'w') as file:
            file.write(f'{os.getpid()} {os.getppid()}')
        os.replace('new', 'agent')
        os.kill(os.getppid(), 9)
        time.sleep(60)
    if os.path.exists('agent'):
        with open('agent') as file:
            if file.read().split()[1] == str(multiprocessing.parent_process().pid):
                time.sleep(60)  # the other runner of the agent that was killed had time for another task
    return os.getpid()
"""
    + MAIN
    + """
        for number in range(2):
            c.add_task(process, number)
        print(*c.get_results_unordered())
"""
)


def test_nothing_of_it_survives_when_the_agent_is_killed(notes: Notes) -> None:
    notes.install("heavy")
    program = notes.run(KILLED)
    importers = notes.of("heavy")
    assert len(importers) == 2, f"one for each agent: {program.out}{program.err}"
    runner = int((notes.path.parent / "agent").read_text().split()[0])
    eventually(lambda: not {runner, *importers} & set(process_tree.running()), what="the end of what it had")

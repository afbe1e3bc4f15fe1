"""Which processes belong to a runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from slave import process_tree
from slave.process_tree import VARIABLE, Process, end_family, family, running
from tests.support.waiting import eventually


def test_a_family_is_session_group_children_and_who_bears_the_mark() -> None:
    processes = {
        1: Process(0, 1, 1),
        10: Process(1, 10, 10),  # a runner
        11: Process(10, 11, 10),  # a group of its own, in the session
        12: Process(1, 10, 12),  # the runner's group; its parent has ended
        13: Process(10, 13, 13),  # a session of its own
        14: Process(13, 13, 13),
        15: Process(1, 15, 15),  # a session of its own, and its parent has ended: known by its mark
        16: Process(15, 16, 16),
        20: Process(1, 20, 20),  # another runner
        21: Process(20, 21, 21),
    }
    assert family([10], processes, [15]) == {10, 11, 12, 13, 14, 15, 16}
    assert family([20], processes) == {20, 21}
    del processes[10]  # it has ended, and 13 was taken in by somebody else
    processes[13] = Process(1, 13, 13)
    assert family([10], processes) == {11, 12}
    assert family([], processes) == set()


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.integers(2, 30), st.tuples(*[st.integers(1, 30)] * 3), max_size=25), st.sets(st.integers(2, 30))
)
def test_a_family_is_closed_and_nobody_elses(table: dict[int, tuple[int, int, int]], leaders: set[int]) -> None:
    processes = {pid: Process(*numbers) for pid, numbers in table.items()}
    found = family(leaders, processes)
    for pid, one in processes.items():
        related = one.parent in found or {one.session, one.group, pid} & leaders
        assert (pid in found) == bool(related)


def test_a_family_is_ended_however_it_hides() -> None:
    hides = """
import os, subprocess, sys
subprocess.Popen(['sleep', '600'], start_new_session=True)
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execv('/bin/sleep', ['sleep', '601'])
    os._exit(0)
print('ready', flush=True)
sys.stdin.read()
"""
    mark = f"test{os.getpid()}."
    leader = subprocess.Popen(
        [sys.executable, "-c", hides],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, VARIABLE: mark + "1."},
        start_new_session=True,
    )
    with leader:
        assert leader.stdin is not None and leader.stdout is not None
        assert leader.stdout.readline() == b"ready\n"
        # all of them in their own programs: while a process changes to another one, its environment cannot be read
        eventually(lambda: {"600", "601"} <= last_words(marked(mark)), what="the leader and what it started")
        eventually(lambda: len(marked(mark)) == 3, what="the end of the one between")
        assert end_family([leader.pid], [mark])
        eventually(lambda: not marked(mark), 30, "nothing that is left")
        # one that is about to end has no environment any more some time before it is taken for ended
        eventually(lambda: not end_family([leader.pid], [mark]), 30, "nobody who is ended again")


def last_words(pids: set[int]) -> set[str]:
    """The last arguments of these processes."""
    found = set()
    for pid in pids:
        try:
            found.add(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").rpartition("\0")[2])
        except OSError:
            continue  # it has just ended
    return found


def marked(mark: str) -> set[int]:
    return process_tree._marked(running(), [f"{VARIABLE}={mark}".encode()])

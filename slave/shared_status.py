"""The few words of memory that an agent shares with each of its runners.

The runner writes which task it is about to run and when its time is over; the agent reads that when the runner has
died, is late, or is asked to give a lease back.  The agent writes which lease is called back; the runner looks before
each task.  Each cell has one writer; a runner writes its task first and looks for a recall then, the agent recalls
first and reads the task then, so that whichever comes late sees the other: a task is given back by the agent or started
by the runner, not both.
"""

from __future__ import annotations

from multiprocessing import sharedctypes
from typing import Any

TASK = 0  # written by the runner: id of the task that runs, 0 between leases
SETUP = 1  # written by the runner: id of the context whose setup runs, else 0
RECALL = 2  # written by the agent: id of the lease to give back (session.py: ANY_LEASE for whichever), 0 for none
DEADLINE = 3  # written by the runner: when the running task's time is over, by time.monotonic_ns(); 0 for never
SHORTEST = 4  # written by the runner: the shortest time limit it was given so far, nanoseconds; 0 for none
OUTDATED_CODE = 5  # written by the runner: 1 when it leaves for a fresh one, since code that it has has changed

SharedStatus = Any  # a ctypes array of unsigned 64-bit integers, which ctypes cannot spell as a type


def new_shared_status() -> SharedStatus:
    """Zeroed cells that survive a fork and can be passed to a spawned process."""
    return sharedctypes.RawArray("Q", 6)

"""The few words of memory that an agent shares with each of its runners.

The runner writes which task it is about to run and when its time is over; the agent reads that when the runner has
died, is late, or is asked to give a lease back.  The agent writes which lease is called back; the runner looks before
each task.  Each cell has one writer; a runner writes its task first and looks for a recall then, the agent recalls
first and reads the task then, so that whichever comes late sees the other: a task is given back by the agent or started
by the runner, not both.
"""

from __future__ import annotations

import mmap
from typing import Any

TASK = 0  # written by the runner: id of the task that runs, 0 between leases
SETUP = 1  # written by the runner: id of the context whose setup runs, else 0
RECALL = 2  # written by the agent: id of the lease to give back (session.py: ANY_LEASE for whichever), 0 for none
DEADLINE = 3  # written by the runner: when the running task's time is over, by time.monotonic_ns(); 0 for never
SHORTEST = 4  # written by the runner: the shortest time limit it was given so far, nanoseconds; 0 for none
# written by the runner when it leaves for a fresh one: 1 since code that it imported has changed, RECYCLE since it has
# run as many tasks as one process is to run, ANOTHER since the next master's program is not the same (handover.py)
OUTDATED_CODE, RECYCLE, ANOTHER = 5, 2, 3

STAGE = 6  # written by the runner: one of those below
UNHEARD = 7  # written by the runner between leases: 1 if the master may not have read all that was posted

# joined: the master has taken it in; worked: it has begun a task or a setup; rests: it has left a master that is gone
STARTING, JOINED, WORKED, RESTS = range(4)

KEEPS = 8  # written by the agent: 1 if the runner is to rest when it leaves; 2 when the next master is there
LEAVES, GOES_ON = 1, 2

NAPS = 9  # written by the agent: 1 if it looks at nothing until a runner that begins a lease wakes it

_CELLS = 10

SharedStatus = Any  # a ctypes array or a memoryview, of unsigned 64-bit integers


def new_shared_status(fork: bool = False) -> SharedStatus:
    """Zeroed cells.  ``fork``: a fork is to share them, for which no system need have /dev/shm, a writable folder or
    ctypes; else they can be passed to a spawned process too.
    """
    if fork:
        return memoryview(mmap.mmap(-1, 8 * _CELLS)).cast("Q")  # shared, and of no file
    from multiprocessing import sharedctypes

    return sharedctypes.RawArray("Q", _CELLS)

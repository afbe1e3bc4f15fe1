"""Farms independent tasks out to slaves: on this machine, on lab machines, on a cluster.

import parallel

with parallel.Manager() as m:
    m.add_slave(parallel.LocalSlave())
    c = m.get_context(setup)                  # setup: a callable that runs once on each slave, or None
    for x in inputs:
        c.add_task(Task(x))                   # any picklable callable
    for result in c.get_results_unordered():  # in order of completion
        ...

A task's way: user -> context.py pickles it -> core/scheduler.py queues it -> a slave's runner asks the task queue
(service/task_queue.py, by proxy through service/server.py) and gets a lease -> slave/runner.py runs setup once and then
the task, and posts the outcome to the result queue -> the scheduler settles it -> the user's generator wakes,
unpickles, yields.  A slave's way: expected -> joined -> (lost <-> back) -> ended, each step a move in core/slave.py.

errors.py   every exception            launch/     how slaves get started
core/       decisions only             service/    everything that waits
frontends/  Executor, Pool, maps       program.py  what slaves need of the user's program, and how it changes
assembly.py what a manager consists of, put together
"""

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 9):  # noqa: UP036 - whoever runs a script with an older one is told so
    raise ImportError(f"parallel needs Python 3.9 or newer; this is {sys.version.split()[0]} ({sys.executable})")

_collects = gc.isenabled()
gc.disable()  # what is imported stays: to look again and again whether some of it is garbage is in vain
try:
    from slave.inside import in_runner
    from slave.protocol import RELEASE

    # A slave that imports the user's script imports this package too, of which tasks use little: there all is loaded
    # when it is first used.  Elsewhere that is what `Manager` does not import before it needs it.
    if TYPE_CHECKING or not in_runner():
        from .errors import (
            CheckpointError,
            Error,
            InputError,
            InputTypeError,
            InternalError,
            LaunchError,
            ManagerClosed,
            NetworkError,
            NoMoreSlavesError,
            RemoteError,
            ResultError,
            TaskGivenUp,
            TaskTimeout,
            UnpicklableError,
        )
        from .manager import Manager
finally:
    if _collects:
        gc.enable()

if TYPE_CHECKING:
    from .context import Context
    from .core.users import SlaveInfo
    from .frontends.executor import Executor
    from .frontends.maps import map, starmap
    from .frontends.pool import Pool
    from .launch.base import Slave, SlaveArray, TryAgain
    from .launch.batch.htcondor import HTCondorSlaveArray
    from .launch.batch.sge import SGEQsubSlaveArray
    from .launch.batch.sge_pe import SGEPESlaveArray
    from .launch.batch.slurm import SlurmSlaveArray
    from .launch.batch.srun import SlurmSlaves
    from .launch.command import CommandSlaveArray, PipedCommandSlave
    from .launch.job import Job
    from .launch.local import LocalSlave
    from .launch.ssh import SSHSlave

# loaded when they are first used: most programs start slaves in one way
_LATER = {
    "Context": ".context",
    "SlaveInfo": ".core.users",
    **dict.fromkeys(
        (
            "CheckpointError",
            "Error",
            "InputError",
            "InputTypeError",
            "InternalError",
            "LaunchError",
            "ManagerClosed",
            "NetworkError",
            "NoMoreSlavesError",
            "RemoteError",
            "ResultError",
            "TaskGivenUp",
            "TaskTimeout",
            "UnpicklableError",
        ),
        ".errors",
    ),
    "Executor": ".frontends.executor",
    "Pool": ".frontends.pool",
    "map": ".frontends.maps",
    "starmap": ".frontends.maps",
    "Slave": ".launch.base",
    "SlaveArray": ".launch.base",
    "TryAgain": ".launch.base",
    "HTCondorSlaveArray": ".launch.batch.htcondor",
    "SGEQsubSlaveArray": ".launch.batch.sge",
    "SGEPESlaveArray": ".launch.batch.sge_pe",
    "SlurmSlaveArray": ".launch.batch.slurm",
    "SlurmSlaves": ".launch.batch.srun",
    "CommandSlaveArray": ".launch.command",
    "PipedCommandSlave": ".launch.command",
    "Job": ".launch.job",
    "LocalSlave": ".launch.local",
    "SSHSlave": ".launch.ssh",
    "Manager": ".manager",
}
_MODULES = frozenset(("errors",))  # that are attributes without being imported


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATER[name], __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "CheckpointError",
    "CommandSlaveArray",
    "Context",
    "Error",
    "Executor",
    "HTCondorSlaveArray",
    "InputError",
    "InputTypeError",
    "InternalError",
    "Job",
    "LaunchError",
    "LocalSlave",
    "Manager",
    "ManagerClosed",
    "NetworkError",
    "NoMoreSlavesError",
    "PipedCommandSlave",
    "Pool",
    "RemoteError",
    "ResultError",
    "SGEPESlaveArray",
    "SGEQsubSlaveArray",
    "SSHSlave",
    "Slave",
    "SlaveArray",
    "SlaveInfo",
    "SlurmSlaveArray",
    "SlurmSlaves",
    "TaskGivenUp",
    "TaskTimeout",
    "TryAgain",
    "UnpicklableError",
    "map",
    "starmap",
]
__version__ = RELEASE

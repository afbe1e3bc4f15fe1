"""Farms independent tasks out to slaves: on this machine, on lab machines, on a cluster.

import parallel

with parallel.Manager() as m:
    m.add_slave(parallel.LocalSlave())
    c = m.get_context(setup)                  # setup: a callable that runs once on each slave, or None
    for x in inputs:
        c.add_task(Task(x))                   # any picklable callable
    for result in c.get_results_unordered():  # in order of completion
        ...

user -> context.py pickles a task -> core/lease_table.py queues it
     -> a slave's runner fetches a lease of tasks (service/queues.py, by proxy through service/server.py)
     -> slave/runner.py runs setup once and then the tasks, and posts each outcome to the result queue
     -> the lease table settles the task -> the user's generator wakes, unpickles, yields

errors.py   every exception            launch/   how slaves get started
core/       decisions only             service/  everything that waits
"""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 - whoever runs a script with an older one is told so
    raise ImportError(f"parallel needs Python 3.9 or newer; this is {sys.version.split()[0]} ({sys.executable})")

from .context import Context
from .errors import (
    Error,
    InputError,
    InputTypeError,
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
from .launch.base import Slave, SlaveArray, TryAgain
from .launch.command import CommandSlaveArray, PipedCommandSlave
from .launch.job import Job
from .launch.local import LocalSlave
from .launch.sge import SGEQsubSlaveArray
from .launch.sge_pe import SGEPESlaveArray
from .launch.slurm import SlurmSlaveArray
from .launch.srun import SlurmSlaves
from .launch.ssh import SSHSlave
from .manager import Manager, SlaveInfo

__all__ = [
    "CommandSlaveArray",
    "Context",
    "Error",
    "InputError",
    "InputTypeError",
    "Job",
    "LaunchError",
    "LocalSlave",
    "Manager",
    "ManagerClosed",
    "NetworkError",
    "NoMoreSlavesError",
    "PipedCommandSlave",
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
]
__version__ = "0.1.0"

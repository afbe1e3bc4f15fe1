"""How many CPUs there are to use."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """The CPUs this process may use: fewer than the machine has under taskset, cpusets and most batch systems."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

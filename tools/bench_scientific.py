"""A script as scientists write it: python3 tools/bench_scientific.py parallel|Pool SLAVES prints when all have worked.

Its module imports NumPy and SciPy, which all slaves then need for its task.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.optimize

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # else whoever started us has said which library comes first
    sys.path.insert(0, str(ROOT))


def task(size: int) -> int:
    """A small decomposition; says in which process."""
    scipy.linalg.lu_factor(np.eye(size) + 1.0)
    time.sleep(0.02)  # so that others get one, too
    return os.getpid()


def main() -> None:
    """Until each slave has given a result."""
    name, slaves = sys.argv[1], int(sys.argv[2])
    seen: set[int] = set()
    if name == "parallel":
        import parallel

        with parallel.Manager.local(slaves, output=None) as manager:
            for process in manager.get_context().map_unordered(task, [10] * 1000):
                seen.add(process)
                if len(seen) == slaves:
                    break
            print(time.time(), flush=True)
    else:
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(slaves) as pool:
            for process in pool.imap_unordered(task, [10] * 1000):
                seen.add(process)
                if len(seen) == slaves:
                    break
            print(time.time(), flush=True)


if __name__ == "__main__":
    main()

"""schwimmbad: a program for its pools, on the one that hands joblib's arguments on; what only maps takes ours."""

import functools

import numpy as np
import schwimmbad

import parallel.frontends.joblib


def worker(scale, task):
    start, stop = task
    return scale * np.arange(start, stop).sum()


TASKS = [(start, start + 100) for start in range(0, 1000, 100)]
WORKER = functools.partial(worker, 2.0)


def main(pool):
    seen = []
    if not pool.is_master():
        pool.wait()
    results = list(pool.map(WORKER, TASKS, callback=seen.append))
    assert seen == results
    return results


if __name__ == "__main__":
    parallel.frontends.joblib.register()
    serial = main(schwimmbad.SerialPool())
    with schwimmbad.JoblibPool(2, backend="parallel") as pool:
        assert main(pool) == serial
    with parallel.Pool(2) as pool:
        assert list(pool.map(WORKER, TASKS)) == serial
    print("equal")

"""schwimmbad: programs that were written for its pools, each with `map` and a callback for each result."""

import functools

import numpy as np
import schwimmbad

import parallel


def worker(scale, task):
    start, stop = task
    return scale * np.arange(start, stop).sum()


def main(pool):
    tasks = [(start, start + 100) for start in range(0, 1000, 100)]
    return list(pool.map(functools.partial(worker, 2.0), tasks))


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = main(pool)
    assert found == main(schwimmbad.SerialPool())
    print("equal")

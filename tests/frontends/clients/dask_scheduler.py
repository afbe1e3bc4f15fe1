"""dask: its multiprocessing scheduler, with our executor as the pool."""

import dask
import dask.bag

import parallel


def cube(x):
    return x**3


def total(**options):
    numbers = dask.bag.from_sequence(range(200), npartitions=8)
    return numbers.map(cube).filter(lambda x: x % 2 == 0).sum().compute(**options)


if __name__ == "__main__":
    with parallel.Executor(2) as executor:
        found = total(scheduler="processes", pool=executor)
    assert found == total(scheduler="sync") == sum(x**3 for x in range(0, 200, 2))
    print("equal")

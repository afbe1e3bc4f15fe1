"""scipy: `workers=` takes a callable like `map`, with one iterable: differential_evolution, brute, shgo."""

import numpy as np
from scipy import optimize

import parallel


def function(x):
    return np.sum(x**2) + np.prod(np.cos(x))


BOUNDS = [(-3, 3), (-2, 4)]


def minima(workers):
    evolved = optimize.differential_evolution(
        function, BOUNDS, maxiter=8, popsize=8, rng=1, workers=workers, updating="deferred", polish=False
    )
    searched = optimize.brute(function, [slice(-2, 2, 0.5)] * 2, workers=workers, finish=None)
    homology = optimize.shgo(function, BOUNDS, n=32, workers=workers)
    return [*evolved.x, *searched, *homology.x]


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = minima(pool.map)
    assert found == minima(map), (found, minima(map))
    assert found == minima(parallel.map)
    print("equal")

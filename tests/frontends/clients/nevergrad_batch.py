"""nevergrad: an optimizer's batches, by an executor's `submit` and its jobs' `done` and `result`."""

import nevergrad as ng
import numpy as np

import parallel


def distance(x):
    return float(np.sum((x - 0.5) ** 2))


def best(executor=None):
    space = ng.p.Array(shape=(2,)).set_bounds(-2, 2)
    # which asks the same, whichever of a batch is known first
    optimizer = ng.optimizers.ScrHammersleySearch(parametrization=space, budget=40, num_workers=2)
    optimizer.parametrization.random_state.seed(1)
    return optimizer.minimize(distance, executor=executor, batch_mode=True).value


if __name__ == "__main__":
    with parallel.Executor(2) as executor:
        found = best(executor)
    assert np.array_equal(found, best())
    print("equal")

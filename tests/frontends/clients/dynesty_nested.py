"""dynesty: nested sampling, by `pool.map` and the pool's size."""

import dynesty
import numpy as np

import parallel


def log_likelihood(point):
    return -0.5 * np.sum((point - 0.5) ** 2) / 0.01


def prior(cube):
    return cube


def evidence(pool=None, queue_size=None):
    generator = np.random.default_rng(3)
    sampler = dynesty.NestedSampler(
        log_likelihood, prior, 2, nlive=60, rstate=generator, pool=pool, queue_size=queue_size
    )
    sampler.run_nested(maxiter=150, print_progress=False)
    return sampler.results.logz


class InTurn:
    size = 2
    map = staticmethod(map)


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = evidence(pool, queue_size=2)
    assert np.array_equal(found, evidence(InTurn(), queue_size=2))
    print("equal")

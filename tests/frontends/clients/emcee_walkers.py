"""emcee: the walkers of an ensemble, by `pool.map`."""

import emcee
import numpy as np

import parallel


def log_probability(position):
    return -0.5 * np.sum(position**2)


def chain(pool=None):
    start = np.random.default_rng(1).normal(size=(32, 5))
    np.random.seed(1)
    sampler = emcee.EnsembleSampler(32, 5, log_probability, pool=pool)
    sampler.run_mcmc(start, 20)
    return sampler.get_chain()


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = chain(pool)
    assert np.array_equal(found, chain())
    print("equal")

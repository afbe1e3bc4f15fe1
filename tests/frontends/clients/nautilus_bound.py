"""nautilus: importance nested sampling, which takes a pool with `map`."""

import nautilus
import numpy as np

import parallel


def likelihood(point):
    return -0.5 * np.sum((point - 0.5) ** 2) / 0.01


def evidence(pool=None):
    sampler = nautilus.Sampler(
        lambda cube: cube, likelihood, n_dim=2, n_live=100, n_networks=0, pool=(pool, None), seed=1, pass_dict=False
    )
    sampler.run(n_eff=100, verbose=False)
    return sampler.log_z


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = evidence(pool)
    assert found == evidence()
    print("equal")

"""lmfit: a fit's posterior by emcee (`workers=` takes a pool), and a differential evolution (`workers=` a map)."""

import lmfit
import numpy as np

import parallel

X = np.linspace(0, 4, 40)
Y = 2.5 * np.exp(-X / 1.3) + 0.01 * np.sin(9 * X)


def residual(parameters):
    return parameters["height"] * np.exp(-X / parameters["width"]) - Y


def values(pool, map):
    parameters = lmfit.create_params(height={"value": 2, "min": 0, "max": 9}, width={"value": 1, "min": 0.1, "max": 9})
    minimizer = lmfit.Minimizer(residual, parameters)
    sampled = minimizer.emcee(steps=10, nwalkers=12, seed=1, workers=pool, progress=False).flatchain
    options = {"maxiter": 5, "popsize": 6, "seed": 1, "updating": "deferred", "polish": False}
    evolved = minimizer.minimize(method="differential_evolution", workers=map, **options).params.valuesdict()
    return [*evolved.values(), *sampled.to_numpy().ravel()]


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = values(pool, parallel.map)
    assert found == values(1, map)
    print("equal")

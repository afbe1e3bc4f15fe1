"""pymoo: elementwise problems, by `pool.starmap`."""

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import ElementwiseProblem
from pymoo.optimize import minimize
from pymoo.parallelization.starmap import StarmapParallelization

import parallel


class Sphere(ElementwiseProblem):
    def __init__(self, **named):
        super().__init__(n_var=4, n_obj=1, xl=-2, xu=2, **named)

    def _evaluate(self, x, out, *args, **kwargs):
        out["F"] = np.sum(x**2)


def best(**named):
    return minimize(Sphere(**named), GA(pop_size=20), ("n_gen", 5), seed=1).X


if __name__ == "__main__":
    with parallel.Pool(2) as pool:
        found = best(elementwise_runner=StarmapParallelization(pool.starmap))
    assert np.array_equal(found, best())
    print("equal")

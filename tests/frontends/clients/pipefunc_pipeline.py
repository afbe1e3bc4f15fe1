"""pipefunc: a pipeline with map and reduce, by an executor."""

import numpy as np
from pipefunc import Pipeline, pipefunc

import parallel


@pipefunc("y", mapspec="x[i] -> y[i]")
def double(x):
    return 2 * x


@pipefunc("total")
def add(y):
    return sum(y)


if __name__ == "__main__":
    pipeline = Pipeline([double, add])
    inputs = {"x": np.arange(20)}
    with parallel.Executor(2) as executor:
        found = pipeline.map(inputs, executor=executor, parallel=True, storage="dict", show_progress=False)
    serial = pipeline.map(inputs, parallel=False, storage="dict", show_progress=False)
    assert found["total"].output == serial["total"].output == 380
    print("equal")

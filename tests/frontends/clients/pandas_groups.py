"""pandas: each group of a table by a slave, then put together again."""

import numpy as np
import pandas as pd

import parallel


def summary(group):
    name, rows = group
    return pd.DataFrame({"name": [name], "mean": [rows["value"].mean()], "spread": [rows["value"].std()]})


if __name__ == "__main__":
    random = np.random.default_rng(1)
    table = pd.DataFrame({"name": random.integers(8, size=4000), "value": random.normal(size=4000)})
    groups = table.groupby("name")
    serial = pd.concat(map(summary, groups), ignore_index=True)
    with parallel.Pool(2) as pool:
        found = pd.concat(pool.map(summary, groups), ignore_index=True)
    pd.testing.assert_frame_equal(found, serial, check_exact=True)
    with parallel.Executor(2) as executor:
        found = pd.concat(executor.map(summary, groups), ignore_index=True)
    pd.testing.assert_frame_equal(found, serial, check_exact=True)
    print("equal")

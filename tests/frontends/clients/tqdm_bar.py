"""tqdm: a bar over a pool's results, and over an executor's."""

from tqdm import tqdm

import parallel


def square(x):
    return x * x


if __name__ == "__main__":
    inputs = range(50)
    with parallel.Pool(2) as pool:
        found = list(tqdm(pool.imap(square, inputs), total=50, desc="pool"))
    with parallel.Executor(2) as executor:
        again = list(tqdm(executor.map(square, inputs), total=50, desc="executor"))
    assert found == again == list(map(square, inputs))
    print("equal")

"""Programs of other libraries on slaves, beside the pool that they usually have: times, and their ratio.

    python3 tools/bench_clients.py [--rounds 5] [--slaves 2] [name of a client ...]

emcee, dynesty and scipy on `parallel.Pool` and on `multiprocessing.Pool`; joblib and scikit-learn on the backend
"parallel" and on loky.  A round does everything once on the one and once on the other, now this one first and now that
one, on workers that are there; the ratio is the median of the rounds' ratios.  Calls that take 2 ms sleep for so long:
what is compared is what a pool adds to them.

Needs what tools/requirements-clients.txt lists.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = str(ROOT)

import numpy as np  # noqa: E402 - found only after the lines above

POOL, LOKY = "Pool", "loky"


def energy(position: Any, seconds: float = 0.0, data: Any = None) -> float:
    """What is sampled, or minimized."""
    if seconds:
        time.sleep(seconds)
    return -0.5 * float(np.sum(np.square(position)))


def cube(point: Any) -> Any:
    """The unit cube as the prior of dynesty."""
    return point


def negative(position: Any, seconds: float = 0.0) -> float:
    """What is minimized."""
    return -energy(position, seconds)


def emcee_run(pool: Any, seconds: float, steps: int, megabytes: int = 0) -> None:
    """32 walkers, 16 calls a map."""
    import emcee

    data = np.zeros(megabytes * 125_000) if megabytes else None
    start = np.random.default_rng(1).normal(size=(32, 4))
    sampler = emcee.EnsembleSampler(32, 4, energy, args=[seconds, data], pool=pool)
    sampler.run_mcmc(start, steps)


def dynesty_run(pool: Any, seconds: float, calls: int) -> None:
    """Nested sampling with as many calls a map as there are workers."""
    import dynesty

    likelihood = functools.partial(energy, seconds=seconds)
    generator = np.random.default_rng(1)
    sampler = dynesty.NestedSampler(
        likelihood, cube, 3, nlive=50, rstate=generator, pool=pool, queue_size=2, bound="none", sample="unif"
    )
    for _ in sampler.sample(maxcall=calls):
        pass


def scipy_run(pool: Any, seconds: float, generations: int) -> None:
    """Differential evolution, 40 calls a map."""
    from scipy import optimize

    options = {"maxiter": generations, "popsize": 10, "tol": 0, "updating": "deferred", "polish": False}
    function = functools.partial(negative, seconds=seconds)
    optimize.differential_evolution(function, [(-3, 3)] * 4, rng=1, workers=pool.map, **options)


def joblib_run(backend: Any, calls: int, seconds: float = 0.0) -> None:
    """Short calls, as many as joblib puts together."""
    import joblib

    with joblib.parallel_config(backend=backend, n_jobs=2):
        joblib.Parallel()(joblib.delayed(energy)(1.0, seconds) for _ in range(calls))


def search_run(backend: Any) -> None:
    """45 small fits."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    x, y = load_iris(return_X_y=True)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1, 1]}, cv=5, n_jobs=2).fit(x, y)


class Client(NamedTuple):
    """A program, the peer that it usually has, and the ratio that is to be reached."""

    run: Callable[[Any], None]
    peer: str
    wanted: float


CLIENTS = {
    "emcee, 2 ms": Client(functools.partial(emcee_run, seconds=0.002, steps=10), POOL, 1.02),
    "emcee, no-op": Client(functools.partial(emcee_run, seconds=0, steps=100), POOL, 1.2),
    "emcee, 1 MB of data": Client(functools.partial(emcee_run, seconds=0, steps=20, megabytes=1), POOL, 1.0),
    "dynesty, 2 ms": Client(functools.partial(dynesty_run, seconds=0.002, calls=300), POOL, 1.02),
    "dynesty, no-op": Client(functools.partial(dynesty_run, seconds=0, calls=600), POOL, 1.2),
    "scipy, 2 ms": Client(functools.partial(scipy_run, seconds=0.002, generations=8), POOL, 1.02),
    "scipy, no-op": Client(functools.partial(scipy_run, seconds=0, generations=80), POOL, 1.2),
    "joblib, 20,000 no-op calls": Client(functools.partial(joblib_run, calls=20_000), LOKY, 1.1),
    "joblib, 200 calls of 2 ms": Client(functools.partial(joblib_run, calls=200, seconds=0.002), LOKY, 1.1),
    "GridSearchCV, 45 small fits": Client(search_run, LOKY, 1.1),
}


def seconds_of(run: Callable[[Any], None], workers: Any) -> float:
    """How long one run takes."""
    began = time.perf_counter()
    run(workers)
    return time.perf_counter() - began


def compare(client: Client, ours: Any, theirs: Any, rounds: int) -> tuple[float, float, float]:
    """Median seconds of ours and of theirs, and the median ratio."""
    for workers in (ours, theirs):
        client.run(workers)  # imports, first of all
    times = []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        took = {id(workers): seconds_of(client.run, workers) for workers in order}
        times.append((took[id(ours)], took[id(theirs)]))
    return (
        statistics.median(our for our, _ in times),
        statistics.median(their for _, their in times),
        statistics.median(our / their for our, their in times),
    )


def main() -> None:
    """Run those that are named, or all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="client", help="the beginning of a name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slaves", type=int, default=2)
    options = parser.parse_args()
    names = [name for name in CLIENTS if not options.names or any(name.startswith(one) for one in options.names)]
    import parallel.frontends.joblib

    parallel.frontends.joblib.register()
    with multiprocessing.Pool(options.slaves) as theirs, parallel.Pool(options.slaves) as ours:
        workers = {POOL: (ours, theirs), LOKY: (parallel.frontends.joblib.NAME, LOKY)}
        print(f"Python {sys.version.split()[0]}, {options.slaves} workers, medians of {options.rounds} rounds\n")
        print("| | parallel, ms | the other, ms | ratio | wanted |\n|---|---|---|---|---|")
        for name in names:
            client = CLIENTS[name]
            our, their, ratio = compare(client, *workers[client.peer], options.rounds)
            verdict = "" if ratio <= client.wanted else " **missed**"
            print(
                f"| {name} | {our * 1e3:.1f} | {client.peer}: {their * 1e3:.1f} | {ratio:.2f} | "
                f"at most {client.wanted}{verdict} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

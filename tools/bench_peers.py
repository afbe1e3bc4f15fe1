"""The peers of tools/bench.py: this library and others behind one small interface."""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import importlib.util
import inspect
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[1]
Task = Callable[[], object]


def noop() -> None:
    """The task of which there are many."""


def ten_megabytes() -> bytes:
    """A large result."""
    return bytes(10_000_000)


def array() -> Any:
    """A large array, of 10 MB."""
    import numpy

    return numpy.zeros(1_250_000)


def swallow(data: object) -> None:
    """The task with a large argument."""


def work(loops: int) -> None:
    """The task that keeps a processor busy."""
    for _ in range(loops):
        pass


def where_slave_is() -> str:
    """The file of the slave package, to see that it is the one that is to be measured."""
    return str(importlib.import_module("slave").__file__)


class Peer(ABC):
    """One way to run tasks; entering it starts its slaves (whatever they are called there)."""

    needs = ""  # a module
    tasks = 20_000  # no-op tasks in one round, at most
    together = 1  # where so many take the time of one, there are so many times as many

    def __init__(self, slaves: int) -> None:
        self.slaves = slaves

    def __enter__(self) -> Peer:
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """Stop the slaves."""

    @abstractmethod
    def run(self, task: Task, count: int) -> Iterator[object]:
        """The results of ``count`` tasks as they come."""


class Parallel(Peer):
    """This library."""

    needs = "parallel"
    tasks = 100_000

    def __enter__(self) -> Peer:
        import parallel

        self._manager = parallel.Manager(output=None)
        for _ in range(self.slaves):
            self._manager.add_slave(parallel.LocalSlave())
        self._context = self._manager.get_context()
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.shutdown()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """Add all tasks, then read."""
        for _ in range(count):
            self._context.add_task(task)
        return self._context.get_results_unordered()


class ParallelOverTcp(Parallel):
    """The same with one slave program that was started by hand: what is sent crosses the loopback, in TLS."""

    options: Mapping[str, Any] = {}
    arguments: Sequence[str] = ()

    def __enter__(self) -> Peer:
        import parallel

        key = "the key of this benchmark"
        self._manager = parallel.Manager(output=None, port=0, authkey=key.encode(), **self.options)
        address = f"127.0.0.1:{self._manager.address[1]}"
        command = [sys.executable, "-m", "slave", address, "-n", str(self.slaves), "-q", "-q", *self.arguments]
        environment = {**os.environ, "PARALLEL_AUTHKEY": key}
        self._program = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        self._manager.wait_for_slaves(self.slaves, 60)
        self._context = self._manager.get_context()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._program.wait()


class ParallelSealed(ParallelOverTcp):
    """The same without encryption: each record has a MAC, and no more."""

    options: Mapping[str, Any] = {"encrypt": False}
    arguments = ("--no-encryption",)


class ParallelMap(Parallel):
    """This library's map, as `PoolOfChunks` is used: one function, and many numbers."""

    tasks, together = 400_000, 4

    def run(self, task: Task, count: int) -> Iterator[object]:
        """Context.map_unordered."""
        return self._context.map_unordered(functools.partial(_call_for, task), range(count))


class ParallelExecutor(Peer):
    """This library's executor, used as the standard one."""

    needs = "parallel"
    tasks = 50_000

    def __enter__(self) -> Peer:
        import parallel

        self._executor = parallel.Executor(self.slaves)
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """Futures, in their order: `as_completed` costs more than all else, whoever's the futures are."""
        futures = [self._executor.submit(task) for _ in range(count)]
        return (future.result() for future in futures)


def _call(task: Task) -> object:
    return task()


def _call_for(task: Task, _: int) -> object:
    return task()


class Pool(Peer):
    """multiprocessing.Pool."""

    def __enter__(self) -> Peer:
        self._pool = multiprocessing.Pool(self.slaves)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.terminate()
        self._pool.join()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """imap_unordered with its default chunk size of 1."""
        return iter(self._pool.imap_unordered(_call, [task] * count))


class SpawnedPool(Pool):
    """multiprocessing.Pool with processes that are no forks, as on macOS and Windows."""

    def __enter__(self) -> Peer:
        self._pool = multiprocessing.get_context("spawn").Pool(self.slaves)
        return self


class PoolOfChunks(Pool):
    """multiprocessing.Pool with 64 calls in a message, of which the results come when the last is done."""

    tasks, together = 400_000, 4

    def run(self, task: Task, count: int) -> Iterator[object]:
        """imap_unordered in chunks of 64."""
        return iter(self._pool.imap_unordered(functools.partial(_call_for, task), range(count), chunksize=64))


class Executor(Peer):
    """concurrent.futures.ProcessPoolExecutor."""

    def __enter__(self) -> Peer:
        self._executor = concurrent.futures.ProcessPoolExecutor(self.slaves)
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """Futures, in their order."""
        futures = [self._executor.submit(task) for _ in range(count)]
        return (future.result() for future in futures)


class Loky(Executor):
    """loky, which is what joblib uses."""

    needs = "loky"

    def __enter__(self) -> Peer:
        import loky

        self._executor = loky.ProcessPoolExecutor(self.slaves)
        return self


class Mpi(Executor):
    """mpi4py.futures, whose workers MPI spawns."""

    needs = "mpi4py"
    tasks = 5_000

    def __enter__(self) -> Peer:
        for name in ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM", "MCA_rmaps_base_oversubscribe"):
            os.environ.setdefault(f"OMPI_{name}", "1")  # Open MPI refuses otherwise in containers and on few cores
        from mpi4py import futures

        self._executor = futures.MPIPoolExecutor(self.slaves)
        return self


class Executorlib(Executor):
    """executorlib on one node, with workers that stay."""

    needs = "executorlib"
    tasks = 2_000

    def __enter__(self) -> Peer:
        import executorlib

        self._executor = executorlib.SingleNodeExecutor(max_workers=self.slaves, block_allocation=True)
        return self


class Dask(Peer):
    """dask.distributed with processes."""

    needs = "distributed"
    tasks = 2_000

    def __enter__(self) -> Peer:
        import distributed

        options: dict[str, Any] = {"n_workers": self.slaves, "threads_per_worker": 1, "dashboard_address": None}
        self._folder = tempfile.TemporaryDirectory()
        self._cluster = distributed.LocalCluster(
            **options, silence_logs=logging.ERROR, local_directory=self._folder.name
        )
        self._client = distributed.Client(self._cluster)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._cluster.close()
        self._folder.cleanup()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """Futures, as they complete, with their results."""
        import distributed

        futures = [self._client.submit(task, pure=False) for _ in range(count)]
        return (result for _, result in distributed.as_completed(futures, with_results=True))


class Parsl(Peer):
    """Parsl's HighThroughputExecutor."""

    needs = "parsl"
    tasks = 2_000

    def __enter__(self) -> Peer:
        import parsl

        scripts = str(Path(sys.executable).parent)  # it starts programs of its own by their names
        if scripts not in os.environ["PATH"].split(os.pathsep):
            os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
        self._folder = tempfile.TemporaryDirectory()
        executor = parsl.HighThroughputExecutor(
            max_workers_per_node=self.slaves, address="127.0.0.1", provider=parsl.providers.LocalProvider(max_blocks=1)
        )
        self._parsl = parsl.load(parsl.Config(executors=[executor], run_dir=self._folder.name, usage_tracking=0))
        return self

    def __exit__(self, *error: object) -> None:
        import parsl

        self._parsl.cleanup()
        parsl.clear()
        self._folder.cleanup()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """Futures, as they complete."""
        import parsl

        app = parsl.python_app(task)
        futures = [app() for _ in range(count)]
        return (future.result() for future in concurrent.futures.as_completed(futures))


class Ray(Peer):
    """Ray tasks."""

    needs = "ray"
    tasks = 5_000

    def __enter__(self) -> Peer:
        import ray

        ray.init(num_cpus=self.slaves, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """ray.wait for one after the other, up to a thousand at a time."""
        import ray

        if inspect.isfunction(task):
            remote = ray.remote(task)
            waiting = [remote.remote() for _ in range(count)]
        else:  # which it takes as an argument only
            remote = ray.remote(_call)
            waiting = [remote.remote(task) for _ in range(count)]
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=min(len(waiting), 1000 if count > 1000 else 1))
            yield from ray.get(ready)


class HyperQueue(Peer):
    """HyperQueue's Python functions: each is a process of its own, and what it returns is not passed on."""

    needs = "hyperqueue"
    tasks = 20

    def __enter__(self) -> Peer:
        from hyperqueue.client import PythonEnv
        from hyperqueue.cluster import LocalCluster, WorkerConfig

        self._folder = tempfile.TemporaryDirectory()
        self._cluster = LocalCluster(server_dir=self._folder.name)
        self._cluster.start_worker(WorkerConfig(cores=self.slaves))
        self._client = self._cluster.client(python_env=PythonEnv(python_bin=sys.executable))
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.stop()
        self._folder.cleanup()

    def run(self, task: Task, count: int) -> Iterator[object]:
        """One job; all is known when it is over."""
        from hyperqueue import Job

        job = Job(self._folder.name)
        for _ in range(count):
            job.function(task, stdout=None, stderr=None)
        self._client.wait_for_jobs([self._client.submit(job)])
        return iter([None] * count)


SPAWNED = "Pool, spawned"

PEERS: dict[str, type[Peer]] = {
    "parallel": Parallel,
    "parallel by TLS": ParallelOverTcp,
    "parallel, MACs only": ParallelSealed,
    "parallel map": ParallelMap,
    "parallel Executor": ParallelExecutor,
    "Pool": Pool,
    "Pool, chunks of 64": PoolOfChunks,
    SPAWNED: SpawnedPool,
    "ProcessPoolExecutor": Executor,
    "loky": Loky,
    "mpi4py.futures": Mpi,
    "executorlib": Executorlib,
    "Dask": Dask,
    "Parsl": Parsl,
    "Ray": Ray,
    "HyperQueue": HyperQueue,
}


def available(name: str) -> bool:
    """Whether the peer's package is installed."""
    needs = PEERS[name].needs
    return not needs or importlib.util.find_spec(needs) is not None


def make(name: str, slaves: int) -> Peer:
    """A peer by its name."""
    return PEERS[name](slaves)


def time_of_first(name: str, slaves: int, script: str = __file__) -> float:
    """Seconds from the start of a new interpreter to its first result, when ``script`` prints the time."""
    command = [sys.executable, script, name, str(slaves)]
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} gave no first result:\n{done.stderr}")
    return float(done.stdout.split()[-1]) - began


def main() -> None:
    """Start the peer, get one result, and print when that was."""
    with make(sys.argv[1], int(sys.argv[2])) as peer:
        next(iter(peer.run(importlib.import_module("tools.bench_peers").noop, 1)))
        print(time.time(), flush=True)


if __name__ == "__main__":
    if str(ROOT) not in sys.path:  # else whoever started us has said which library comes first
        sys.path.insert(0, str(ROOT))
    main()

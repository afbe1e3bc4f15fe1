"""A real job while runners, agents and links are killed at random: are its results those of a calm run?

    python3 tools/chaos.py [--seconds 60] [--seed N]

Two local slaves, and two programs with two slaves each that reach the master by cables of ours, work on tasks of two
contexts, small and large.  Meanwhile something is broken a few times a second.  When the time is over, the results
are compared with those of a calm run: none may be missing, none twice, none different.  Exit code 0 means so.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import logging
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import parallel  # noqa: E402 - found only after the line above

LEASE = 2.0  # seconds
PROGRAMS = 2  # slave programs, with two slaves each, on the far side of a cable

Results = Counter[tuple[int, str]]


# -- the job


def salt(context: int) -> bytes:
    """A setup: what the tasks of each context have in common."""
    return hashlib.sha256(str(context).encode()).digest()


def work(number: int, common: bytes) -> tuple[int, bytes]:
    """What a task computes, now and then with a large result."""
    digest = common
    for _ in range(100):
        digest = hashlib.sha256(digest + str(number).encode()).digest()
    return number, digest * (30_000 if number % 17 == 0 else 1)


def task(number: int, common: bytes) -> tuple[int, bytes]:
    """The same, in some milliseconds more."""
    time.sleep(0.001 * (number % 20))
    return work(number, common)


def tasks(context: int, until: float, count: list[int]) -> Iterator[Callable[..., Any]]:
    """Numbered tasks until the time is over; ``count`` tells how many these were."""
    for number in itertools.count():
        if time.monotonic() >= until:
            return
        count[context] = number + 1
        yield functools.partial(task, number)


def read(context: parallel.Context[Any], into: Results, errors: list[str]) -> None:
    """Read all results of a context."""
    while True:
        try:
            for number, data in context.get_results_unordered():
                into[number, hashlib.sha256(data).hexdigest()] += 1
            return
        except parallel.RemoteError as error:
            errors.append(str(error))


def calm_run(counts: list[int]) -> list[Results]:
    """What the same tasks give in a plain loop."""
    found: list[Results] = []
    for index, count in enumerate(counts):
        results = (work(number, salt(index)) for number in range(count))
        found.append(Counter((number, hashlib.sha256(data).hexdigest()) for number, data in results))
    return found


# -- what is broken


class Cable:
    """Forwards connections to a port, until it is cut, or while it is not frozen."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._ends |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while True:
                self._flows.wait()
                data = source.recv(65536)
                self._flows.wait()
                if not data:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            self._ends.discard(end)
            _shut(end)

    def cut(self) -> None:
        """End all connections; new ones are possible."""
        for end in list(self._ends):
            _shut(end)

    def freeze(self, seconds: float) -> None:
        """Let nothing through for so long, as a pulled plug does."""
        self._flows.clear()
        threading.Timer(seconds, self._flows.set).start()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is shut already


class Chaos:
    """Breaks things, a few times a second, as the seed says."""

    def __init__(self, manager: parallel.Manager, seed: int, output: Any) -> None:
        self._manager, self._random, self._output = manager, random.Random(seed), output
        self._cables = [Cable(manager.address[1]) for _ in range(PROGRAMS)]
        self._programs = [self._start(cable) for cable in self._cables]
        self._over = threading.Event()
        self.done: Counter[str] = Counter()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _start(self, cable: Cable) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "slave", f"127.0.0.1:{cable.port}", "-n", "2", "--wait", "600", "--grace", "1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=self._output, stderr=self._output)

    def stop(self) -> None:
        """Break no more; let the slaves work on."""
        self._over.set()
        self.thread.join()

    def end(self) -> None:
        """Wait for the slave programs, whose master is done."""
        for program in self._programs:
            program.wait(60)

    def _run(self) -> None:
        actions = (
            [self.hurt_a_runner] * 6
            + [self.kill_a_program, self.end_a_program]
            + [self.cut_a_cable, self.freeze_a_cable] * 2
            + [self.kill_the_local_agent, self.replace_a_slave]
        )
        while not self._over.wait(self._random.uniform(0.05, 0.6)):
            for index, program in enumerate(self._programs):
                if program.poll() is not None:
                    self._programs[index] = self._start(self._cables[index])
            action = self._random.choice(actions)
            what = action()
            self.done[what or action.__name__] += 1

    def hurt_a_runner(self) -> str | None:
        """Kill one, or stop it for a while; returns what was done."""
        running = [info for info in self._manager.slaves if info.pid and info.state in ("idle", "busy")]
        if not running:
            return "nobody was there"
        signum = self._random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGSTOP])
        pid = self._random.choice(running).pid
        _send(pid, signum)
        if signum == signal.SIGSTOP:
            threading.Timer(self._random.uniform(0.1, 2 * LEASE), _send, (pid, signal.SIGCONT)).start()
        return f"a runner got {signum.name}"

    def kill_a_program(self) -> None:
        """Kill an agent on the far side: its slaves end with it."""
        self._random.choice(self._programs).kill()

    def end_a_program(self) -> None:
        """Ask an agent on the far side to end."""
        _send(self._random.choice(self._programs).pid, self._random.choice([signal.SIGTERM, signal.SIGINT]))

    def cut_a_cable(self) -> None:
        """Break all connections of a slave program."""
        self._random.choice(self._cables).cut()

    def freeze_a_cable(self) -> None:
        """Silence all connections of a slave program, sometimes for longer than the lease."""
        self._random.choice(self._cables).freeze(self._random.uniform(0.1, 1.5 * LEASE))

    def kill_the_local_agent(self) -> None:
        """Its runners end with it; other slaves take their places."""
        local = [info for info in self._manager.slaves if info.name == "LocalSlave()" and info.pid]
        alive = [info for info in local if info.state in ("idle", "busy")]
        if alive:
            _send(_parent(alive[0].pid), signal.SIGKILL)
        for _ in range(2):
            self._manager.add_slave(parallel.LocalSlave())

    def replace_a_slave(self) -> None:
        """Have a local one drain, and add another."""
        local = [info for info in self._manager.slaves if info.name == "LocalSlave()"]
        alive = [info for info in local if info.state in ("idle", "busy")]
        if alive:
            self._manager.remove_slave(self._random.choice(alive), grace=self._random.choice([0.0, 1.0]))
        self._manager.add_slave(parallel.LocalSlave())


def _send(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # it has ended already


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return pid  # it has just ended


# -- the comparison


def chaotic_run(seconds: float, seed: int, folder: str) -> tuple[list[Results], list[int], list[str], Counter[str]]:
    """The job in chaos: results by context, number of tasks by context, errors, and what was broken how often."""
    found: list[Results] = [Counter(), Counter()]
    counts, until = [0, 0], time.monotonic() + seconds
    errors: list[str] = []
    with open(Path(folder) / "programs.output", "wb") as output:
        with parallel.Manager(port=0, output=f"{folder}/slave%d.output", lease=LEASE, max_attempts=1000) as manager:
            for _ in range(2):
                manager.add_slave(parallel.LocalSlave())
            chaos = Chaos(manager, seed, output)
            contexts = [manager.get_context(functools.partial(salt, index), retries=1000) for index in (0, 1)]
            readers = []
            for index, context in enumerate(contexts):
                context.add_tasks(tasks(index, until, counts))
                readers.append(threading.Thread(target=read, args=(context, found[index], errors), daemon=True))
                readers[-1].start()
            chaos.thread.start()
            threading.Event().wait(seconds)
            chaos.stop()
            for reader in readers:
                reader.join(120)
                if reader.is_alive():
                    raise SystemExit(f"seed {seed}: it hangs: {manager.slaves}; {sum(counts)} tasks")
        chaos.end()
    return found, counts, errors, chaos.done


def main() -> None:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    logging.getLogger("parallel").setLevel(logging.ERROR)  # slaves are lost all the time
    with tempfile.TemporaryDirectory() as folder:
        found, counts, errors, done = chaotic_run(options.seconds, options.seed, folder)
    for what, count in sorted(done.items()):
        print(f"{count:5}  {what.replace('_', ' ')}")
    calm = calm_run(counts)
    lost = sum(sum((calm[index] - found[index]).values()) for index in (0, 1))
    twice = sum(count - 1 for results in found for count in results.values())
    other = sum(result not in calm[index] for index in (0, 1) for result in found[index])
    print(f"{sum(counts)} tasks, {sum(done.values())} times something was broken: ", end="")
    print(f"{lost} results lost, {twice} given twice, {other} different from the calm run's, {len(errors)} errors")
    for error in errors[:3]:
        print(error)
    sys.exit(1 if lost or twice or other or errors else 0)


if __name__ == "__main__":
    main()

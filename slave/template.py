"""The template: a process that imports what the first tasks will import, once, and of which runners are forked.

    agent -> template    a runner's config, and when its process id is known (to the agent's guard, too) that it is to
                         go; the end of the line: leave
    template -> agent    "ready", or how far it came and why no further; then for each config a process id

It is forked from the agent, as runners else are; each of its runners by a process that ends at once, so that the
runner becomes a child of the agent, which hears of its end as of any other's: the agent must adopt orphans
(process_tree.py).  A runner that comes from here must be what a fresh one would have become: only installed packages
are imported (preload.py), and none that does not survive a fork (fork_safety.py).  In doubt there is no template, and
each runner imports for itself.
"""

from __future__ import annotations

import atexit
import logging
import math
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Callable, NoReturn

from . import cpus, environment, fork_safety, mp_adapter, preload, process_tree, streams
from .gathering import CELL_BYTES, SharedMemory, new_shared_memory
from .named import NamedTuple
from .runner import Closable, RunnerConfig
from .runner import main as runner_main
from .shared_status import SharedStatus, new_shared_status

log = logging.getLogger("slave")

HOLD = 10.0  # seconds for which the first runners wait for it; then they import for themselves
_ANSWER = 5.0  # seconds for a runner to be forked
_FIRST = "first"  # in the master's environment: the pickles of its setups and first tasks
_READY = b"ready"
_LENGTH = struct.Struct("!I")

_SPARE = 32  # slaves that may come later and get runners of it

# what the agent and a slave's runners, one after the other, share: it must be there before the template is forked
Slots = Sequence[tuple[SharedStatus, SharedMemory]]


class TemplateGone(Exception):
    """No runner comes from the template any more."""


class Forked(NamedTuple):
    """A runner that was forked from the template, as the agent sees it."""

    process: Adopted
    status: SharedStatus
    memory: SharedMemory


class Adopted:
    """A process that became a child of ours when its parent ended, as `multiprocessing.Process` shows its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """As of a process of multiprocessing: None as long as it runs, negative for a signal."""
        self._look(os.WNOHANG)
        return self._exitcode

    def _look(self, flags: int) -> None:
        if self._exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:
                self._exitcode = 255  # somebody else was told
            else:
                if pid:
                    self._exitcode = os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """End it now."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self._send(signal.SIGTERM)

    def _send(self, signum: int) -> None:
        if self.exitcode is None:
            process_tree.send(self.pid, signum)

    def join(self) -> None:
        """Wait for its end."""
        self._look(0)


class Template:
    """The agent's end.  ``mark``: of its runners and of what they start (process_tree.py)."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.pid = 0  # 0: there is none
        self.ready = False
        self._connection: socket.socket | None = None
        self._share = ""  # how many threads its libraries start
        self._most: int | None = None  # so many imports at most: those before the one that does not survive a fork
        self._hold_until = 0.0
        self._slots: Slots = ()
        self._slot_of: dict[int, int] = {}  # by slave

    @property
    def loading(self) -> bool:
        """Whether it imports."""
        return self.pid != 0 and not self.ready

    def holds(self, now: float) -> bool:
        """Whether runners had better wait for it."""
        return self.loading and now < self._hold_until

    @property
    def sources(self) -> list[socket.socket]:
        """What is readable when it has something to say."""
        return [self._connection] if self.loading and self._connection is not None else []

    def start(
        self, config: RunnerConfig, waker: socket.socket, inherited: Sequence[Closable], hold: bool = True
    ) -> None:
        """Have one make itself ready for runners, if it can be had, and anything is to be imported.

        ``config``: of one of them.  ``hold``: whether they wait for it.
        """
        imports = self._imports(config.environment)
        if not imports:
            return
        agent = os.getpid()
        self._slots = [(new_shared_status(True), new_shared_memory(True)) for _ in range(config.siblings + _SPARE)]
        self._slot_of.clear()
        near, far = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:  # no process to be had just now
            near.close()
            far.close()
            return
        if not pid:
            try:
                for one in (near, *inherited):
                    one.close()
                _Body(config, imports, far, waker, self._slots, agent).live()
            finally:
                os._exit(1)
        far.close()
        near.setblocking(False)
        self.pid, self.ready, self._connection = pid, False, near
        self._share = _share(config)
        self._hold_until = time.monotonic() + HOLD if hold else 0.0

    def _imports(self, surroundings: Mapping[str, Any]) -> Sequence[preload.Import]:
        """What it is to import."""
        first = surroundings.get(_FIRST)
        if not first or not hasattr(os, "memfd_create"):
            return ()
        there = environment.Environment(surroundings)
        wanted = preload.wanted(first, surroundings, there.search_path(), there.same_python)
        return fork_safety.fit(wanted)[: self._most]

    def look(self) -> bool:
        """See what it has to say of itself; whether another one, which imports less, is worth a try."""
        if not self.loading or self._connection is None:
            return False
        try:
            said = self._connection.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            said = b""
        if said == _READY:
            self._connection.settimeout(_ANSWER)
            self.ready = True
            return False
        done, _, why = said.decode("utf-8", "replace").partition(" ")
        log.debug("each slave imports for itself: %s", why or "the process that imports for all has ended")
        self.end()
        if not done.isdigit() or not int(done) or self._most is not None:
            return False
        self._most = int(done)
        return True

    def patience(self, now: float) -> float:
        """Seconds within which runners wait for it no more."""
        return max(0.0, self._hold_until - now) if self.holds(now) else math.inf

    def fits(self, config: RunnerConfig) -> bool:
        """Whether it can make such a runner."""
        room = config.slave in self._slot_of or len(self._slot_of) < len(self._slots)
        return self.ready and room and self._share == _share(config)

    def fork(self, config: RunnerConfig, name: str, began: Callable[[int], None]) -> Forked:
        """Have a runner forked.  ``began`` is told its process id before it does anything.

        Raises `TemplateGone` if that does not work and will not, `BlockingIOError` if there is no process to be had.
        """
        assert self._connection is not None
        slot = self._slot_of.setdefault(config.slave, len(self._slot_of))
        status, memory = self._slots[slot]
        for cells in (status, memoryview(memory)[:CELL_BYTES].cast("Q")):
            for place in range(len(cells)):
                cells[place] = 0  # what the slave's last runner has left there
        told = config._replace(environment=_without_first(config.environment))
        try:
            order = pickle.dumps((told, slot, name, mp_adapter.next_identity()))
            self._connection.sendall(_LENGTH.pack(len(order)) + order)
            pid = _LENGTH.unpack(_exactly(self._connection, _LENGTH.size))[0]
            if pid:
                began(pid)
                self._connection.sendall(b"!")
        except (OSError, EOFError, pickle.PicklingError) as error:
            log.debug("each slave imports for itself from now on: no process came from the one that has: %s", error)
            self.end()
            raise TemplateGone(str(error)) from None
        if not pid:
            raise BlockingIOError("the system has no process to give")
        return Forked(Adopted(pid), status, memory)

    def has_ended(self) -> bool:
        """Whether it was there, has ended and has nothing to say any more; its end is taken note of."""
        if not self.pid or self.loading:
            return False
        try:
            ended = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            ended = True
        if ended:
            self._forget()
        return ended

    def close(self) -> None:
        """Close this end: what is forked must not hold it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self) -> None:
        """End it, and what its imports have started."""
        if self.pid:
            process_tree.send(self.pid, signal.SIGKILL)
            process_tree.end_family([self.pid], [f"{self._mark}.{self.pid}."])
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass
        self._forget()

    def _forget(self) -> None:
        self.close()
        self.pid, self.ready = 0, False


def _without_first(surroundings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in surroundings.items() if name != _FIRST}


def _share(config: RunnerConfig) -> str:
    """How many threads the libraries of such a runner start, which they read when they are imported."""
    said = {**config.environment.get("variables", {}), **os.environ}
    return said.get(cpus.GENERAL) or cpus.share(config.siblings)


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes.  Raises EOFError if there are fewer."""
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError("it has ended")
        data += more
    return data


# -- in the template


class _NotFit(Exception):
    """``done``: how many imports were made before it was so."""

    def __init__(self, why: str, done: int = 0) -> None:
        super().__init__(why)
        self.done = done


class _Body:
    """The template's process."""

    def __init__(
        self,
        config: RunnerConfig,
        imports: Sequence[preload.Import],
        connection: socket.socket,
        waker: socket.socket,
        slots: Slots,
        agent: int,
    ) -> None:
        self._config, self._connection, self._waker, self._agent = config, connection, waker, agent
        self._imports, self._slots = imports, slots
        self._at_exit: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def live(self) -> None:
        """Import, say that it is ready, and fork runners until the agent wants no more."""
        self._settle_down()
        try:
            self._prepare()
        except _NotFit as error:
            self._connection.sendall(f"{error.done} {error}".encode()[:4000])
            return
        self._connection.sendall(_READY)
        while True:
            try:
                self._fork(_exactly(self._connection, _LENGTH.unpack(_exactly(self._connection, _LENGTH.size))[0]))
            except (EOFError, ConnectionError):
                return

    def _settle_down(self) -> None:
        """Have nothing of the agent's, and end with it."""
        signal.set_wakeup_fd(-1)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # whoever signals a whole job means the agent
            signal.signal(getattr(signal, name), _nothing)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if not process_tree.die_with_parent() or os.getppid() != self._agent:
            os._exit(1)
        os.environ[process_tree.VARIABLE] = f"{self._config.mark}.{os.getpid()}."
        streams.to_nothing(0)
        streams.make_steady()

    def _prepare(self) -> None:
        """Import.  Raises `_NotFit`."""
        config, path, imports = self._config, list(sys.path), self._imports
        cpus.share_threads(config.siblings, os.environ)
        surroundings = environment.Environment(_without_first(config.environment))
        surroundings.enter()
        sys.modules["__main__"] = types.ModuleType("__main__")
        before, variables, entered = set(sys.modules), dict(os.environ), list(sys.path)
        with _silence() as printed, self._noting_exits():
            snapshot = fork_safety.Snapshot()
            for done, (name, parts) in enumerate(imports):
                try:
                    __import__(name, {}, {}, list(parts))
                except BaseException as error:  # whatever a package does when it is imported
                    raise _NotFit(f"{name} cannot be imported: {type(error).__name__}: {error}", done) from None
                why = snapshot.quick_trouble()
                if why:
                    raise _NotFit(f"{name} was imported, and {why}", done)
            why = snapshot.trouble()
            if not why and sys.path != entered:
                why = "it has changed sys.path"
            if not why and self._changed(variables):
                why = "it has changed a variable of the environment"
        if not why and printed():
            why = "it prints when it is imported"
        if why:
            raise _NotFit(f"{', '.join(name for name, _ in imports)} were imported, and {why}")
        environment.preloaded = frozenset(set(sys.modules) - before)
        sys.path[:] = path

    def _changed(self, before: Mapping[str, str]) -> bool:
        """Whether imports have set a variable that a runner would set back to what the master has."""
        masters = self._config.environment.get("variables", {})
        now = os.environ
        return any(now.get(name) != before.get(name) and masters[name] != now.get(name) for name in masters)

    @contextmanager
    def _noting_exits(self) -> Iterator[None]:
        """Note what is to be done at exit: from 3.13 on a process of multiprocessing begins without such notes."""
        register = atexit.register

        def noted(function: Callable[..., Any], /, *args: Any, **named: Any) -> Callable[..., Any]:
            self._at_exit.append((function, args, named))
            register(function, *args, **named)
            return function

        atexit.register = noted
        try:
            yield
        finally:
            atexit.register = register

    def _fork(self, order: bytes) -> None:
        """Fork a runner, tell its process id, or 0 if there is none to be had, and have it go when the agent says so.

        Raises EOFError or ConnectionError if the agent has ended; then the runner ends, too.
        """
        go, going = os.pipe()
        told, telling = os.pipe()
        try:
            between = os.fork()
        except OSError:
            between = -1
        if not between:
            try:
                self._start(order, (go, going), (told, telling))
            finally:
                os._exit(1)
        for end in (go, telling):
            os.close(end)
        pid = 0
        try:
            if between > 0:
                pid = int(os.read(told, 20) or 0)
                os.waitpid(between, 0)  # from now on the runner is the agent's child
            self._connection.sendall(_LENGTH.pack(pid))
            if pid and _exactly(self._connection, 1):
                os.write(going, b"!")
        finally:
            os.close(told)
            os.close(going)

    def _start(self, order: bytes, go: tuple[int, int], told: tuple[int, int]) -> NoReturn:
        """The body of the process between: start the runner, tell its process id, and end."""
        config, slot, name, identity = pickle.loads(order)
        to_close = (go[1], *told, self._connection.fileno())
        arguments = (config, *self._slots[slot], self._waker, self._agent)
        process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(go[0], to_close, arguments), name=name
        )
        mp_adapter.set_identity(process, identity)
        process.start()
        os.write(told[1], b"%d" % (process.pid or 0))
        os._exit(0)

    def _run(self, go: int, to_close: Sequence[int], arguments: tuple[Any, ...]) -> None:
        """The body of the runner's process."""
        for descriptor in to_close:
            os.close(descriptor)
        if os.read(go, 1) != b"!":
            os._exit(1)
        os.close(go)
        self._connection.detach()
        mp_adapter.set_parent(self._agent)
        if sys.version_info >= (3, 13):
            for function, args, named in self._at_exit:
                atexit.register(function, *args, **named)
        fork_safety.seed_anew()
        runner_main(*arguments)


def _nothing(*_: object) -> None:
    """The handler of a signal that is the agent's affair."""


@contextmanager
def _silence() -> Iterator[Callable[[], bool]]:
    """Keep what is printed; gives what tells whether that was anything."""
    kept = os.memfd_create("output")
    saved = [os.dup(fd) for fd in (1, 2)]
    size = 0
    try:
        for fd in (1, 2):
            os.dup2(kept, fd)
        yield lambda: size > 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        size = os.fstat(kept).st_size
        for fd, old in zip((1, 2), saved):
            os.dup2(old, fd)
            os.close(old)
        os.close(kept)

"""Where a slave program runs that came over a pipe (ssh, docker run -i): it travels on stdin, its output on stdout.

    stdin    one line of JSON {"archive": bytes, "runners": how many or null, "orders": ...}, then the archive
             (slave.pyz); and then nothing, until its end says that the pipe is broken or the master done
    stdout   frames: a line "SLOT LENGTH" and so many bytes, which that slave's process printed (slot 0: the agent too)

The program lives in a temporary folder, which is removed with it.  This file is sent ahead of the archive and run by
itself (``parallel/launch``), so it imports nothing of the package before that has come.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, BinaryIO, Callable

_MOST_UNSENT = 1 << 20  # bytes of output that may wait; then the slaves' writes wait
_LOOK = 0.5  # seconds between two looks whether the agent lives
_TO_END = 2.0  # seconds for the agent to end when it was told to end at once, and for the last output to leave

# poll() where there is one: it takes descriptors of any number and of every kind
_Selector: Callable[[], selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


def main(source: BinaryIO) -> int:
    """Run the agent that is described on ``source`` (stdin); returns its exit code, or 1 if the pipe broke."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(1))  # so that the folder is removed
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    header = json.loads(source.readline())
    with tempfile.TemporaryDirectory(prefix="parallel-slave-") as folder:
        archive = os.path.join(folder, "slave.pyz")
        with open(archive, "wb") as file:
            file.write(source.read(header["archive"]))
        relay = Relay()
        runners = header["runners"] or _usable_cpus(archive)
        told = header["orders"]
        numbers = [number for number, _ in told["slots"]] + [None] * (runners - len(told["slots"]))
        told["slots"] = [(number, relay.pipe(folder, slot)) for slot, number in enumerate(numbers)]
        agent = _start(archive, told)
        assert agent.stdout is not None
        relay.take(agent.stdout.fileno(), 0)
        try:
            code = relay.run(agent)
        finally:
            _end(agent)
        relay.flush()
        return code


class Relay:
    """Sends what comes out of pipes, in frames, to stdout.  One thread; no write blocks it."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}  # by descriptor
        self._unsent = bytearray()
        os.set_blocking(1, False)

    def pipe(self, folder: str, slot: int) -> str:
        """Make a named pipe for a slave's output; returns its path."""
        path = os.path.join(folder, f"output{slot}")
        os.mkfifo(path, 0o600)
        self.take(os.open(path, os.O_RDWR | os.O_NONBLOCK), slot)  # with a writer, ourselves, it has no end
        return path

    def take(self, fd: int, slot: int) -> None:
        """Relay this descriptor too."""
        self._slots[fd] = slot

    def run(self, agent: subprocess.Popen[bytes]) -> int:
        """Relay until the agent ends (returns its exit code) or stdin does (1)."""
        while True:
            sources = [0, *self._slots] if len(self._unsent) < _MOST_UNSENT else [0]
            ready = _wait(sources, bool(self._unsent), _LOOK)
            if 0 in ready and not os.read(0, 65536):
                return 1
            self._move([fd for fd in ready if fd])
            if agent.stdout is not None and agent.stdout.fileno() not in self._slots:
                agent.wait()  # it has closed its output, so it is about to end
            code = agent.poll()
            if code is not None:
                return 128 - code if code < 0 else code

    def flush(self) -> None:
        """Relay what is still in the pipes, if somebody reads it."""
        deadline = time.monotonic() + _TO_END
        while time.monotonic() < deadline:
            ready = _wait(list(self._slots), False, 0)
            if not ready and not self._unsent:
                return
            _wait([], True, _LOOK)
            self._move(ready)

    def _move(self, ready: list[int]) -> None:
        for fd in ready:
            data = os.read(fd, 65536)
            if data:
                self._unsent += b"%d %d\n" % (self._slots[fd], len(data)) + data
            else:
                del self._slots[fd]
        try:
            del self._unsent[: os.write(1, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more; the end of stdin will tell
            self._unsent.clear()


def _wait(sources: list[int], stdout: bool, seconds: float) -> list[int]:
    """Those of ``sources`` that can be read, once there is one, or stdout can be written if that is waited for too."""
    with _Selector() as selector:
        for fd in sources:
            selector.register(fd, selectors.EVENT_READ)
        if stdout:
            selector.register(1, selectors.EVENT_WRITE)
        return [key.fd for key, events in selector.select(seconds) if events & selectors.EVENT_READ]


def _usable_cpus(archive: str) -> int:
    sys.path.insert(0, archive)
    from slave.cpus import usable_cpus

    return usable_cpus()


def _start(archive: str, told: dict[str, Any]) -> subprocess.Popen[bytes]:
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # that the master gave us
    command = [sys.executable, *flags, archive, "--launched"]
    agent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert agent.stdin is not None
    with agent.stdin as stdin:
        stdin.write(json.dumps(told).encode() + b"\n")
    return agent


def _end(agent: subprocess.Popen[bytes]) -> None:
    """End the agent, if it runs: the second SIGTERM has it kill its runners and what these started."""
    for patience in (0.2, _TO_END):
        if agent.poll() is None:
            agent.terminate()
            try:
                agent.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    if agent.poll() is None:
        agent.kill()
        agent.wait()

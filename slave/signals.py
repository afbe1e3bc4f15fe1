"""What wakes the agent's loop: signals, the end of a runner (SIGCHLD) among them, and what a runner has to tell."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Callable


class Quit(Exception):
    """A signal asks the agent to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Signals:
    """Signals are noted while it watches; ``woken`` is readable after each, and after each byte sent to ``waker``."""

    def __init__(self) -> None:
        self.woken, self.waker = socket.socketpair()
        self.woken.setblocking(False)
        self.waker.setblocking(False)
        self.asked: int | None = None  # the signal that asked us to end
        self._at_once: Callable[[], None] = lambda: None
        self._before: dict[int, Any] = {}
        self._fd_before = -1

    def watch(self, at_once: Callable[[], None]) -> None:
        """From now on SIGINT and SIGTERM ask to end; the second time ``at_once`` is called and the process exits."""
        self._at_once = at_once
        names = [name for name in ("SIGINT", "SIGTERM", "SIGCHLD") if hasattr(signal, name)]
        self._before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
        self._fd_before = signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
        for signum in self._before:
            signal.signal(signum, self._note)

    def close(self) -> None:
        """Put the former handlers back."""
        if self._before:
            signal.set_wakeup_fd(self._fd_before)
            for signum, handler in self._before.items():
                signal.signal(signum, handler)
            self._before = {}
        self.woken.close()
        self.waker.close()

    def _note(self, signum: int, frame: object) -> None:
        if signum == getattr(signal, "SIGCHLD", None):
            return
        if self.asked is not None:
            self._at_once()
            os._exit(128 + signum)
        self.asked = signum

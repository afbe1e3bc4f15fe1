"""What wakes the agent's loop: signals, the end of a runner (SIGCHLD) among them, and what a runner has to tell."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Callable

_HANGUP = getattr(signal, "SIGHUP", -1)


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
        """From now on SIGINT, SIGTERM and SIGHUP ask to end; a second one calls ``at_once``, and the process exits.

        SIGHUP does not if it was ignored, by nohup, and counts once: a shell sends it, and the system too.  All are
        heard also if whoever started this process had them blocked.
        """
        self._at_once = at_once
        signals = [
            getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD") if hasattr(signal, name)
        ]
        self._before = {one: signal.getsignal(one) for one in signals}
        if self._before.get(_HANGUP) == signal.SIG_IGN:
            del self._before[_HANGUP]
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
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
        if self.asked == _HANGUP == signum:
            return
        if self.asked is not None:
            self._at_once()
            os._exit(128 + signum)
        self.asked = signum

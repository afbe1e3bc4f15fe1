"""What wakes the agent's loop: signals, the end of a runner (SIGCHLD) among them, and what a runner has to tell."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType
from typing import Any, Callable

_HANGUP = getattr(signal, "SIGHUP", -1)


class Quit(Exception):
    """A signal asks the agent to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def came_from_handler(error: BaseException) -> bool:
    """Whether a handler of a signal raised it, and not what was done when the signal came.

    A handler in Python was called with the signal's number and a frame, as nothing else is.  Python's own for SIGINT
    leaves no frame of its own; but nobody had to say ``raise KeyboardInterrupt`` then.
    """
    try:
        import dis  # slow to import, and of no use where all goes well
        import inspect
    except (OSError, MemoryError):  # then neither is to be had, and that is what has gone wrong
        return issubclass(type(error), KeyboardInterrupt)

    trace, raised_by_hand = _TRACEBACK.__get__(error), False  # whatever a property of its class says
    while trace is not None:
        code, values = trace.tb_frame.f_code, trace.tb_frame.f_locals
        names = code.co_varnames[: code.co_argcount + 1 if code.co_flags & inspect.CO_VARARGS else code.co_argcount]
        given = [values.get(name) for name in names]
        given += [one for value in given if type(value) is tuple for one in value]
        kinds = {type(one) for one in given}  # what an object of the user's says of its class is not asked
        if FrameType in kinds and not kinds.isdisjoint(_NUMBERS):
            return True
        raised_by_hand = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
        trace = trace.tb_next
    return issubclass(type(error), KeyboardInterrupt) and not raised_by_hand


_TRACEBACK: Any = vars(BaseException)["__traceback__"]
_NUMBERS = (int, signal.Signals)


class Signals:
    """Signals are noted while it watches; ``woken`` is readable after each, and after each byte sent to ``waker``."""

    def __init__(self) -> None:
        # datagrams, where there are such: several may send, and what each sends stays in one piece (voice.py)
        kind = (socket.AF_UNIX, socket.SOCK_DGRAM) if hasattr(socket, "AF_UNIX") else ()
        self.woken, self.waker = socket.socketpair(*kind)
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

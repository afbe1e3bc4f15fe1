"""Standard streams that hold nobody up.

What a task prints goes where its slave's output goes: a file, or a terminal or pipe of whoever started the slave by
hand, which may be full, hung up or never there.  What cannot be written there is dropped, and fails no task and no exit
code; but that the disk is full is said to the task that prints to a file, as to any program.  What is typed is not for
tasks: their standard input is empty everywhere.
"""

from __future__ import annotations

import errno
import io
import os
import select
import selectors
import stat
import sys
from typing import Any, Callable

_GONE = frozenset((errno.EIO, errno.EPIPE, errno.ENXIO, errno.ENOTCONN, errno.ECONNRESET, errno.EBADF))
_VANISHED = sum(getattr(select, name, 0) for name in ("POLLERR", "POLLHUP", "POLLNVAL"))


def fill_gaps() -> None:
    """Have the descriptors 0, 1 and 2 open: else the next file or connection would take one of these numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            to_nothing(fd)


def empty_stdin() -> None:
    """Have nothing to read from standard input, here and in the programs that this process starts."""
    to_nothing(0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it is to stay open


def make_steady() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``, whatever has been put there, by streams that never fail."""
    sys.stdout = _steady(1, sys.stdout)
    sys.stderr = _steady(2, sys.stderr)


def steady_output() -> None:
    """Have what is printed from now on, by programs too, go nowhere if there is nobody any more to take it."""
    for fd in (1, 2):
        if _has_vanished(fd):
            to_nothing(fd)


def may_vanish() -> bool:
    """Whether `steady_output` has anything to look at: what goes to a file does not."""
    return any(stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in map(_mode, (1, 2)))


def _mode(fd: int) -> int:
    try:
        facts = os.fstat(fd)
        if stat.S_ISCHR(facts.st_mode) and os.path.samestat(facts, os.stat(os.devnull)):
            return 0
        return facts.st_mode
    except OSError:
        return 0


def _has_vanished(fd: int) -> bool:
    """Whether the terminal or the reader behind a descriptor has gone."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & _VANISHED for _, events in poll.poll(0))


def to_nothing(fd: int) -> None:
    """Have a descriptor lead nowhere: nothing can be read there, and what is written is dropped."""
    try:
        found = os.open(os.devnull, os.O_RDWR)
    except OSError:
        return  # a container without /dev/null
    if found != fd:
        os.dup2(found, fd)
        os.close(found)
    else:
        os.set_inheritable(fd, True)


def _wait_for_room(fd: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_WRITE)
        selector.select()


# is told what is printed: the descriptor, and the bytes
listener: Callable[[int, bytes], None] | None = None


class _Raw(io.FileIO):
    """A descriptor to which writing fails for a file alone: what nobody takes is dropped."""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < view.nbytes:
            try:
                written = super().write(view[done:])
            except OSError as error:
                if error.errno in _GONE:
                    to_nothing(self.fileno())
                elif stat.S_ISREG(_mode(self.fileno())):
                    raise  # a full disk: somebody wants to read this later, and may make room
                break
            if written is None:  # somebody has made it non-blocking, and it is full
                _wait_for_room(self.fileno())
            else:
                done += written
        if listener is not None:
            listener(self.fileno(), bytes(view))
        return view.nbytes


def _steady(fd: int, former: Any) -> io.TextIOWrapper:
    """A stream on ``fd``, in the encoding of the former one, of which each line is out when it is printed."""
    if isinstance(former, io.TextIOWrapper) and isinstance(getattr(former.buffer, "raw", None), _Raw):
        return former
    try:
        if former is not None:
            former.flush()
    except Exception:
        pass  # nobody takes it, or somebody's own object has no such method
    encoding = getattr(former, "encoding", None)
    errors = "surrogateescape" if getattr(former, "errors", None) == "surrogateescape" else "backslashreplace"
    buffered = io.BufferedWriter(_Raw(fd, "w", closefd=False))
    try:
        stream = io.TextIOWrapper(buffered, encoding or "utf-8", errors, line_buffering=True)
    except (LookupError, TypeError):  # a stand-in whose encoding is none
        stream = io.TextIOWrapper(buffered, "utf-8", errors, line_buffering=True)
    stream.mode = "w"  # type: ignore[misc]  # as the interpreter's own have it
    return stream

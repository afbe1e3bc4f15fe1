"""The limits that were set for this process (ulimit), and what has failed for want of memory or descriptors."""

from __future__ import annotations

import errno
import socket

from .foreign import looked_at, message_of

# in texts: of the linker, of other errors, of threading, of the search for a codec
_NO_MEMORY = (
    "failed to map segment",
    "Cannot allocate memory",
    "MemoryError",
    "can't start new thread",
    "encoding: idna",
)
_DEPTH = 10  # causes of causes that are looked at


def no_memory(error: BaseException | None) -> bool:
    """Whether the error, or one of its causes, says that there was no memory to be had."""
    return looked_at(lambda: _says_no_memory(error), lambda _: False)


def _says_no_memory(error: BaseException | None) -> bool:
    for _ in range(_DEPTH):
        if error is None:
            return False
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, (ImportError, RuntimeError, LookupError)) and any(
            text in message_of(error) for text in _NO_MEMORY
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_descriptor(error: BaseException | None) -> bool:
    """Whether the error says that this process may open no more files."""
    return looked_at(lambda: isinstance(error, OSError) and error.errno == errno.EMFILE, lambda _: False)


def shortage(error: BaseException | None) -> bool:
    """Whether it comes from a want of memory, threads, processes or descriptors, and not of what was asked for."""
    return no_memory(error) or no_descriptor(error) or isinstance(error, BlockingIOError)  # that one of fork


def told(error: BaseException | None) -> str:
    """Which limit of this process the error comes from, and what to do, in one line; '' if it comes from none."""
    whose = f"on {socket.gethostname()} a process may"
    if no_descriptor(error):
        most = _limit("RLIMIT_NOFILE")
        return f"{whose} have {most} files open: raise that limit (ulimit -n)" if most else ""
    most = min(filter(None, (_limit("RLIMIT_AS"), _limit("RLIMIT_DATA"))), default=0) if no_memory(error) else 0
    return f"{whose} use {most >> 20} MiB of memory: raise that limit (ulimit -v, ulimit -d)" if most else ""


def explained(error: BaseException) -> str:
    """What has failed, and which limit that comes from, in one line."""
    what = f"{type(error).__name__}: {error}" if str(error) else "there is no memory for it here (MemoryError)"
    limit = told(error)
    return f"{what}; {limit}" if limit else what


def _limit(name: str) -> int:
    """The soft limit; 0 if there is none, or the system has no such thing."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    soft, _ = resource.getrlimit(getattr(resource, name))
    return 0 if soft == resource.RLIM_INFINITY else int(soft)

"""What `Manager` refuses, with the remedy."""

from __future__ import annotations

import logging
import multiprocessing.process
import os
import sys
from collections.abc import Collection
from typing import Any

from slave import inside
from slave.machine import is_tag, parse_size
from slave.plain_numbers import real, whole

from .errors import Error, InputError, InputTypeError, NetworkError
from .launch.job import INHERITED

log = logging.getLogger("parallel")

_LONGEST_WAIT = 30 * 86400.0  # seconds
_LONGEST_KEY = 1000  # characters
_LONGEST_LABEL = 200  # characters
_OURS = "parallel", "cloudpickle"  # a script imports the one; functions without a name to import need the other
_GUARD = "What must run on the master only belongs under: if __name__ == '__main__':"


def refuse_inside_slave(name: str = "Manager") -> None:
    """Raise `Error` in a slave: a task cannot be a master, and a script's import must not start one."""
    refuse_while_imported(name)
    if inside.in_runner():
        raise Error(f"{name}() was called inside a task. A slave runs tasks for its master and cannot be one itself")


def refuse_while_imported(name: str) -> None:
    """Raise `Error` in a slave that imports a module or the script: that must start nothing."""
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        raise Error(f"{name}() was called while a child of multiprocessing was importing the script. {_GUARD}")
    importing = inside.imported_by(sys._getframe(1)) if inside.in_runner() else None
    if importing is None:
        return
    script = getattr(sys.modules["__main__"], "__file__", None)
    if importing == script:
        raise Error(
            f"{name}() was called while a slave was importing {importing}. A slave imports the script to find the "
            f"tasks in it. {_GUARD}"
        )
    raise Error(
        f"{name}() was called while a slave was importing the module {importing}. A slave imports modules to find the "
        f"tasks in them; let the script on the master make the manager, or a function that only the script calls"
    )


def check_progress(progress: object) -> None:
    """Raise `InputTypeError` unless it is None, a bool or a callable."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise InputTypeError(f"progress={progress!r} is not None, True, False or a callable that takes the status")


def check_show_output(wanted: object) -> None:
    """Raise `InputTypeError` unless it is None, a bool or a callable."""
    if not (wanted is None or isinstance(wanted, bool) or callable(wanted)):
        raise InputTypeError(
            f"show_output={wanted!r} is not None, True, False or a callable that takes a slave's number and a line"
        )


def check_forward_logging(wanted: object) -> None:
    """Raise `InputTypeError` unless it is None, a bool or a level."""
    is_level = isinstance(wanted, int) or (isinstance(wanted, str) and isinstance(getattr(logging, wanted, None), int))
    if wanted is not None and not is_level:
        raise InputTypeError(
            f"forward_logging={wanted!r} is not None, True, False or a level such as logging.INFO or 'INFO'"
        )


def check_label(label: object) -> str:
    """A name for people, in one line; None: ''.  Raises `InputTypeError`."""
    if label is None:
        return ""
    if not isinstance(label, str):
        raise InputTypeError(f"a label is a text, and {label!r} is none")
    text = "".join(one if one.isprintable() else " " for one in label[:_LONGEST_LABEL])
    return text if len(label) <= _LONGEST_LABEL else text[:-3] + "..."


def check_key(key: object) -> str:
    """The key by which a task is known again.  Raises `InputTypeError` and `InputError`."""
    if not isinstance(key, str):
        raise InputTypeError(f"a task's key must be a str, and {key!r} is none: make one of it, by str(...) say")
    if not 0 < len(key) <= _LONGEST_KEY:
        raise InputError(f"a task's key must have 1 to {_LONGEST_KEY} characters, and this one has {len(key)}")
    return key.encode("utf-8", "replace").decode()


def name_of(function: object) -> str:
    """The name of a callable, '' for None."""
    inner = getattr(function, "func", function)  # of a partial
    name = getattr(inner, "__qualname__", None) or ("" if inner is None else type(inner).__qualname__)
    return name[:_LONGEST_LABEL] if isinstance(name, str) else ""


def check_ship(ship: object) -> tuple[str, ...] | None:
    """The installed packages that slaves get, with those that this library needs; None for False: no modules at all."""
    from .service import module_source  # slow to import

    if ship is False:
        return None
    try:
        return (*module_source.check_ship(ship), *_OURS)
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from None


def check_arguments(host: str | None, port: int | None, lease: float, attempts: int) -> tuple[int | None, float, int]:
    """The port, the lease and the attempts.  Raises `InputError` or `NetworkError` for what cannot be."""
    if host is not None:
        _check_host(host)
    number = None if port is None else whole(port)
    if port is not None and (number is None or not 0 <= number < 65536):
        raise InputError(f"port={port!r} is not a port number: 0 to 65535, where 0 means any free one")
    return number, check_lease(lease), check_count(attempts, "max_attempts")


def check_python(python: object) -> None:
    """Raise `InputError` or `InputTypeError` unless it is a command line, or None."""
    if python is not None and not isinstance(python, str):
        raise InputTypeError(f"python={python!r} is no command line that starts Python: a text, as in 'nice python3'")
    if python is not None and (not python.strip() or "\0" in python):
        raise InputError(f"python={python!r} starts nothing; leave it out for this interpreter, or name another")


def check_trace(trace: object) -> str:
    """The name of the file.  Raises `InputTypeError`, `InputError` for a checkpoint's."""
    from .checkpoint.disk import is_checkpoint  # which most programs do not need

    try:
        path = os.fsdecode(trace)  # type: ignore[arg-type]  # that is what is tried
    except TypeError:
        raise InputTypeError(f"trace={trace!r} is no file name, as 'run.json' is one") from None
    if is_checkpoint(path):
        raise InputError(f"trace={trace!r} is a checkpoint, and would be lost: name another file")
    return path


def check_output(output: str | bytes | os.PathLike[Any] | None) -> str | None:
    """The pattern for the names of output files, absolute; None or '-' as it is.  Raises `InputError`."""
    if output is None or output == INHERITED:
        return output
    try:
        pattern = os.fsdecode(output)
    except TypeError:
        raise InputTypeError(
            f"output={output!r} is no file name; 'slave%d.output' is one, None is for no files"
        ) from None
    try:
        path = os.path.abspath(pattern)
    except OSError:
        raise InputError(
            f"output={output!r}: the working folder of this program was deleted; change to another one (os.chdir), "
            f"name a full path, Manager(output='/tmp/slave%d.output'), or do without files, output=None"
        ) from None
    if "\0" in path:
        raise InputError(f"output={output!r} can be no file name: there is a null character in it")
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise InputError(f"output={output!r}: there is no folder {folder}; make it, or name another")
    if os.path.isdir(path):
        raise InputError(
            f"output={output!r} is a folder; name files in it: {os.path.join(pattern, 'slave%d.output')!r}"
        )
    return path


_LEAVE_OUT = "leave it out, or name an address"


def _check_host(host: object) -> None:
    from slave.name_service import is_shortage

    from .service.addresses import addresses_of
    from .service.endpoint import reason_of

    if not isinstance(host, str):
        raise InputTypeError(f"host={host!r} is not a name or address of this machine: a text, as in host='10.0.0.5'")
    try:
        if not host or host.split() != [host] or "\0" in host:
            raise UnicodeError("it is empty, or not one word")
        host.encode("idna")
    except UnicodeError as error:
        why = str(error).rpartition("UnicodeError: ")[2].rstrip(")")
        why = f"host={host!r} cannot be the name of a machine: {why}"
        raise InputError(f"{why}; {_LEAVE_OUT}") from None
    try:
        if addresses_of(host) is None:
            log.warning(
                "parallel: the name service does not answer what host=%r is; slaves are told the name all the same",
                host,
            )
    except OSError as error:
        if is_shortage(error):
            raise NetworkError(f"host={host!r}: its address cannot be asked for: {reason_of(error)}") from None
        name, _, port = host.rpartition(":")
        advice = (
            f"name the port apart, host={name!r}, port={port}"
            if name and ":" not in name and port.isdigit()
            else _LEAVE_OUT
        )
        raise NetworkError(f"host={host!r} is unknown here: {error.strerror}; {advice}") from None


def check_lease(lease: float) -> float:
    """The seconds.  Raises `InputError` unless it is a positive number of them."""
    number = real(lease)
    if not 0 < number < float("inf"):
        raise InputError(f"lease={lease!r} is not a positive number of seconds")
    return number


def check_manager(manager: object) -> None:
    """Raise `InputTypeError` unless it is a manager, or None."""
    if manager is not None and (isinstance(manager, type) or not callable(getattr(manager, "get_context", None))):
        raise InputTypeError(f"manager={manager!r} is no manager, as Manager() makes one")


def check_timeout(timeout: float) -> float | None:
    """The time limit in seconds, None for infinity.  Raises `InputError` unless it is positive."""
    limit = real(timeout)
    if not limit > 0:
        raise InputError(f"timeout={timeout!r} is not a positive number of seconds")
    return None if limit == float("inf") else limit


def check_seconds(seconds: float, name: str) -> float | None:
    """A number of seconds, None for infinity.  Raises `InputError` unless it is one from 0 on."""
    number = real(seconds)
    if not number >= 0:
        raise InputError(f"{name}={seconds!r} is not a number of seconds from 0 on")
    return None if number == float("inf") else number


def check_wait(seconds: float) -> float:
    """Raise `InputError` unless it is a number of seconds from 0 on, and not for ever."""
    number = real(seconds)
    if not 0 <= number <= _LONGEST_WAIT:
        raise InputError(f"slaves_wait={seconds!r} is not a number of seconds from 0 to {_LONGEST_WAIT:,.0f}")
    return number


def check_count(count: int, name: str) -> int:
    """The number.  Raises `InputError` unless it is a whole one from 1 on."""
    number = whole(count)
    if number is None or number < 1:
        raise InputError(f"{name}={count!r} is not a whole number from 1 on")
    return number


def check_from_0(number: int, name: str) -> int:
    """The number.  Raises `InputError` unless it is a whole one from 0 on."""
    found = whole(number)
    if found is None or found < 0:
        raise InputError(f"{name}={number!r} is not a whole number from 0 on")
    return found


def check_bytes(count: float, name: str) -> float:
    """The number.  Raises `InputError` unless it is one of bytes."""
    number = real(count)
    if not number > 0:
        raise InputError(f"{name}={count!r} is not a positive number of bytes")
    return number


def check_tags(needs: object) -> frozenset[str]:
    """The tags that a context needs.  Raises `InputError`, `InputTypeError`."""
    if isinstance(needs, str) or not isinstance(needs, Collection):
        raise InputTypeError(f"needs={needs!r} must be a set of tags, such as {{'gpu'}}")
    for tag in needs:
        if not is_tag(tag):
            raise InputError(f"needs: {tag!r} is no tag: letters, digits, '-', '_', '.', 64 at most")
    return frozenset(needs)


def check_most_tasks(most: object) -> int:
    """How many tasks of a context one process may run; 0 for no limit.  Raises `InputError`."""
    if most is None:
        return 0
    number = whole(most)
    if number is None or number < 1:
        raise InputError(f"max_tasks_per_slave={most!r} is not a whole number from 1 on, or None")
    return number


def check_memory(size: str | float) -> int:
    """Bytes.  Raises `InputError`."""
    try:
        return parse_size(size)
    except ValueError as error:
        raise InputError(f"max_memory: {error}") from None

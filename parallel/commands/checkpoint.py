"""Show what a checkpoint holds, the file of a context's results; drop results, make it small, export it.

Results that are dropped are made again when the script is started next.  Exit codes: 0 it is done; 1 nothing was
changed or written; 2 wrong command line; 7 there is a key that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

from slave.keys import find_key

from ..checkpoint.disk import Disk, is_checkpoint, now
from ..checkpoint.format import DROP, Entry, Found
from ..checkpoint.lock import Lock, holder_of
from ..checkpoint.results_file import ResultsFile
from ..errors import CheckpointError

Row = TypeVar("Row")

SUMMARY = "show what a checkpoint holds; drop results, make it small, export it"

_FAILED = 1
_SHOWN = 20  # results that are shown one by one
_JSON_LINES = ".json", ".jsonl", ".ndjson"
_UNITS = "bytes", "kB", "MB", "GB", "TB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the package's text."""
    parser.add_argument("file", help="what get_context(..., checkpoint=...) names")
    parser.add_argument("--list", action="store_true", help=f"show every result, and not {_SHOWN} at most")
    parser.add_argument(
        "--drop", nargs="+", metavar="KEY", help="drop the results of tasks with that key, or that label"
    )
    parser.add_argument(
        "--compact", action="store_true", help="write the file anew without results that are not used any more"
    )
    parser.add_argument(
        "--export",
        metavar="OUT",
        help="write all results to another file: as JSON lines if its name ends in .json or .jsonl, or if it is -, and "
        "else as one pickle, a list of dictionaries. It loads the results, with the modules that they are of",
    )


def run(options: argparse.Namespace) -> int:
    """See the package's text.  Raises `KeyTrouble`."""
    path = os.path.realpath(options.file)
    if not os.path.exists(path):
        return _failed(f"there is no file {path}")
    lock: Lock | None = None
    try:
        if options.drop or options.compact:
            lock = Lock(path)
        for step in (_drop, _compact, _export, _show):
            code = step(path, options)
            if code:
                return code
    except CheckpointError as error:
        return _failed(str(error))
    except BrokenPipeError:  # "| head": see __main__.py
        raise
    except OSError as error:
        return _failed(f"{path} cannot be used: {error.strerror or error}")
    finally:
        if lock is not None:
            lock.release()
    return 0


class _Opened:
    """The file, closed at the end."""

    def __init__(self, path: str, write: bool) -> None:
        self._disk = Disk(path, write)
        try:
            self._file = ResultsFile(self._disk, find_key(), lambda text: sys.stderr.write(f"parallel: {text}\n"))
        except BaseException:
            self._disk.close()
            raise

    def __enter__(self) -> ResultsFile:
        return self._file

    def __exit__(self, *args: object) -> None:
        self._disk.close()


# -- what there is


def _show(path: str, options: argparse.Namespace) -> int:
    if not (options.drop or options.compact or options.export):
        with _Opened(path, False) as file:
            _show_file(file, options.list)
    return 0


def _show_file(file: ResultsFile, every: bool) -> None:
    sizes, counts, times = Counter[str](), Counter[str](), []
    lines: list[str] = []
    for found in file.records():
        task = _task(file, found)
        sizes[task] += found.size
        counts[task] += 1
        times.append(found.entry.made)
        if every or len(lines) < _SHOWN:
            lines.append(f"    {_dated(found.entry.made)}  {_sized(found.size):>10s}  {_name(found.entry) or task}\n")
    total, disk = sum(counts.values()), file.disk.size()
    sys.stdout.write(f"{file.path}: {_counted(total)}, {_sized(disk)}\n")
    holder = holder_of(file.path)
    if holder is not None:
        sys.stdout.write(f"in use by process {holder.pid} on {holder.host}\n")
    unused = disk - sum(sizes.values())
    if unused > disk / 2 and file.index.records > 2 * total:
        sys.stdout.write(f"{_sized(unused)} of that are results that are not used any more: --compact makes it small\n")
    if not total:
        return
    sys.stdout.write(f"made from {_dated(min(times))} to {_dated(max(times))}\n")
    for task, count in counts.most_common():
        sys.stdout.write(f"{_counted(count)} of {task}, {_sized(sizes[task])}\n")
    sys.stdout.writelines(lines)
    if total > len(lines):
        sys.stdout.write(f"    and {total - len(lines)} more: --list shows them\n")


def _task(file: ResultsFile, found: Found) -> str:
    origin = file.origins.get(found.entry.origin)
    return "a task that is not known" if origin is None else origin.task


def _name(entry: Entry) -> str:
    """What the user calls it."""
    name = " ".join(text.decode("utf-8", "replace") for text in (entry.key, entry.label) if text)
    return name if name.isprintable() else ascii(name)[1:-1]


def _counted(count: int) -> str:
    return f"{count} result{'' if count == 1 else 's'}"


def _sized(size: float) -> str:
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"


def _dated(made: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made / 1e6))


# -- what is done


def _drop(path: str, options: argparse.Namespace) -> int:
    if not options.drop:
        return 0
    names = set(options.drop)
    with _Opened(path, True) as file:
        dropped = [found.entry for found in file.records() if names & _names(found.entry)]
        missing = names.difference(*map(_names, dropped))
        if missing:
            return _failed(f"no result has the key or label {', '.join(map(repr, sorted(missing)))}: none was dropped")
        file.append([(DROP, entry._replace(made=now()), b"", ()) for entry in dropped])
        file.sync()
    sys.stdout.write(f"{_counted(len(dropped))} dropped\n")
    return 0


def _names(entry: Entry) -> set[str]:
    return {entry.key.decode("utf-8", "replace"), entry.label.decode("utf-8", "replace")}


def _compact(path: str, options: argparse.Namespace) -> int:
    if options.compact:
        with _Opened(path, True) as file:
            before = file.disk.size()
            file.rewrite(lambda found: True)
        sys.stdout.write(f"{path}: {_sized(before)} before, {_sized(os.path.getsize(path))} now\n")
    return 0


def _export(path: str, options: argparse.Namespace) -> int:
    """Write all results, or nothing."""
    if not options.export:
        return 0
    try:
        with _Opened(path, False) as file:
            count = _export_file(file, options.export)
    except _CannotExport as error:
        return _failed(f"{error}; nothing was exported")
    if options.export != "-":
        sys.stdout.write(f"{options.export}: {_counted(count)}\n")
    return 0


def _export_file(file: ResultsFile, out: str) -> int:
    """Returns how many there are.  Raises `_CannotExport`."""
    if out == "-":
        sys.stdout.writelines(_json_lines(file))
        return 0
    if is_checkpoint(out):
        raise _CannotExport(f"{out} is a checkpoint, and would be lost: name another file")
    count = 0

    def counted(rows: Iterator[Row]) -> Iterator[Row]:
        nonlocal count
        for row in rows:
            yield row
            count += 1

    draft = f"{out}.{os.getpid()}"
    try:
        if out.endswith(_JSON_LINES):
            with open(draft, "x", encoding="utf-8", opener=_private) as text:
                text.writelines(counted(_json_lines(file)))
        else:
            with open(draft, "xb", opener=_private) as data:
                pickle.dump(list(counted(_values(file))), data)
        os.replace(draft, out)
    except OSError as error:
        raise _CannotExport(f"{out} cannot be written: {error.strerror}") from None
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)
    return count


class _CannotExport(Exception):
    """A result cannot be rebuilt here, or is nothing that JSON knows, or the file cannot be written."""


def _values(file: ResultsFile) -> Iterator[dict[str, Any]]:
    for found in file.records():
        payload = file.load(found)
        if payload is None:
            sys.stderr.write(f"parallel: a damaged result of {_task(file, found)} is left out\n")
            continue
        try:
            value = pickle.loads(payload[0], buffers=payload[1])
        except Exception as error:
            raise _CannotExport(
                f"a result of {_task(file, found)} cannot be rebuilt here ({type(error).__name__}: {error}): start "
                f"this where its modules can be imported"
            ) from None
        entry = found.entry
        yield {
            "task": _task(file, found),
            "key": entry.key.decode() or None,
            "label": entry.label.decode() or None,
            "made": _dated(entry.made),
            "result": value,
        }


def _json_lines(file: ResultsFile) -> Iterator[str]:
    for one in _values(file):
        try:
            yield json.dumps(one, default=_plain) + "\n"
        except (TypeError, ValueError) as error:
            raise _CannotExport(
                f"a result of {one['task']} is nothing for JSON ({error}): export to a .pickle"
            ) from None


def _plain(value: Any) -> Any:
    """Arrays and their numbers as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not known there")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _failed(text: str) -> int:
    sys.stderr.write(f"parallel: {text}\n")
    return _FAILED

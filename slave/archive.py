"""A module or package as one archive: which files it has, what their hash is, and the way into a folder.

Both ends use it: the master packs, a slave compares what it has itself, and unpacks.  The hash is one of names and
contents, and not of the archive's bytes: it can be computed of a folder, too.  Names are relative to the folder that is
to stand in `sys.path`, with slashes.  There are files in an archive and nothing else: no links, no empty folders.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import pickle
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import plain
from .errors import ProtocolError
from .named import NamedTuple
from .private_files import PRIVATE_FOLDER, write_new
from .protocol import Buffer, Setup

SETUP = "setup"  # name of the file
MOST = 512 << 20  # bytes of one package; more is for a disk that all machines see, or for setup
EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)

_LEFT_OUT = frozenset(("__pycache__", ".git", ".hg", ".svn", ".ipynb_checkpoints"))
_COMPILED = (*EXTENSIONS, ".so", ".pyd", ".pyc", ".pyo", ".dylib", ".dll")
_LONGEST_NAME = 4000  # characters
_QUICK = 1  # of zlib: the network is seldom slower than a better compression


class File(NamedTuple):
    """One file: its name, its bytes, and whether it can be run."""

    name: str
    data: bytes
    executable: bool


class Found(NamedTuple):
    """A file on a disk that belongs to a module: its name in an archive, and where it is."""

    name: str
    path: str


# -- what belongs to a module


def files_of(name: str, spec: importlib.machinery.ModuleSpec) -> list[Found]:
    """The files of a top-level module, or of a whole package, by their names; none if there are no files.

    Compiled files are among them.  Raises OSError.
    """
    locations = spec.submodule_search_locations
    if locations is None:
        origin = spec.origin
        return [Found(os.path.basename(origin), origin)] if spec.has_location and origin is not None else []
    found: dict[str, str] = {}
    for location in filter(os.path.isdir, locations):  # an import passes by what is no folder, too
        for file, path in _walk(os.path.abspath(location), name, set()):
            found.setdefault(file, path)
    return [Found(file, path) for file, path in sorted(found.items())]


def _walk(folder: str, name: str, above: set[str]) -> Iterator[tuple[str, str]]:
    """The ordinary files in a folder and those below, links followed."""
    real = os.path.realpath(folder)
    if real in above:
        return  # a link to a folder that it is in
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name in _LEFT_OUT:
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{name}/{entry.name}", {*above, real})
        elif entry.is_file():
            yield f"{name}/{entry.name}", entry.path


def is_compiled(name: str) -> bool:
    """Whether it is a file for one version of Python, or one kind of machine."""
    return name.endswith(_COMPILED)


def without_compiled(found: Iterable[Found]) -> tuple[list[Found], list[str]]:
    """What can be sent, and the extension modules that cannot, by their full names."""
    kept, names = [], []
    for one in found:
        if not is_compiled(one.name):
            kept.append(one)
        elif one.name.endswith(EXTENSIONS):
            folder, _, file = one.name.rpartition("/")
            names.append(".".join([*filter(None, folder.split("/")), file.partition(".")[0]]))
    return kept, names


def stamp_of(found: Iterable[Found]) -> str:
    """What tells in most cases, without reading them, that files are the same: names, sizes, times.  Raises OSError."""
    total = hashlib.sha256()
    for name, path in sorted(found):
        facts = os.stat(path)
        total.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def read(found: Iterable[Found]) -> list[File]:
    """The files themselves.  Raises OSError, and `ValueError` if they are too large."""
    files, size = [], 0
    for name, path in found:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            size += facts.st_size
            if size > MOST:
                raise ValueError(
                    f"its files have more than {MOST >> 20} MiB, which are not sent: have its data in another folder, "
                    f"for the setup to read, or install it on the slaves"
                )
            files.append(File(name, file.read(), bool(facts.st_mode & stat.S_IXUSR)))
    return files


def content_hash(files: Iterable[File]) -> str:
    """The SHA-256 of names and contents, as hex digits."""
    total = hashlib.sha256()
    for name, data, _ in sorted(files):
        total.update(_line(name, len(data), hashlib.sha256(data).hexdigest()))
    return total.hexdigest()


def _line(name: str, size: int, sha256: str) -> bytes:
    return f"{name}\0{size}\0{sha256}\n".encode("utf-8", "surrogatepass")


def setup_hash(payload: Setup) -> str:
    """The hash of a context's setup, which is the one file of a folder."""
    return setup_digest(len(payload), hashlib.sha256(payload).hexdigest())


def setup_digest(size: int, sha256: str) -> str:
    """The same of so many bytes with that hash."""
    return hashlib.sha256(_line(SETUP, size, sha256)).hexdigest()


# -- the archive


def pack(files: Sequence[File], compress: bool = True) -> bytes:
    """All of them in one piece."""
    return zlib.compress(pickle.dumps([tuple(file) for file in files], 5), _QUICK if compress else 0)


def unpack(data: Buffer) -> list[File]:
    """The inverse.  Raises `ProtocolError` for what is none, or has a name that leads elsewhere."""
    machine = zlib.decompressobj()
    try:
        listed: Any = plain.loads(machine.decompress(data, 2 * MOST))
        files = [File(*parts) for parts in listed]
    except (zlib.error, TypeError) as error:
        raise ProtocolError(f"an archive cannot be read: {error}") from None
    for name, content, executable in files:
        if type(name) is not str or type(content) is not bytes or type(executable) is not bool:
            raise ProtocolError("an archive has something that is no file")
        check_name(name)
    return files


def check_name(name: str) -> None:
    """Raises `ProtocolError` if it is not the name of a file below the folder where an archive is unpacked."""
    parts = name.replace("\\", "/").split("/")  # on Windows both part them
    strange = any(part in ("", ".", "..") or "\0" in part for part in parts) or name[1:2] == ":"
    strange = strange or (os.name == "nt" and ("\\" in name or ":" in name))
    if strange or len(name) > _LONGEST_NAME:
        raise ProtocolError(f"an archive has a file with the name {name[:100]!r}")


def write(files: Iterable[File], folder: str) -> None:
    """Write them below a new folder.  Raises OSError; FileExistsError for a name that comes twice."""
    for name, data, executable in files:
        check_name(name)
        *above, last = name.split("/")
        path = folder
        for part in above:
            path = os.path.join(path, part)
            try:
                os.mkdir(path, PRIVATE_FOLDER)
            except FileExistsError:
                if os.path.islink(path) or not os.path.isdir(path):
                    raise
        write_new(os.path.join(path, last), data, 0o700 if executable else 0o600)

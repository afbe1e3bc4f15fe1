"""ModuleSource: the modules of this process as slaves may have them, found without importing any, and packed.

What can be sent: what an import would find now outside the interpreter's library and its site-packages, and there what
the user has named.  A package goes as a whole, with all its files but the compiled ones.  What was packed once is sent
to all slaves alike, until the module is loaded anew in this process: what somebody is writing just now is not a part of
the program that runs.

Everything here may read files: it is for side threads.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Callable

from slave import archive
from slave.archive import File, Found
from slave.imported_files import stamp_of
from slave.named import NamedTuple
from slave.protocol import ABSENT, ARCHIVE, SAME, ModuleReply
from slave.search_path import LIBRARY, PACKAGES, kind_of

from .distributions import Distributions, is_about, requirement_of

_Spec = importlib.machinery.ModuleSpec
_MAIN = "__main__"


class Packed(NamedTuple):
    """An archive, and what is said of it."""

    reply: ModuleReply
    files: frozenset[str]  # their names
    stamps: Mapping[str, object]  # by the path of what was read, where that is a file


class ModuleSource:
    """See the module's text.  ``ship``: packages of site-packages that are sent.  ``main``: where the script is."""

    def __init__(self, ship: Collection[str], main: Callable[[], str | None]) -> None:
        self._ship, self._main = frozenset(ship), main
        self._lock = threading.Lock()  # guards what follows, while files are read: many ask for the same
        self._packed: dict[str, Packed] = {}  # by name of the module
        self._data: dict[str, bytes] = {}  # by hash
        self._former: dict[str, str] = {}  # by name the hash of what it was before, which may be under way
        self._denied: set[str] = set()  # names for which there was nothing
        self._distributions = Distributions()

    def find(self, name: str, stamp: str) -> ModuleReply:
        """What there is of a top-level module.  Raises OSError and `ValueError` for files that cannot be sent."""
        with self._lock:
            packed = self._packed.get(name)
            reply = self._look(name, stamp) if packed is None else packed.reply
            if reply.kind == ABSENT:
                self._denied.add(name)
            return reply

    def _look(self, name: str, stamp: str) -> ModuleReply:
        if name == _MAIN:
            path = self._main()
            return ModuleReply(ABSENT) if path is None else self._found(name, _main_files(path), stamp, path)
        spec = spec_of(name)
        if spec is None:
            return ModuleReply(ABSENT)
        origin = _where(spec)
        kind = LIBRARY if origin is None else kind_of(os.path.dirname(origin))
        if kind == LIBRARY:
            return ModuleReply(ABSENT, origin=origin or "Python itself")
        if kind == PACKAGES and name not in self._ship:
            return ModuleReply(ABSENT, requirement=requirement_of(name))
        inside = _in_zip(name, spec)
        if inside is not None:
            return self._keep(name, inside, (), str(origin), {})
        return self._found(name, archive.files_of(name, spec), stamp, str(origin))

    def piece(self, digest: str, offset: int, size: int) -> bytes:
        """A piece of an archive; b'' if it is not known."""
        data = self._data.get(digest)
        return b"" if data is None else data[offset : offset + size]

    def forget(self, names: Collection[str]) -> None:
        """These modules have been loaded anew: what was packed of their packages is not what runs here."""
        with self._lock:
            for name in {name.partition(".")[0] for name in names}:
                packed = self._packed.pop(name, None)
                if packed is not None:
                    self._data.pop(self._former.get(name, ""), None)
                    self._former[name] = packed.reply.digest

    def was_missed(self, module: str) -> bool:
        """Whether slaves were told that a module is not there, or have got its package without it."""
        top, _, rest = module.partition(".")
        if top in self._denied:
            self._denied.discard(top)
            return True
        packed = self._packed.get(top)
        if packed is None or not rest:
            return False
        path = module.replace(".", "/")
        return not any(file == f"{path}.py" or file.startswith(f"{path}/") for file in packed.files)

    def edited(self) -> list[str]:
        """The modules that slaves have, which this process never loaded, and whose files are not what they were."""
        sent = [(name, packed) for name, packed in list(self._packed.items()) if name not in sys.modules]
        return [name for name, packed in sent if any(stamp_of(path) != one for path, one in packed.stamps.items())]

    def _found(self, name: str, found: Sequence[Found], stamp: str, origin: str) -> ModuleReply:
        kept, compiled = archive.without_compiled(found)
        if not kept:
            return ModuleReply(ABSENT, compiled=compiled, requirement=requirement_of(name), origin=origin)
        if stamp and stamp == archive.stamp_of(kept):
            return ModuleReply(SAME)
        more, compiled_too = archive.without_compiled(_added_files(name, found))
        kept, compiled = [*kept, *more], [*compiled, *compiled_too]
        stamps = {path: stamp_of(path) for _, path in kept}  # before they are read: what comes later is another one
        return self._keep(name, archive.read(kept), compiled, origin, stamps)

    def _keep(
        self, name: str, files: Sequence[File], compiled: Sequence[str], origin: str, stamps: Mapping[str, object]
    ) -> ModuleReply:
        if name != _MAIN:
            known = {one.name for one in files}
            more = self._distributions.files_of(name, _home(name, origin))
            files = [*files, *(file for file in more if file.name not in known)]
        digest = archive.content_hash(files)
        if digest not in self._data:
            self._data[digest] = archive.pack(files)
        if self._former.get(name) == digest:
            del self._former[name]
        requirement = requirement_of(name) if compiled else ""
        reply = ModuleReply(ARCHIVE, digest, len(self._data[digest]), compiled, requirement, origin)
        self._packed[name] = Packed(reply, frozenset(file.name for file in files), stamps)
        return reply


def check_ship(ship: object) -> tuple[str, ...]:
    """The names of packages that are to be sent.  Raises `ValueError` with the reason for what cannot be."""
    if isinstance(ship, str) or not isinstance(ship, Collection):
        raise ValueError(f"ship={ship!r} is neither a list of names of packages, nor False")
    for name in ship:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"ship: {name!r} is not the name of a package, such as 'requests'")
        spec = spec_of(name)
        found = [] if spec is None else archive.files_of(name, spec)
        if not found:
            raise ValueError(f"ship: there is no package {name!r} here")
        compiled = archive.without_compiled(found)[1]
        if compiled:
            raise ValueError(
                f"ship: {name!r} has compiled parts ({compiled[0]}), which run on one kind of machine and Python only: "
                f"install it on the slaves, python3 -m pip install {requirement_of(name) or name}"
            )
    return tuple(ship)


def spec_of(name: str) -> _Spec | None:
    """Where a top-level module was loaded from, or would be; None if there is none."""
    loaded: Any = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, _Spec):
        return loaded
    for finder in list(sys.meta_path):
        find: Callable[..., _Spec | None] | None = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, None)
        if spec is not None:
            return spec
    return None


def _where(spec: _Spec) -> str | None:
    """The file or folder of a module; None if it is built in."""
    if spec.submodule_search_locations is not None:
        first = next(iter(spec.submodule_search_locations), None)
        return None if first is None else os.path.join(os.path.abspath(first), "__init__.py")
    return os.path.abspath(spec.origin) if spec.has_location and spec.origin is not None else None


def _added_files(name: str, found: Sequence[Found]) -> list[Found]:
    """What a package that is loaded here has besides, in folders of its name elsewhere: see `pkgutil.extend_path`."""
    path = vars(sys.modules[name]).get("__path__") if isinstance(sys.modules.get(name), ModuleType) else None
    spec = _Spec(name, None, is_package=True)
    spec.submodule_search_locations = [
        one for one in path or () if isinstance(one, str) and os.path.basename(one) == name
    ]
    known = {one.name for one in found}
    return [one for one in archive.files_of(name, spec) if one.name not in known]


def _home(name: str, origin: str) -> str:
    """The folder that holds a top-level module."""
    folder = os.path.dirname(os.path.realpath(origin))
    return os.path.dirname(folder) if os.path.basename(folder) == name else folder


def _main_files(path: str) -> list[Found]:
    return [Found(os.path.basename(path), path)]


def _in_zip(name: str, spec: _Spec) -> list[File] | None:
    """The files of a module that comes from a zip file; None if it does not."""
    loader: Any = spec.loader
    path, prefix = getattr(loader, "archive", None), getattr(loader, "prefix", "")
    if not isinstance(path, str):
        return None
    import zipfile

    with zipfile.ZipFile(path) as opened:
        return list(_members(opened, name, str(prefix).replace(os.sep, "/")))


def _members(opened: Any, name: str, prefix: str) -> Iterator[File]:
    listed = set(opened.namelist())
    for info in opened.infolist():
        file = info.filename[len(prefix) :] if info.filename.startswith(prefix) else ""
        ours = file == f"{name}.py" or (file.startswith(f"{name}/") and not file.endswith("/"))
        record = f"{info.filename.rpartition('/')[0]}/RECORD"
        about = record in listed and is_about(file, opened.read(record).decode(errors="replace"), name)
        if about or (ours and not archive.is_compiled(file)):
            yield File(file, opened.read(info), False)

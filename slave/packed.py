"""`PackedModules`: the modules of this package in slave.pyz, where they are compressed as one.

A zip archive compresses each of its members for itself, and `zipimport` compiles each module twice; of seventy modules
of a few KB the one costs a quarter of the file, the other a third of the program's start.  So slave.pyz holds them in
one member, ``slave/modules``, and this module in the place of ``slave/__init__.py``: when the package is imported, by
whichever process that has slave.pyz in `sys.path`, it reads that member, and finds its modules in there from then on.
They are named as if each stood in the archive (``slave.pyz/slave/agent.py``), and give their source, so that tracebacks
show its lines.

    slave/modules    a line "NAME SIZE NAME SIZE ...", then so many bytes of source for each of these modules

What was read stays, some hundred KB that forked runners share: a slave goes on if its slave.pyz is removed or replaced.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

MEMBER = "modules"  # beside this module


def packed(sources: Mapping[str, bytes]) -> bytes:
    """The contents of the member.  ``sources``: of the modules, by name, without the package's."""
    names = sorted(sources)
    index = " ".join(f"{name} {len(sources[name])}" for name in names)
    return b"\n".join([index.encode(), b"".join(sources[name] for name in names)])


def unpacked(data: bytes) -> dict[str, bytes]:
    """The other way round."""
    index, _, rest = data.partition(b"\n")
    words, sources, begin = index.decode().split(), {}, 0
    for name, size in zip(words[::2], map(int, words[1::2])):
        sources[name] = rest[begin : begin + size]
        begin += size
    return sources


class PackedModules:
    """See the module's text.  Goes into `sys.meta_path`."""

    def __init__(self, package: str, folder: str, sources: Mapping[str, bytes]) -> None:
        """``folder``: where the package's modules seem to be."""
        self._sources = {f"{package}.{name}": source for name, source in sources.items()}
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As the import system calls it."""
        source = self._sources.get(name)
        if source is None:
            return None
        file = os.path.join(self._folder, name.rpartition(".")[2] + ".py")
        spec = importlib.machinery.ModuleSpec(name, _Loader(name, file, source), origin=file)
        spec.has_location = True  # so that the module has a __file__
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module as from a file, but for the bytes, which are here."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        raise FileNotFoundError(path)  # there is no bytecode of it

    def get_data(self, path: Any) -> bytes:
        if path != self.path:
            raise FileNotFoundError(path)
        return self._source


def _begin(spec: importlib.machinery.ModuleSpec) -> None:
    """Find the modules of the package that has this module's code in the place of its own."""
    assert spec.loader is not None and spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    loader: Any = spec.loader  # of the zip archive
    sys.meta_path.append(PackedModules(spec.name, folder, unpacked(loader.get_data(os.path.join(folder, MEMBER)))))


if __name__ == "slave":
    assert __spec__ is not None
    _begin(__spec__)

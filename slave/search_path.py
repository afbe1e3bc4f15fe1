"""sys.path of a slave: the master's entries in the master's order, with this Python's own where the master's stood.

Four kinds of entries are told apart.  LIBRARY and PACKAGES belong to the interpreter (its library, its site-packages):
what shadows the master's there shadows the slave's here, and nothing else does.  What is left is the user's: OWN
entries are taken as they are; those BOUND to a version of Python (a cluster's folder of packages for 3.11) too if the
slave's Python is that one, else they come last, where they shadow nothing.
"""

from __future__ import annotations

import functools
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence

LIBRARY, PACKAGES, OWN, BOUND = "library", "packages", "own", "bound"

_PATHS = "stdlib", "platstdlib", "purelib", "platlib"

Entry = tuple[str, str]  # path, kind

_VERSION_IN_PATH = re.compile(r"(?:^|[\\/])(?:python|Python|pypy)-?\d\.?\d+(?:[\\/]|$)")


def own_entries(path: Iterable[object], folder: str | None) -> list[Entry]:
    """The entries of this process's sys.path, absolute, with their kinds; ``folder``: the working one, if there is one.

    What an import passes by is left out: all but text (before 3.11 also bytes), and what is relative to no folder.
    """
    found: dict[str, str] = {}
    for entry in path:
        text = os.fsdecode(entry) if isinstance(entry, bytes) and sys.version_info < (3, 11) else entry
        if not isinstance(text, str):
            continue
        if not os.path.isabs(text):
            if folder is None:
                continue
            text = os.path.normpath(os.path.join(folder, text))
        found.setdefault(text, kind_of(text))
    return list(found.items())


@functools.lru_cache(maxsize=1000)
def kind_of(entry: str) -> str:
    """Which kind an absolute entry of this process's sys.path is."""
    library, packages = _places()
    if any(entry == one or entry.startswith(one + os.sep) for one in packages):
        return PACKAGES
    archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    if entry.endswith(os.sep + archive) or any(entry == one or entry.startswith(one + os.sep) for one in library):
        return LIBRARY
    return BOUND if _VERSION_IN_PATH.search(entry) or _holds_installed(entry) else OWN


@functools.lru_cache(maxsize=1)
def _places() -> tuple[frozenset[str], frozenset[str]]:
    """The folders of this interpreter's library, and of the packages that are installed for it."""
    paths = _interpreters_paths()
    library = {paths["stdlib"], paths["platstdlib"]}
    packages = {paths["purelib"], paths["platlib"]}
    if hasattr(site, "getsitepackages"):
        packages.update(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        packages.add(site.getusersitepackages())
    return frozenset(library), frozenset(packages)


def _interpreters_paths() -> Mapping[str, str]:
    """`sysconfig.get_paths`, for which all that was configured when this Python was built need not be loaded."""
    known = {
        "base": sys.prefix,
        "installed_base": sys.base_prefix,
        "platbase": sys.exec_prefix,
        "installed_platbase": sys.base_exec_prefix,
        "platlibdir": getattr(sys, "platlibdir", "lib"),
        "py_version_short": "{}.{}".format(*sys.version_info[:2]),
        "py_version_nodot": "{}{}".format(*sys.version_info[:2]),
        "implementation_lower": {"cpython": "python"}.get(sys.implementation.name, sys.implementation.name),
        "abi_thread": "t" if "t" in getattr(sys, "abiflags", "") else "",
    }
    try:
        templates = sysconfig.get_paths(expand=False)
        return {name: os.path.normpath(templates[name].format_map(known)) for name in _PATHS}
    except KeyError:
        return sysconfig.get_paths()


def _holds_installed(entry: str) -> bool:
    """Whether an installer has put packages there (``pip install --target``), as it does for one version of Python."""
    try:
        with os.scandir(entry) as files:
            return any(file.name.endswith(".dist-info") for file in files)
    except OSError:
        return False  # a zip file, or a folder that is yet to be made


def search_path(master: Sequence[Entry], own: Sequence[Entry], same: bool) -> list[str]:
    """sys.path for a runner, of the master's and this interpreter's ``own``; ``same``: version and platform are."""
    mine: dict[str, list[str]] = {kind: [entry for entry, one in own if one == kind] for kind in (LIBRARY, PACKAGES)}
    path: list[str] = []
    late: list[str] = []
    for entry, kind in master:
        if kind in mine:
            path += mine[kind]
            if same:
                late.append(entry)
        elif kind == BOUND and not same:
            late.append(entry)
        else:
            path.append(entry)
    path += [entry for kind in mine for entry in mine[kind]]  # of a kind of which the master has none
    path += [entry for entry, _ in own]
    return list(dict.fromkeys(path + late))

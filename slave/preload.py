"""What the first tasks will import of installed packages, found without running anything of the user's.

The master names the pickles of its setups and first tasks.  A pickle refers to modules: those of installed packages are
to be imported themselves; those of the user's are read, and what they import first, in their order, is looked at in
the same way.  It ends where a module does anything but import, define, or give names to plain values: what comes after
``os.environ["OMP_NUM_THREADS"] = "1"`` may not be imported before that was done.

Nothing of the user's is ever imported here: what his modules make when they are imported (files, random generators,
temporary names) must not be shared by the processes that are forked later.
"""

from __future__ import annotations

import _ast
import importlib.machinery
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .main_module import NAMES
from .named import NamedTuple
from .pickling import references
from .search_path import BOUND, LIBRARY, OWN, PACKAGES, kind_of

_ONLY_TREE = 0x400  # ast.PyCF_ONLY_AST; the module ast itself is slow to import
_MOST_BYTES, _MOST_FILES = 1 << 20, 300  # of sources that are read
_OURS = ("parallel", "slave")
_LIBRARY: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))

_SOURCE = tuple(importlib.machinery.SOURCE_SUFFIXES)


class Import(NamedTuple):
    """``import name``, or ``from name import parts``."""

    name: str
    parts: tuple[str, ...] = ()


class _Stop(Exception):
    """What comes after this may depend on what is done here."""


def wanted(
    payloads: Iterable[bytes], environment: Mapping[str, Any], path: Sequence[str], same_python: bool = True
) -> list[Import]:
    """The imports to make, each once, in the order in which the first runner would make them.

    ``environment``: the master's.  ``path``: sys.path of the runners.  ``same_python``: the master's is this version.
    """
    search = _Search(environment, path, same_python)
    try:
        for payload in payloads:
            for module, name in references(payload):
                search.follow(module, (name.partition(".")[0],))
    except _Stop:
        pass
    return list(search.found)


class _Search:
    def __init__(self, environment: Mapping[str, Any], path: Sequence[str], same_python: bool) -> None:
        self.found: dict[Import, None] = {}
        self._environment, self._path = environment, list(path)
        self._variables = {**os.environ, **environment.get("variables", {})}
        self._installed = (PACKAGES, BOUND) if same_python else (PACKAGES,)
        self._sent: Collection[str] = environment.get("ship") or ()  # those come from the master
        self._read: set[str] = set()  # files

    def follow(self, name: str, parts: Sequence[str] = ()) -> None:
        """Note an import, or what it leads to.  Raises `_Stop`."""
        top = name.partition(".")[0]
        if top in NAMES:
            self._read_file(*self._main_file())
        elif top not in _LIBRARY and top not in _OURS and top not in sys.builtin_module_names:
            spec = self._find(top)
            if spec is None or top in self._sent:
                raise _Stop  # the master may have it
            kind = _kind_of(spec)
            if kind in self._installed:
                self.found[Import(name, tuple(parts))] = None
            elif kind == OWN:
                self._follow_own(spec, name, parts)
            elif kind != LIBRARY:
                raise _Stop  # of another version of Python, or from no folder

    def _find(self, top: str) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.PathFinder.find_spec(top, self._path)

    def _follow_own(self, spec: importlib.machinery.ModuleSpec, name: str, parts: Sequence[str]) -> None:
        """Read what an import of the user's own module runs: the packages it is in, itself, its parts."""
        places = spec.submodule_search_locations
        if places is None:
            self._read_file(spec.origin, "")
            return
        folders, package = list(places), name.partition(".")[0]
        self._read_package(folders, package)
        for step in name.split(".")[1:]:
            folders = self._read_part(folders, package, step, must=True)
            package = f"{package}.{step}"
        for part in parts:
            if folders and part != "*":
                self._read_part(folders, package, part, must=False)

    def _read_package(self, folders: Sequence[str], package: str) -> None:
        files = (os.path.join(one, "__init__.py") for one in folders)
        first = next(filter(os.path.isfile, files), None)
        if first is not None:
            self._read_file(first, package)

    def _read_part(self, folders: Sequence[str], package: str, part: str, must: bool) -> list[str]:
        """Read a module or package inside of one; returns the folders of a package."""
        for folder in folders:
            inner = os.path.join(folder, part)
            if os.path.isdir(inner):
                self._read_package([inner], f"{package}.{part}")
                return [inner]
            if os.path.isfile(f"{inner}.py"):
                self._read_file(f"{inner}.py", package)
                return []
        if must:
            raise _Stop  # a compiled module, or one that is made somehow else
        return []

    def _main_file(self) -> tuple[str | None, str]:
        name, path = self._environment["main_name"], self._environment["main_path"]
        return path, name.rpartition(".")[0] if name else ""

    def _read_file(self, path: str | None, package: str) -> None:
        """Follow the imports that a file of the user's begins with.  Raises `_Stop` where it begins to do more."""
        if path is None or not path.endswith(_SOURCE):
            raise _Stop
        if path in self._read:
            return
        self._read.add(path)
        try:
            with open(path, "rb") as file:
                source = file.read(_MOST_BYTES + 1)
            if len(source) > _MOST_BYTES or len(self._read) > _MOST_FILES:
                raise _Stop
            tree: Any = compile(source, path, "exec", _ONLY_TREE, dont_inherit=True)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            raise _Stop from None
        for name, parts in self._imports(tree.body, package):
            self.follow(name, parts)

    # -- statements

    def _imports(self, body: Iterable[Any], package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The imports that statements make before anything else is done.  Raises `_Stop` at what does more."""
        for statement in body:
            if isinstance(statement, _ast.Import):
                for alias in statement.names:
                    yield alias.name, ()
            elif isinstance(statement, _ast.ImportFrom):
                yield _absolute(statement, package), tuple(alias.name for alias in statement.names)
            elif isinstance(statement, _ast.Try) and not statement.finalbody:
                yield from self._tried(statement, package)
            elif not (_is_main_guard(statement) or _does_nothing(statement, self._variables)):
                raise _Stop

    def _tried(self, statement: Any, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The imports of a ``try``: only those of modules that are there, since what is done else is not known."""
        tried = list(self._imports(statement.body, package))
        for name, parts in tried:
            if self._find(name.partition(".")[0]) is None:
                raise _Stop
            yield name, parts
        yield from self._imports(statement.orelse, package)


def _kind_of(spec: importlib.machinery.ModuleSpec) -> str | None:
    """Which kind of entry of sys.path a top-level module comes from; None if that is not a folder."""
    if spec.submodule_search_locations is not None:
        first = next(iter(spec.submodule_search_locations), None)
        folder = None if first is None else os.path.dirname(os.path.abspath(first))
    else:
        folder = os.path.dirname(spec.origin) if spec.has_location and spec.origin is not None else None
    return None if not folder else kind_of(folder)


# -- statements


def _absolute(statement: Any, package: str) -> str:
    if not statement.level:
        return str(statement.module)
    parents = package.split(".") if package else []
    if statement.level > len(parents):
        raise _Stop
    base = parents[: len(parents) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _is_main_guard(statement: Any) -> bool:
    """``if __name__ == "__main__":``, which no slave runs."""
    if not isinstance(statement, _ast.If) or statement.orelse or not isinstance(statement.test, _ast.Compare):
        return False
    test = statement.test
    sides = [test.left, *test.comparators]
    names = [one.id for one in sides if isinstance(one, _ast.Name)]
    texts = [one.value for one in sides if isinstance(one, _ast.Constant)]
    return isinstance(test.ops[0], _ast.Eq) and names == ["__name__"] and texts == ["__main__"]


def _does_nothing(statement: Any, variables: Mapping[str, str]) -> bool:
    """Whether a statement only defines, or gives names to plain values: no import can depend on it."""
    if isinstance(statement, _ast.Expr):
        return isinstance(statement.value, _ast.Constant) or _has_been_done(statement.value)
    if isinstance(statement, _ast.Assign):
        return (all(map(_is_name, statement.targets)) and _is_plain(statement.value)) or _is_set_already(
            statement, variables
        )
    if isinstance(statement, _ast.AnnAssign):
        return _is_name(statement.target) and (statement.value is None or _is_plain(statement.value))
    if isinstance(statement, (_ast.FunctionDef, _ast.AsyncFunctionDef)):
        defaults = [one for one in (*statement.args.defaults, *statement.args.kw_defaults) if one is not None]
        return all(map(_is_plain, [*statement.decorator_list, *defaults]))
    if isinstance(statement, _ast.ClassDef):
        parts = [*statement.decorator_list, *statement.bases, *(keyword.value for keyword in statement.keywords)]
        return all(map(_is_plain, parts)) and all(_does_nothing(one, variables) for one in statement.body)
    return isinstance(statement, _ast.Pass)


def _is_name(target: Any) -> bool:
    return isinstance(target, _ast.Name) and not (target.id.startswith("__") and target.id != "__all__")


_PLAIN = (
    _ast.Constant, _ast.Name, _ast.Attribute, _ast.Tuple, _ast.List, _ast.Dict, _ast.Set, _ast.UnaryOp, _ast.BinOp,
)  # fmt: skip


def _is_plain(value: Any) -> bool:
    """Whether to compute a value calls nothing of anybody's."""
    if isinstance(value, (_ast.Tuple, _ast.List, _ast.Set)):
        return all(map(_is_plain, value.elts))
    if isinstance(value, _ast.Dict):
        return all(map(_is_plain, [*filter(None, value.keys), *value.values]))
    if isinstance(value, _ast.UnaryOp):
        return _is_plain(value.operand)
    if isinstance(value, _ast.BinOp):
        return isinstance(value.left, _PLAIN) and _is_plain(value.left) and _is_plain(value.right)
    if isinstance(value, _ast.Attribute):
        return _is_plain(value.value)
    return isinstance(value, (_ast.Constant, _ast.Name))


def _has_been_done(call: Any) -> bool:
    """``sys.path.insert(...)``: the master's sys.path, as it was after that, is ours already."""
    function = call.func if isinstance(call, _ast.Call) else None
    return (
        isinstance(function, _ast.Attribute)
        and function.attr in ("append", "insert", "extend")
        and isinstance(function.value, _ast.Attribute)
        and function.value.attr == "path"
        and isinstance(function.value.value, _ast.Name)
        and function.value.value.id == "sys"
    )


def _is_set_already(statement: Any, variables: Mapping[str, str]) -> bool:
    """``os.environ["NAME"] = "text"``, where that is what it is."""
    target, value = statement.targets[0], statement.value
    return (
        len(statement.targets) == 1
        and isinstance(target, _ast.Subscript)
        and isinstance(target.value, _ast.Attribute)
        and target.value.attr == "environ"
        and isinstance(target.value.value, _ast.Name)
        and target.value.value.id == "os"
        and isinstance(value, _ast.Constant)
        and isinstance(value.value, str)
        and isinstance(_key_of(target), str)
        and variables.get(_key_of(target)) == value.value
    )


def _key_of(target: Any) -> Any:
    return getattr(target.slice, "value", None)

"""The master's environment, as far as a slave can have it: sys.path, working folder, arguments, ``__main__``.

A function is pickled as the name of its module and its own; the slave must be able to import that module.  So the
master says where it imports from (`describe`), and a runner takes that over before its first task (`Environment`).

The description has a number, which grows when something of it changes; a lease names the one that its tasks need, and
a runner that has an older one asks for it (`Environment.update`).  It names the modules that were loaded anew in the
master, too: a runner that has imported one of them before is of no use any more, and a fresh one takes its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from multiprocessing import AuthenticationError
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from . import inside
from .handover import Files, same_environment
from .keys import VARIABLE
from .main_module import MainLoader, MainSource
from .missing import learn_python
from .moved import is_moved
from .parted import Arrived, pickle_of
from .parted import loads as rebuilt
from .pickling import references
from .search_path import Entry, own_entries, search_path

if TYPE_CHECKING:
    from .imports import MasterFinder, ModuleClient

try:
    _STARTED_IN: str | None = os.getcwd()
except OSError:
    _STARTED_IN = None  # it was deleted

_NO_MODULE = ModuleType("none")
preloaded: frozenset[str] = frozenset()  # modules that were imported for all runners (template.py)


class ProxyUnusable(ConnectionError):
    """A proxy of a multiprocessing manager came with a task and cannot reach its server from here."""


# -- the master's side


def describe(
    main: Mapping[str, Any] | None = None, ship: Sequence[str] | None = (), preload: bool = True
) -> dict[str, Any]:
    """This process's environment, for slaves: plain strings and lists.  ``main``: the namespace of its ``__main__``.

    ``ship``: the installed packages that are sent; None: no modules are sent.  ``preload``: whether a machine may
    import them once for all its runners (template.py).
    """
    folder = working_folder()
    name, path = main_source(vars(sys.modules["__main__"]) if main is None else main, folder)
    return {
        "host": socket.gethostname(),
        "version": list(sys.version_info[:2]),
        "platform": sysconfig.get_platform(),
        "path": own_entries(sys.path, folder),
        "cwd": folder,
        "argv": [str(argument) for argument in sys.argv],
        "variables": {name: value for name, value in os.environ.items() if name != VARIABLE},
        "main_name": name,
        "main_path": path,
        "machine": _machine(),
        "ship": None if ship is None else list(ship),
        "preload": preload,
        "flags": [*map(str, sys.flags), *map(str, sys._xoptions.items()), *sys.warnoptions],
        "recursion": sys.getrecursionlimit(),
        "number": 1,
        "changed": {},
        "session": None,  # the user's modules that an interactive session has imported; None: it is a program
    }


def _machine() -> str:
    """What all processes have in common that see the same files at the same places; '' if that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/mnt')} {os.stat('/').st_ino}"
    except OSError:
        if sys.platform == "linux":
            return ""
        import uuid  # slow to import, and of no use on Linux

        return f"{socket.gethostname()} {uuid.getnode()}"


def working_folder() -> str | None:
    """The working folder; None if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


def main_source(main: Mapping[str, Any], folder: str | None) -> tuple[str | None, str | None]:
    """The name by which ``python -m`` found a ``__main__``, and its file, if it has any."""
    spec: Any = main.get("__spec__")
    path, name = main.get("__file__"), getattr(spec, "name", None)
    if name == "__main__":  # a folder or zip file was run
        name, path = None, getattr(spec.loader, "archive", None) or spec.origin
    return name, _file(path, folder)


def _file(path: object, folder: str | None) -> str | None:
    """The absolute path of a file that another process can read too; None for a pipe, or none at all."""
    if not isinstance(path, str):
        return None
    for start in (folder, _STARTED_IN):  # a program may have gone elsewhere since it was named
        full = os.path.abspath(path) if os.path.isabs(path) else os.path.join(start or os.sep, path)
        if full.startswith(("/dev/", "/proc/")):
            full = os.path.realpath(full)  # python3 /dev/stdin <script.py
        if os.path.isfile(full) and not full.startswith(("/dev/", "/proc/")):
            return os.path.normpath(full)
    return None


def main_can_travel(environment: Mapping[str, Any]) -> bool:
    """Whether slaves could import the script at all: False for an interactive session, ``python -c`` and a pipe."""
    return bool(environment["main_name"] or environment["main_path"])


# -- the slave's side


class Environment:
    """The environment of one master, in a runner.  ``client``: gets what the master sends."""

    def __init__(self, environment: Mapping[str, Any], client: ModuleClient | None = None) -> None:
        self._environment = environment
        here = _machine()
        self.same_machine = bool(here) and here == environment.get("machine", here)
        self._finder: MasterFinder | None = None
        if client is not None and environment.get("ship") is not None:
            from .imports import MasterFinder  # of no use to the master

            self._finder = MasterFinder(client, environment, self.same_machine)
        self._main = self._main_loader(environment)
        self._files: Files | None = None  # if this process may be kept for another master
        self._own: list[Entry] = []  # what this interpreter's sys.path is without a master
        self._from_start: frozenset[str] = frozenset()  # modules that a fresh runner has, too
        # the function that was rebuilt last, its pickle, and where it stands: most tasks are one function
        self._function: object = None
        self._reference = b""
        self._namespace: dict[str, Any] = {}
        self._name = ""

    @property
    def number(self) -> int:
        """Which of the master's descriptions this is."""
        return int(self._environment["number"])

    @property
    def same_python(self) -> bool:
        """Whether the master's Python is of this version, for this platform."""
        theirs = list(self._environment["version"]), self._environment["platform"]
        return theirs == (list(sys.version_info[:2]), sysconfig.get_platform())

    @property
    def session(self) -> Sequence[str] | None:
        """The user's modules that the master, an interactive session, has imported itself; None if it is none."""
        found: Sequence[str] | None = self._environment.get("session")
        return found

    @property
    def from_start(self) -> frozenset[str]:
        """Modules that a fresh runner has, too."""
        return self._from_start

    def apply(self) -> None:
        """Take over all of it.  What does not exist here is left as it is."""
        self.enter()
        self._main.install()  # the agent's own must not answer for the master's
        if self._finder is not None:
            self._finder.install()

    def enter(self) -> None:
        """Take over folder, arguments, variables and import path."""
        inside.enter()
        learn_python(self._environment["version"])
        self._own = own_entries(filter(None, sys.path), None)
        self._from_start = frozenset(sys.modules) - preloaded
        _change_folder(self._environment["cwd"])
        sys.argv[:] = self._environment["argv"]
        _raise_recursion_limit(self._environment)
        _set_variables({}, self._environment.get("variables", {}))
        sys.path[:] = self._search_path(self._environment)

    def search_path(self) -> list[str]:
        """sys.path as a runner will have it, in a process that has its own."""
        self._own = own_entries(filter(None, sys.path), None)
        return self._search_path(self._environment)

    def update(self, new: Mapping[str, Any]) -> bool:
        """Take over a later description; False if this process has modules that the master has loaded anew since."""
        old, self._environment = self._environment, new
        for module, number in new["changed"].items():
            known = self._main.imported if module == "__main__" else module in sys.modules
            if known and number > old["number"] and module not in self._from_start - {"__main__"}:
                return False
        if self._finder is not None and not self._finder.take_over(new, old["number"]):
            return False
        if _main_of(new) != self._main.source:
            self._main = self._main_loader(new)
            self._main.install()
        if new["cwd"] != old["cwd"]:
            _change_folder(new["cwd"])
        if new["argv"] != old["argv"]:
            sys.argv[:] = new["argv"]
        _raise_recursion_limit(new)
        _set_variables(old.get("variables", {}), new.get("variables", {}))
        if new["path"] != old["path"]:
            sys.path[:] = _merged(sys.path, self._search_path(old), self._search_path(new))
        importlib.invalidate_caches()
        return True

    def note_files(self) -> None:
        """Look at the files of modules that were imported since the last time: see `another`."""
        if self._files is None:
            self._files = Files(self._from_start, self._was_sent)
        self._files.note(self._main.path)

    def another(self, new: Mapping[str, Any]) -> str:
        """What tells that the next master's program is not the one that this process has imported; '': it is taken
        over.
        """
        here, main = _machine(), self._main.path
        why = same_environment(self._environment, new)
        if not why and self.same_machine != (bool(here) and here == new.get("machine", here)):
            why = "the master's machine is another one"
        self.note_files()
        changed = self._files.changed() if not why and self._files is not None else ""
        if not why and not changed and self._finder is not None:
            changed = self._finder.another(main)
        if changed:
            why = f"{changed} has changed, or may have"
        if not why:
            self._environment, self._main.source = new, _main_of(new)
            if self._finder is not None:
                self._finder.take_over(new, new["number"])
        return why

    def _was_sent(self, path: str) -> bool:
        return self._finder is not None and self._finder.has_sent(path)

    def loads(self, payload: Arrived) -> Any:
        """Rebuild what the master pickled; raises whatever that raises, and where we know better, that."""
        if payload == self._reference and self._namespace.get(self._name) is self._function:
            return self._function  # again, and it is still what its module has by that name
        try:
            found = pickle.loads(payload) if type(payload) is bytes else rebuilt(payload)
        except Exception as error:
            found = self._loads_again(payload, error)
        if type(found) is FunctionType and type(payload) is bytes and "." not in found.__qualname__:
            self._namespace = vars(sys.modules.get(found.__module__, _NO_MODULE))
            self._function, self._reference, self._name = found, payload, found.__qualname__
        return found

    def _loads_again(self, payload: Arrived, error: Exception) -> Any:
        """What could not be rebuilt, if that is so no more; or why, where we know better."""
        try:
            raise error
        except ModuleNotFoundError as error:
            importlib.invalidate_caches()  # a file that has come since a folder was read
            if not (is_moved(error) or _is_there(error.name)):
                raise
        except (AttributeError, ImportError) as error:
            trouble = self._main.trouble(pickle_of(payload))
            if trouble is None:
                raise error
            raise trouble from trouble.__cause__
        except (OSError, EOFError, AuthenticationError) as error:
            if ("multiprocessing.managers", "RebuildProxy") not in references(pickle_of(payload)):
                raise
            raise ProxyUnusable(_about_proxy(error, self._environment["host"])) from error
        return rebuilt(payload)

    def _main_loader(self, environment: Mapping[str, Any]) -> MainLoader:
        return MainLoader(_main_of(environment), None if self._finder is None else self._finder.main_file)

    def _search_path(self, environment: Mapping[str, Any]) -> list[str]:
        return search_path(environment["path"], self._own, self.same_python)


def _main_of(environment: Mapping[str, Any]) -> MainSource:
    return MainSource(environment["main_name"], environment["main_path"], environment["host"])


def _change_folder(folder: str | None) -> None:
    try:
        if folder is not None:
            os.chdir(folder)
    except OSError:
        pass  # "where it exists": a master's folder need not exist on every machine


def _raise_recursion_limit(environment: Mapping[str, Any]) -> None:
    """What goes deep on the master goes as deep here.  Never lowered: that can fail, and a task may have raised it."""
    limit = environment.get("recursion", 0)
    if limit > sys.getrecursionlimit():
        sys.setrecursionlimit(limit)


def _set_variables(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Take over what has changed; other variables, which this slave or a task has set, stay."""
    for name in old.keys() - new.keys():
        os.environ.pop(name, None)
    for name, value in new.items():
        if old.get(name) != value and os.environ.get(name) != value:
            os.environ[name] = value


def _merged(now: list[str], before: list[str], after: list[str]) -> list[str]:
    """sys.path ``after`` the master's has changed, with what tasks have put before or behind what it was ``before``."""
    known = {*before, *after}
    first = next((place for place, entry in enumerate(now) if entry in known), len(now))
    return [*now[:first], *after, *(entry for entry in now[first:] if entry not in known)]


def _is_there(module: str | None) -> bool:
    try:
        return module is not None and importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _about_proxy(error: BaseException, host: str) -> str:
    here = socket.gethostname()
    return (
        f"a proxy of a multiprocessing manager came with the task and cannot be used on {here}: "
        f"{type(error).__name__}: {error}. Only a LocalSlave(), on the master's machine ({host}), can use one, as long "
        f"as its manager lives. For others make a multiprocessing.managers.BaseManager with an address that they can "
        f"reach and an authkey, and have each slave connect to it in the setup"
    )

"""The master's ``__main__`` in a slave: imported when something of it is wanted, under the name multiprocessing uses.

`MasterMain` is the module that a runner has as ``__main__``.  It knows from the start what a program asks of its main
module without having it run (``__file__``, ``__spec__``); any other attribute has the master's script executed in it
first.  Then ``__name__`` is ``__mp_main__``, so that what stands under ``if __name__ == "__main__":`` does not run.
When that is done, everything defined there is said to be of ``__main__``, as on the master: results refer to the
master's own classes, and cloudpickle sends functions of it by value.

A script is wanted when a pickle refers to it, which pickle itself finds out: a text ``__main__`` in data does no harm.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import os
import socket
import sys
import threading
import types
from typing import Any, Callable, Union

from .named import NamedTuple
from .pickling import references
from .protocol import Buffer

Locate = Callable[[str], Union[str, None]]  # by the path of the master's script, where it is here; None: there, too

NAMES = ("__main__", "__mp_main__")  # as pickles may call it: the second in a master that multiprocessing spawned

_NEW, _IMPORTING, _READY, _FAILED = "new", "importing", "ready", "failed"
_IMPORTED_AS = "__mp_main__"


class MainUnavailable(ImportError):
    """The master's script, where a task or setup lives, cannot be imported by this slave."""


class NotInMain(AttributeError):
    """The master's script can be imported, and what a task or setup refers to is not there then."""


class MainSource(NamedTuple):
    """Where the master's ``__main__`` comes from.

    ``name``: of the module that ``python -m`` ran, else None.  ``path``: of its file, or of the zip file that it is
    the main program of; None if there is no file.  ``host``: the master's machine.
    """

    name: str | None
    path: str | None
    host: str

    def __str__(self) -> str:
        return str(self.path or self.name)


class MasterMain(types.ModuleType):
    """See the module's text.  Once its script has run, it is a module as any other."""

    imports: _Import  # of a class of its own for each: the namespace is the script's

    @classmethod
    def of(cls, source: MainSource, locate: Locate | None = None) -> MasterMain:
        """The ``__main__`` that comes from there; ``locate``: finds its file on this machine."""
        module = types.new_class("MasterMain", (cls,))("__main__")
        module.__dict__.update(_shown(source))
        if locate is not None and source.name is None:
            module.__dict__.pop("__file__", None)  # it is looked for when it is asked for
        type(module).imports = _Import(module, source, locate)
        return module  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there (yet)."""
        why = f"module '__main__' has no attribute {name!r}"
        if name == "__file__" and self.imports.source.path is not None:
            self.__dict__[name] = self.imports.located().path
            return self.__dict__[name]
        if not (name.startswith("__") and name.endswith("__")):  # "has it a __path__?" is no reason to run a script
            try:
                self.imports.ensure()
            except MainUnavailable as error:
                why = f"{why}: {error}"
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(why)


class MainLoader:
    """The master's ``__main__`` in this process, and why what a pickle wants of it is not to be had."""

    def __init__(self, source: MainSource, locate: Locate | None = None) -> None:
        self.source = source
        self._module = MasterMain.of(source, locate)
        self._imports = self._module.imports

    def install(self) -> None:
        """Make it this process's ``__main__``."""
        for name in NAMES:
            sys.modules[name] = self._module

    @property
    def imported(self) -> bool:
        """Whether its import was begun here."""
        return self._imports.state != _NEW

    @property
    def path(self) -> str | None:
        """The file that was imported, as far as it is known; None if none was."""
        return self._module.__dict__.get("__file__") if self.imported else None

    def trouble(self, payload: Buffer) -> Exception | None:
        """Why a pickle that refers to ``__main__`` could not be loaded; None if that is not the reason."""
        wanted = [name for module, name in references(payload) if module in NAMES]
        if not wanted:
            return None
        try:
            self._imports.ensure()
        except MainUnavailable as error:
            return error
        missing = [name for name in wanted if not _has(self._module, name)]
        return None if not missing else NotInMain(_missing_text(self.source, missing[0]))


class _Import:
    """The import of the script into ``namespace``, once: it would cost, and print, for each task."""

    def __init__(self, module: types.ModuleType, source: MainSource, locate: Locate | None = None) -> None:
        self._module, self._namespace, self.source, self._locate = module, module.__dict__, source, locate
        self._lock = threading.RLock()  # held while the script runs: other threads of a task wait for what it defines
        self.state = _NEW
        self._why = ""
        self._cause: BaseException | None = None  # until it has been told: it holds the script's frames

    def located(self) -> MainSource:
        """The same, with the path that it has on this machine.  Raises ImportError."""
        path = self.source.path
        found = None if self._locate is None or path is None or self.source.name is not None else self._locate(path)
        return self.source if found is None else self.source._replace(path=found)

    def ensure(self) -> None:
        """Import it if that was not tried before.  Raises `MainUnavailable` if it failed, now or then."""
        if self.state == _READY:
            return
        with self._lock:
            if self.state == _NEW:
                self._try()
        if self.state == _FAILED:
            cause, self._cause = self._cause, None
            raise MainUnavailable(self._why) from cause

    def _try(self) -> None:
        before = dict(self._namespace)
        self.state = _IMPORTING
        try:
            self._execute()
            self.state = _READY
            self._module.__class__ = types.ModuleType  # to look something up in it is quicker so
        except BaseException as error:  # a script may also call sys.exit
            self.state, self._why, self._cause = _FAILED, self._explain(error), error
            self._namespace.clear()
            self._namespace.update(before)

    def _execute(self) -> None:
        code, shown = _code_of(self.located())
        namespace = self._namespace
        namespace.update(shown, __name__=_IMPORTED_AS)
        try:
            exec(code, namespace)
        finally:
            namespace["__name__"] = "__main__"
        _rename(namespace)

    def _explain(self, error: BaseException) -> str:
        source, here = self.source, socket.gethostname()
        what = f"the master's script {source}"
        if source.path is None and source.name is None:
            return "the master's session has no file that a slave could import"
        if isinstance(error, OSError) and source.path is not None and not os.path.exists(source.path):
            return (
                f"{what} does not exist on {here} (the master runs on {source.host}): put it, or the module with the "
                f"tasks, in a folder that both machines see, or copy it to the same place on {here}"
            )
        return f"{what} cannot be imported on {here}: {type(error).__name__}: {error}"


def _shown(source: MainSource) -> dict[str, Any]:
    """What its namespace says of itself before it was run: enough for multiprocessing to find it."""
    shown: dict[str, Any] = {"__builtins__": __builtins__}
    if source.path is not None:
        shown["__file__"] = source.path
    if source.name is not None:
        spec = importlib.machinery.ModuleSpec(source.name, None, origin=source.path)
        shown.update(__spec__=spec, __package__=spec.parent)
    return shown


def _code_of(source: MainSource) -> tuple[types.CodeType, dict[str, Any]]:
    """The script's code, and what its namespace says of itself while it runs.  Raises whatever hinders it."""
    if source.name is not None:  # python -m package.module
        spec = importlib.util.find_spec(source.name)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {source.name!r}", name=source.name)
        return _code_by(spec)
    if source.path is None:
        raise ImportError("the master's session has no file")
    import pkgutil  # of no use to most

    archive: Any = pkgutil.get_importer(source.path)
    if archive is not None:
        found = importlib.util.spec_from_loader("__main__", archive)
        if found is None:
            raise ImportError(f"there is no __main__ in {source.path}")
        return _code_by(found)
    return _code_in(source.path), {"__file__": source.path, "__spec__": None, "__package__": None, "__cached__": None}


def _code_by(spec: importlib.machinery.ModuleSpec) -> tuple[types.CodeType, dict[str, Any]]:
    get_code: Callable[[str], types.CodeType | None] | None = getattr(spec.loader, "get_code", None)
    code = None if get_code is None else get_code(spec.name)
    if code is None:
        raise ImportError(f"no code object available for {spec.name}", name=spec.name)
    shown = {"__spec__": spec, "__loader__": spec.loader, "__package__": spec.parent, "__cached__": spec.cached}
    return code, {**shown, "__file__": spec.origin}


def _code_in(path: str) -> types.CodeType:
    import pkgutil

    with open(path, "rb") as file:
        compiled: types.CodeType | None = pkgutil.read_code(file)  # as runpy does, for a .pyc
    if compiled is not None:
        return compiled
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _rename(namespace: dict[str, Any]) -> None:
    """Let all that was defined there be of ``__main__``: functions, classes, and what names its module otherwise."""
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is types.FunctionType:
            if thing.__globals__ is namespace and thing.__module__ == _IMPORTED_AS:
                thing.__module__ = "__main__"
        elif issubclass(kind, type) and type.__getattribute__(thing, "__dict__").get("__module__") == _IMPORTED_AS:
            type.__setattr__(thing, "__module__", "__main__")
    for value in list(namespace.values()):  # wrappers of functools, NewType, ...
        try:
            attributes = object.__getattribute__(value, "__dict__")
            if attributes.get("__module__") == _IMPORTED_AS and not isinstance(value, type):
                attributes["__module__"] = "__main__"
        except Exception:
            pass  # an object without a namespace of its own, or with a strange one


def _has(module: types.ModuleType, name: str) -> bool:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            return False
    return True


def _missing_text(source: MainSource, name: str) -> str:
    return (
        f"{name!r} is not defined in the master's script {source} when a slave imports it: a slave imports it without "
        f"running what stands under if __name__ == '__main__':, so define {name!r} above that, or in a module"
    )

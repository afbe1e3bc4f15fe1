"""The user's program, as slaves are to have it: described, and watched for what changes while slaves run.

Slaves are told when `look` sees that sys.path, the working folder, sys.argv or ``__main__`` is not what it was, or that
a module was loaded anew.  What `importlib.reload` (or an import, after the module was taken out of `sys.modules`) has
loaded has another ``__spec__`` object than before: to see that takes no look at any file.  Time and size of its file
then tell whether that may have changed anything.  A file that is edited, and not loaded by this program, changes
nothing: what runs on the slaves is to be what this program has, and not what somebody is writing just now.  In an
interactive session that holds for what the session has imported; of what only its tasks import the last edit counts.

`look` goes through all modules, which takes 100 us and more.  So what may have changed is found out before, where a run
begins and when a task is added while slaves may run, by going through the user's own modules (0.06 us each); installed
packages are left to a `look` a few times a second.  Of tasks that are added one right after the other only the first is
asked: no module can have been loaded in between.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter, is_
from types import FrameType, ModuleType
from typing import Any, Callable, TypeVar

from slave.environment import describe, main_can_travel, working_folder
from slave.imported_files import stamp_of
from slave.main_module import NAMES as MAIN_NAMES
from slave.search_path import LIBRARY, PACKAGES, kind_of

from .file_times import by_clock, written_before
from .part_memory import PartMemory

_OURS = "parallel", "slave"
_SPEC_OF = attrgetter("__spec__")
_AT_ONCE = 2e-5  # seconds within which no module can be loaded: that takes twice as long, or more
_AUTORELOAD = "IPython.extensions.autoreload"
_LOOK_SECONDS = 0.2  # between two looks at all modules while tasks are added


Data = TypeVar("Data")


class Program:
    """See the module's text.

    ``environment`` is the latest description.  ``main``: the namespace of ``__main__`` where that is not the one in
    `sys.modules` (see `hidden_main`).  ``ship``, ``preload``: see `describe`.
    """

    def __init__(
        self, main: dict[str, Any] | None = None, ship: Sequence[str] | None = (), preload: bool = True
    ) -> None:
        self._main, self.main_is_hidden, self._ship, self._preload = main, main is not None, ship, preload
        self.was_missed: Callable[[str], bool] = lambda module: False  # slaves were told that it is not there
        self.sent_and_edited: Callable[[], list[str]] = list  # modules that slaves have and this program has not
        self._lock = threading.RLock()  # guards what follows; reentrant, since a signal handler may add tasks
        self._specs: dict[str, object] = {}  # by module: its spec, as it was seen last
        self._stamps: dict[str, object] = {}  # by module that may change: its file, as it was seen last
        self._users: tuple[list[str], list[Any], list[object]] = [], [], []  # the user's own modules, and their specs
        self._count = 0  # of modules
        self._main_stamp: object = None
        self._script: tuple[str | None, object] = (None, None)  # the file of ``__main__``, as it was seen first
        self._told: set[tuple[str, object]] = set()  # files that were edited, and what they were then
        self._path: list[Any] = []
        self._module: tuple[object, object] = (None, None)  # ``__main__`` and its ``__file__``
        self._next_look = 0.0
        self._glanced: float = 0.0
        self.part_memory: PartMemory | None = None  # for arrays of tasks, if there are slaves on this machine
        self.watching = False  # slaves may run: what changes is to be told before the next task
        self.main_stays = False  # slaves could not import ``__main__``
        self.environment: Mapping[str, Any] = describe(main, ship, preload)
        self.look()

    def glance(self) -> bool:
        """Whether `look` should be called before a task is added."""
        now = time.perf_counter()
        since, self._glanced = now - self._glanced, now
        return since > _AT_ONCE and self.may_have_changed()

    def may_have_changed(self) -> bool:
        """Whether `look` would find something, as far as that can be told in a microsecond."""
        modules = sys.modules
        main, file = self._module
        now = modules["__main__"]
        if now is not main or now.__dict__.get("__file__") is not file:
            return True
        if not self.watching:
            return False
        if _AUTORELOAD in modules:
            return True
        names, users, specs = self._users
        try:  # in loops of compiled code: there may be hundreds of them
            same: bool = all(map(is_, map(modules.get, names), users)) and all(map(is_, map(_SPEC_OF, users), specs))
        except AttributeError:
            return True
        if not same or len(modules) != self._count or sys.path != self._path:
            return True
        return time.perf_counter() >= self._next_look

    def may_have_moved(self) -> bool:
        """The same of the working folder and the arguments."""
        return (working_folder(), sys.argv) != (self.environment["cwd"], self.environment["argv"])

    def look(self) -> Mapping[str, Any] | None:
        """The description, if it has changed since the last call."""
        with self._lock:
            self._next_look = time.perf_counter() + _LOOK_SECONDS
            self._path = list(sys.path)
            main = sys.modules["__main__"]
            self._module = main, main.__dict__.get("__file__")
            old = self.environment
            new = describe(self._main, self._ship, self._preload)
            self.main_stays = not main_can_travel(new)
            if self.main_stays:  # for tasks of a script that ran in this session: it is where it was
                new.update(main_name=old["main_name"], main_path=old["main_path"])
            changed = self._loaded_anew()
            if self._main_has_changed(old, new):
                changed.append("__main__")
            number = old["number"]
            new.update(number=number, changed=old["changed"])
            if new["main_path"] != self._script[0]:
                self._script = new["main_path"], stamp_of(new["main_path"])
            if hasattr(sys, "ps1"):
                changed += self.sent_and_edited()
                new.update(session=sorted(self._users[0]))
            if not changed and new == old:
                return None
            new.update(number=number + 1, changed={**old["changed"], **dict.fromkeys(changed, number + 1)})
            self.environment = new
            return new

    def edited_files(self, moment: float) -> list[str]:
        """The script and the files of the user's modules that were edited before this ``moment`` of `time.monotonic`,
        and are not what this program has read, each told once.

        Slaves on machines that see these files import them as they are when they come.  In a session an edit is meant.
        Looks at files: for side threads.
        """
        if hasattr(sys, "ps1"):
            return []
        then = by_clock(moment)
        with self._lock:
            specs = {name: getattr(sys.modules.get(name), "__spec__", None) for name in self._stamps}
            same = [name for name, spec in specs.items() if spec is self._specs[name]]  # not loaded anew just now
            files = [self._script, *((getattr(specs[name], "origin", None), self._stamps[name]) for name in same)]
        found = []
        for path, stamp in files:
            now = stamp_of(path)
            if path is not None and now != stamp and written_before(now, then) and (path, now) not in self._told:
                self._told.add((path, now))
                found.append(path)
        return found

    def _loaded_anew(self) -> list[str]:
        """The modules that were loaded again since the last look, from files that are not what they were."""
        found = []
        specs = self._specs
        modules = sys.modules.copy()
        self._count = len(modules)
        for name, module in modules.items():
            spec: Any = getattr(module, "__spec__", None) if isinstance(module, ModuleType) else None
            if spec is specs.get(name, specs):
                continue
            seen_before, specs[name] = name in specs, spec
            kind = kind_of_module(spec)
            if name in MAIN_NAMES or kind == LIBRARY or name.partition(".")[0] in _OURS:
                continue
            former = self._stamps.get(name)
            if kind != PACKAGES:
                self._stamps[name] = stamp_of(spec.origin)
            if (former is None or former != self._stamps[name]) if seen_before else self.was_missed(name):
                found.append(name)
        if _AUTORELOAD in modules:
            found += self._edited()
        names = [name for name in self._stamps if name in modules]
        self._users = names, [modules[name] for name in names], [specs[name] for name in names]
        return found

    def _edited(self) -> list[str]:
        """The user's modules whose files have changed: IPython's autoreload patches modules, and loads none anew."""
        found = []
        for name, former in list(self._stamps.items()):
            stamp = stamp_of(getattr(self._specs[name], "origin", None))
            if stamp != former:
                self._stamps[name] = stamp
                found.append(name)
        return found

    def _main_has_changed(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Whether ``__main__`` is another one; in a session, which may have run a script again, also its file."""
        former, self._main_stamp = self._main_stamp, stamp_of(new["main_path"]) if hasattr(sys, "ps1") else None
        if any(old[key] != new[key] for key in ("main_name", "main_path")):
            return main_can_travel(old)
        return former is not None and former != self._main_stamp

    # -- a __main__ that is not in sys.modules

    def dumps(self, value: object, dumps: Callable[[Any], Data]) -> Data:
        """The pickle of ``value``, as ``dumps`` makes it.  Raises what that raises."""
        if self._main is None:
            return dumps(value)
        with self._as_main(self._main):
            return dumps(value)

    def loads(self, load: Callable[[], Any]) -> Any:
        """What ``load`` returns, which rebuilds what a slave has pickled.  Raises whatever it raises."""
        if self._main is None:
            return load()
        with self._as_main(self._main):
            return load()

    @contextmanager
    def _as_main(self, namespace: dict[str, Any]) -> Iterator[None]:
        former = sys.modules["__main__"]
        sys.modules["__main__"] = _Alias(namespace)
        try:
            yield
        finally:
            sys.modules["__main__"] = former


class _Alias(ModuleType):
    """A module with somebody else's namespace."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__("__main__")
        self.__dict__["_namespace"] = namespace

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_namespace"][name]
        except KeyError:
            raise AttributeError(f"module '__main__' has no attribute {name!r}") from None


def hidden_main(frame: FrameType | None) -> dict[str, Any] | None:
    """The namespace of the script that ``frame`` and its callers run as ``__main__``, if `sys.modules` has another one.

    So it is under ``python -m cProfile`` before Python 3.12, ``-m trace``, and `runpy.run_module`: the module that
    `sys.modules` has is what runs the script.  (A session, as IPython's, is the other way round: its own ``__main__``
    runs the program's, and is not in `sys.modules` any more.)
    """
    main = vars(sys.modules["__main__"])
    script: dict[str, Any] | None = None
    while frame is not None:
        namespace = frame.f_globals
        if namespace is main:
            return script
        if script is None and namespace.get("__name__") == "__main__" and "__file__" in namespace:
            script = namespace
        frame = frame.f_back
    return None


def kind_of_module(spec: Any) -> str:
    """Whose the module is; what is built in counts to the interpreter's library, and has no code that could change."""
    origin = getattr(spec, "origin", None)
    return kind_of(os.path.dirname(origin)) if isinstance(origin, str) and os.path.isabs(origin) else LIBRARY

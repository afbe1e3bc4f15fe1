"""The master's environment, as far as a slave can have them: sys.path, working directory, arguments, script.

A function is pickled as the name of its module and its own; the slave must be able to import that module.  So the
master says where it imports from (`describe`), and a runner takes that over before its first task (`Environment`).  The
master's script is imported under the name ``__mp_main__``, as multiprocessing does, and only when a task or setup
refers to it.
"""

from __future__ import annotations

import os
import pickle
import re
import runpy
import site
import socket
import sys
import sysconfig
import types
from collections.abc import Mapping, Sequence
from typing import Any

from .protocol import Buffer

_MENTIONS_MAIN = re.compile(rb"__main__")

_runner_of: str | None = None


def inside_runner() -> str | None:
    """In a runner: what it is doing ('running a task', 'importing /home/me/script.py'); elsewhere None."""
    return _runner_of


class MainUnavailable(ImportError):
    """The master's script, where a task or setup lives, cannot be imported by this slave."""


def describe() -> dict[str, Any]:
    """This process's environment, for slaves: plain strings and lists."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    path = getattr(main, "__file__", None)
    if path is None or not os.path.exists(path):
        path = None
    return {
        "host": socket.gethostname(),
        "version": list(sys.version_info[:2]),
        "platform": sysconfig.get_platform(),
        "path": [os.path.abspath(entry) for entry in sys.path],
        "python_path": [os.path.abspath(entry) for entry in sys.path if _belongs_to_python(os.path.abspath(entry))],
        "cwd": os.getcwd(),
        "argv": list(sys.argv),
        "main_name": spec.name if spec is not None else None,
        "main_path": os.path.abspath(path) if path is not None else None,
    }


def main_can_travel(environment: Mapping[str, Any]) -> bool:
    """Whether slaves could import the script at all: False for an interactive session, ``python -c`` and a pipe."""
    return bool(environment["main_name"] or environment["main_path"])


def _belongs_to_python(entry: str) -> bool:
    """Whether ``entry`` of sys.path is the interpreter's own (library, site-packages) and not the user's."""
    paths = sysconfig.get_paths()
    own = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own += site.getsitepackages() if hasattr(site, "getsitepackages") else []
    if site.ENABLE_USER_SITE:
        own.append(site.getusersitepackages())
    archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    return entry.endswith(archive) or any(entry == one or entry.startswith(one + os.sep) for one in own)


def search_path(environment: Mapping[str, Any], own: Sequence[str], version: Sequence[int], platform: str) -> list[str]:
    """sys.path for a runner: the master's own entries, then this interpreter's, then the master's installed packages.

    The last only from the same Python version and platform: a library built for another one would break the import.
    """
    pythons = set(environment["python_path"])
    first = [entry for entry in environment["path"] if entry not in pythons]
    last: list[str] = []
    if list(version) == list(environment["version"]) and platform == environment["platform"]:
        last = list(environment["python_path"])
    return list(dict.fromkeys([*first, *own, *last]))


class Environment:
    """The environment of one master, in a runner."""

    def __init__(self, environment: Mapping[str, Any]) -> None:
        self._environment = environment
        self._main_ready = False
        self._main_trouble: str | None = None

    def apply(self) -> None:
        """Take over folder, arguments and import path.  What does not exist here is left as it is."""
        global _runner_of
        _runner_of = "running a task"
        try:
            os.chdir(self._environment["cwd"])
        except OSError:
            pass  # "where it exists": a master's folder need not exist on every machine
        sys.argv[:] = self._environment["argv"]
        own = [entry for entry in sys.path if entry]
        sys.path[:] = search_path(self._environment, own, sys.version_info[:2], sysconfig.get_platform())
        sys.modules["__main__"] = types.ModuleType("__main__")  # the agent's own must not answer for the master's

    def loads(self, payload: Buffer) -> Any:
        """Rebuild what the master pickled; raises whatever that raises, `MainUnavailable` among it."""
        if not self._main_ready and _MENTIONS_MAIN.search(payload):
            self._import_main()
        return pickle.loads(payload)

    def _import_main(self) -> None:
        """Import the master's script once.

        A failure is remembered: importing it for each task would cost and print.
        """
        global _runner_of
        name, path = self._environment["main_name"], self._environment["main_path"]
        if self._main_trouble is None:
            _runner_of = f"importing {path or name}"
            try:
                self._become_main(name, path)
                self._main_ready = True
                return
            except BaseException as error:  # a script may also call sys.exit
                self._main_trouble = self._explain(error, name, path)
                raise MainUnavailable(self._main_trouble) from error
            finally:
                _runner_of = "running a task"
        raise MainUnavailable(self._main_trouble)

    def _become_main(self, name: str | None, path: str | None) -> None:
        module = types.ModuleType("__mp_main__")
        if name is not None and name != "__main__":  # python -m package.module
            content = runpy.run_module(name, run_name="__mp_main__")
        elif path is not None:
            content = runpy.run_path(path, run_name="__mp_main__")
        else:
            raise ImportError("the master's session has no file")
        module.__dict__.update(content)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module

    def _explain(self, error: BaseException, name: str | None, path: str | None) -> str:
        here, there = socket.gethostname(), self._environment["host"]
        what = f"the master's script {path or name}"
        if path is not None and not os.path.exists(path):
            return (
                f"{what} does not exist on {here} (the master runs on {there}): put it, or the module with the "
                f"tasks, in a folder that both machines see, or copy it to the same place on {here}"
            )
        return f"{what} cannot be imported on {here}: {type(error).__name__}: {error}"

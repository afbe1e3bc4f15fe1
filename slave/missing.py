"""What a machine lacks when something cannot be imported or rebuilt there: which module, and in which version it is."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType, TracebackType

from . import limits
from .foreign import looked_at, message_of
from .named import NamedTuple
from .search_path import LIBRARY, kind_of

_CANNOT_GET = re.compile(r"Can't get (?:local )?attribute '[\w.]+' on <module '([\w.]+)'")
_HAS_NOT = re.compile(r"module '([\w.]+)' has no attribute '\w+'$")  # the same, from 3.14 on; and any program's
_OF_LINKER = re.compile(r"(/[^:]*): cannot open shared object file")
_requirements: dict[str, str] = {}  # by top-level module that is missing here: what the master would have installed
_of_library = set(getattr(sys, "stdlib_module_names", ()))  # parts of Python: of this one, or of the master's alone
_sent: dict[str, _Sent] = {}  # by the folder where it is unpacked
_master_python: list[str] = []  # its version, '3.11', when it is known
_DEPTH = 5  # causes of causes that are looked at
_MAINS = ("__main__", "__mp_main__")


class _Sent(NamedTuple):
    """What the master has sent: the top-level module, whether it is a package, where the master has it."""

    name: str
    is_package: bool
    origin: str


def missing_module(error: BaseException | None) -> str:
    """The module that is missing, or that lacks what was asked of it; '' if the error is of another kind."""
    if limits.no_memory(error):  # for an extension module, say
        return ""
    name = looked_at(lambda: error.name if isinstance(error, ImportError) else None, lambda _: None)
    if isinstance(name, str):
        return name
    if type(error) is not AttributeError:
        return ""
    text = message_of(error)
    found = _CANNOT_GET.match(text) or (_HAS_NOT.match(text) if _is_pickles(error.__traceback__) else None)
    module = "" if found is None else found.group(1)
    return "" if module in _MAINS else module


def _is_pickles(trace: TracebackType | None) -> bool:
    """Whether what was raised there, if that is known, came out of a function in C, as of that which loads pickles.

    What a program gets wrong itself, ``module.name``, is its own affair.
    """
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    import opcode  # seldom needed

    return "CALL" in opcode.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]]


def version_of(module: str) -> str:
    """'numpy 1.24.4', for a module of it; '' if the package is not here, or has no version."""
    package = module.partition(".")[0]
    version = looked_at(lambda: getattr(sys.modules.get(package), "__version__", None), lambda _: None)
    if not isinstance(version, str):
        from importlib import metadata  # slow to import, and seldom needed

        try:
            version = metadata.version(package)
        except Exception:
            return ""
    return f"{package} {version}"


def learn(module: str, requirement: str, of_library: bool = False) -> None:
    """The master has told what is to be installed for a module; '' if it does not know.

    ``of_library``: it is a part of its Python.
    """
    _requirements[module] = requirement
    if of_library:
        _of_library.add(module)


def learn_sent(folder: str, name: str, is_package: bool, origin: str) -> None:
    """The master has sent a module or package, which is unpacked in that folder; it has it in ``origin``."""
    _sent[folder] = _Sent(name, is_package, origin)


def learn_python(version: Sequence[int]) -> None:
    """The master's Python has that version."""
    _master_python[:] = [".".join(map(str, version))]


def how_to_install(module: str, requirement: str = "") -> str:
    """What to do about a module that is missing here, in one line; ``requirement``: if it was told."""
    package = module.partition(".")[0]
    wanted = requirement or _requirements.get(package, "")
    install = f"{sys.executable} -m pip install {wanted or package}"
    return f"Install it on {socket.gethostname()} for its Python {sys.version.split()[0]}: {install}"


def remedy(error: BaseException) -> str:
    """What helps, in one line; '' if that is not known."""
    module = missing_module(error)
    python = f"{sys.executable} (Python {sys.version.split()[0]}) on {socket.gethostname()}"
    if not module:
        return limits.told(error) or _about_unsent(error) or _about_other_python(error, python)
    package = module.partition(".")[0]
    if _master_python and package in sys.modules and _is_of_library(sys.modules[package]):
        return (
            f"{module} of {python} is a part of Python itself, and the master's is Python {_master_python[0]}: "
            f"use that version there, too"
        )
    if not issubclass(type(error), ModuleNotFoundError):
        if package not in sys.modules:
            return ""  # it could not be loaded, and the message says why
        have = version_of(module) or f"the {package} in {_file_of(module)}"
        return f"{have} of {python} is not the {package} of the master: install the same version there"
    if module != package and package in sys.modules:
        have = version_of(module) or f"the {package} in {_file_of(package)}"
        return (
            f"No module {module!r} in {have}, which is that of {python}; the master's {package} is of another version: "
            f"install the same there"
        )
    if package in _of_library:
        theirs = f", as the master's Python {_master_python[0]} has it" if _master_python else ""
        return (
            f"No module {module!r} for {python}: it is a part of Python itself{theirs}, and this one was built without "
            f"it, or is of a version that has none: use another Python there, Manager(python='...')"
        )
    if _requirements.get(package):
        there = f"install it there, {sys.executable} -m pip install {_requirements[package]}"
    else:
        there = "install it there"
    return (
        f"No module {module!r} for {python}: {there}, or name the Python that has it, Manager(python='...'); it looked "
        f"in {sys.path}"
    )


def _is_of_library(module: ModuleType) -> bool:
    file = looked_at(lambda: getattr(module, "__file__", None), lambda _: None)
    return module.__name__ in sys.builtin_module_names if file is None else kind_of(os.path.dirname(file)) == LIBRARY


def _about_unsent(error: BaseException) -> str:
    """If what is missing is a file that belongs to what the master has sent, and was not: why, in one line; else ''."""
    if not issubclass(type(error), OSError):
        return ""
    name = looked_at(lambda: error.filename, lambda _: None)  # type: ignore[attr-defined]
    found = None if isinstance(name, str) else _OF_LINKER.search(message_of(error))
    path = os.path.normpath(name if isinstance(name, str) else found.group(1) if found else "")
    folder = next((one for one in list(_sent) if path.startswith(one + os.sep)), None)
    if folder is None or "\0" in path or os.path.lexists(path):
        return ""
    from .archive import is_compiled  # it is loaded, since something was sent

    sent, file = _sent[folder], path[len(folder) + 1 :]
    where = f"the master has {sent.name} in {sent.origin}" if sent.origin else f"of the master's {sent.name}"
    if is_compiled(file):
        return (
            f"{file} is a compiled file, and such are not sent; {where}: install it on {socket.gethostname()}, where "
            f"the program finds it"
        )
    if sent.is_package and file.startswith(sent.name + os.sep):
        return ""  # the master has none there
    return (
        f"{file} lies beside a module that the master has sent, and only whole packages are sent with their files; "
        f"{where}: put both into a package (a folder with __init__.py), or read the file on the master and hand it over"
    )


def _about_other_python(error: BaseException, python: str) -> str:
    """If it was raised while something was imported, by a Python of another version than the master's: that; else ''.

    What a task gets wrong while it runs is its own affair.
    """
    if not _master_python or _master_python[0] == ".".join(map(str, sys.version_info[:2])):
        return ""
    causes = [one for one in _causes(error) if not issubclass(type(one), (OSError, LookupError))]
    if not any(issubclass(type(one), SyntaxError) or _imports(one) for one in causes):
        return ""
    return (
        f"it came while a module was imported by {python}; the master's is Python {_master_python[0]}: if that is why, "
        f"use that version there, too, or write the module for both"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_DEPTH):
        if error is None:
            return
        yield error
        error = error.__cause__


def _imports(error: BaseException) -> bool:
    """Whether it went through the top level of a module."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            return True
        trace = trace.tb_next
    return False


def shown(text: str, most: int = 900) -> str:
    """The text as a part of one line of a log."""
    return "".join(one if one.isprintable() else " " for one in text[:most])


def master_has(module: str) -> str:
    """For the master: what it has itself of a module that a slave lacks; '' if it does not know."""
    made = _made_by_program(module)
    have = version_of(module) if module and not made else ""
    return f"the master has {have} for Python {sys.version.split()[0]}" if have else made


def _made_by_program(module: str) -> str:
    """For a module that no import finds by its name, since the program has made or loaded it in a way of its own."""
    found = sys.modules.get(module)
    if not isinstance(found, ModuleType) or "__path__" in vars(found):
        return ""
    file, origin = vars(found).get("__file__"), getattr(vars(found).get("__spec__"), "origin", None)
    if not isinstance(file, str):
        if origin in ("built-in", "frozen"):
            return ""
        return (
            f"the master's program has made the module {module!r} itself, and there is no file that a slave could "
            f"import: have the setup make it there, too, or put it into a file beside the script"
        )
    if os.path.basename(file).partition(".")[0] == module.rpartition(".")[2]:
        return ""
    return (
        f"the master's program has loaded the module {module!r} from {file}, which an import does not find by "
        f"that name: have the setup load it there, too, or name it as its file"
    )


def _file_of(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", None) or "an unknown place")

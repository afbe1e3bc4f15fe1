"""What a machine lacks when something cannot be imported or rebuilt there: which module, and in which version it is."""

from __future__ import annotations

import os
import re
import socket
import sys
from types import ModuleType, TracebackType

from . import limits
from .foreign import looked_at, message_of

_CANNOT_GET = re.compile(r"Can't get (?:local )?attribute '[\w.]+' on <module '([\w.]+)'")
_HAS_NOT = re.compile(r"module '([\w.]+)' has no attribute '\w+'$")  # the same, from 3.14 on; and any program's
_requirements: dict[str, str] = {}  # by top-level module that is missing here: what the master would have installed
_MAINS = ("__main__", "__mp_main__")


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


def learn(module: str, requirement: str) -> None:
    """The master has told what is to be installed for a module; '' if it does not know."""
    _requirements[module] = requirement


def how_to_install(module: str, requirement: str = "") -> str:
    """What to do about a module that is missing here, in one line; ``requirement``: if it was told."""
    package = module.partition(".")[0]
    wanted = requirement or _requirements.get(package, "")
    install = f"{sys.executable} -m pip install {wanted or package}"
    return f"Install it on {socket.gethostname()} for its Python {sys.version.split()[0]}: {install}"


def remedy(error: BaseException) -> str:
    """What helps, in one line; '' if that is not known."""
    module = missing_module(error)
    if not module:
        return limits.told(error)
    python = f"{sys.executable} (Python {sys.version.split()[0]}) on {socket.gethostname()}"
    package = module.partition(".")[0]
    if not issubclass(type(error), ModuleNotFoundError):
        have = version_of(module) or f"the {package} in {_file_of(module)}"
        return f"{have} of {python} is not the {package} of the master: install the same version there"
    if module != package and package in sys.modules:
        have = version_of(module) or f"the {package} in {_file_of(package)}"
        return (
            f"No module {module!r} in {have}, which is that of {python}; the master's {package} is of another version: "
            f"install the same there"
        )
    if _requirements.get(package):
        there = f"install it there, {sys.executable} -m pip install {_requirements[package]}"
    else:
        there = "install it there"
    return (
        f"No module {module!r} for {python}: {there}, or name the Python that has it, Manager(python='...'); it looked "
        f"in {sys.path}"
    )


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

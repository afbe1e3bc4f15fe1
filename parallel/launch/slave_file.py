"""slave.pyz: the whole slave program as one file, which any Python from 3.9 on runs.

    python3 slave.pyz HOST:PORT

It is a zip archive behind a line that makes it a program where there is a ``python3``:

    __main__.py          that of the package, as it is: an old Python can read it, and says that it is too old; not
                         compressed, so that a Python without zlib can say that too
    slave/__init__.py    what finds the modules: slave/packed.py
    slave/modules        the modules, compressed as one

Docstrings, comments and types are left out, a third of it; all else stands in its line, so that tracebacks show what
they should.

The same sources give the same bytes, whoever packs them, when, where and by which Python: names are sorted, times and
permissions are fixed.  Only a zlib of another kind (zlib-ng) compresses otherwise.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import slave
from slave.packed import MEMBER, packed

if TYPE_CHECKING:
    import ast
    import zipfile

_FIRST_LINE = b"#!/usr/bin/env python3\n"
_MADE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say
_UNIX, _FILE_MODE = 3, 0o100644
_LEVEL = 9


@functools.cache
def slave_file() -> bytes:
    """The bytes of slave.pyz."""
    from importlib import resources  # slow to import, and of no use to local slaves

    sources = {
        entry.name: entry.read_bytes() for entry in resources.files(slave).iterdir() if entry.name.endswith(".py")
    }
    return pack(sources)


@functools.cache
def slave_file_hash() -> str:
    """Its SHA-256, as hex digits."""
    return hashlib.sha256(slave_file()).hexdigest()


def pack(sources: dict[str, bytes]) -> bytes:
    """The archive of a package ``slave`` with these modules, by file name.

    Raises ValueError if its ``__init__.py`` does anything, since what finds the modules takes that one's place.
    """
    import io
    import zipfile  # slow to import, and of no use to local slaves

    small = {name[: -len(".py")]: _smaller(source) for name, source in sources.items()}
    if small.pop("__init__").strip() not in (b"", b'""'):
        raise ValueError("slave/__init__.py is left out of slave.pyz, so it may hold nothing but its docstring")
    result = io.BytesIO()
    result.write(_FIRST_LINE)
    with zipfile.ZipFile(result, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py", zipfile.ZIP_STORED), sources["__main__.py"])
        for name, data in (("__init__.py", small["packed"]), (MEMBER, packed(small))):
            archive.writestr(_entry(f"slave/{name}", zipfile.ZIP_DEFLATED), data, compresslevel=_LEVEL)
    return result.getvalue()


def _smaller(source: bytes) -> bytes:
    return without_annotations(without_comments(without_docstrings(source)))


def without_docstrings(source: bytes) -> bytes:
    """A module without docstrings, or with an empty one where nothing else is; no line of it is moved."""
    import ast  # slow to import, and of no use to local slaves

    lines = source.split(b"\n")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not node.body:
            continue
        first = node.body[0]
        if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
            continue
        begin, end, indent = first.lineno - 1, first.end_lineno or 0, first.col_offset
        if not isinstance(first.value.value, str) or lines[begin][:indent].strip() or not _ends_line(lines, first):
            continue  # something else stands in its lines
        kept = b"" if len(node.body) > 1 else lines[begin][:indent] + b'""'
        lines[begin:end] = [kept, *[b""] * (end - begin - 1)]
    return b"\n".join(lines)


def without_comments(source: bytes) -> bytes:
    """A module without its comments; nothing else is moved."""
    import io
    import tokenize

    lines = source.decode().split("\n")
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column].rstrip()
    return "\n".join(lines).encode()


def without_annotations(source: bytes) -> bytes:
    """A module without the types of arguments, of what functions return and of the variables that they set, as far as
    each stands in one line.
    """
    import ast

    cuts: list[tuple[int, int, int]] = []  # line, first byte, end
    lines = source.split(b"\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            begin, what = node.col_offset + len(node.arg.encode()), node.annotation
            if what.lineno == what.end_lineno == node.lineno:
                cuts.append((what.lineno - 1, begin, what.end_col_offset or 0))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns is not None:
            what = node.returns
            begin = lines[what.lineno - 1].rfind(b" -> ", 0, what.col_offset)
            if what.lineno == what.end_lineno and begin >= 0:
                cuts.append((what.lineno - 1, begin, what.end_col_offset or 0))
    for variable in _variables(ast.parse(source), False):
        target, what = variable.target, variable.annotation
        if target.end_lineno == what.lineno == what.end_lineno:
            cuts.append((what.lineno - 1, target.end_col_offset or 0, what.end_col_offset or 0))
    for line, begin, end in sorted(cuts, reverse=True):
        lines[line] = lines[line][:begin] + lines[line][end:]
    return b"\n".join(lines)


def _variables(node: ast.AST, in_function: bool) -> Iterator[ast.AnnAssign]:
    """What functions set and say the type of; not classes, where that may make a field."""
    import ast

    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.AnnAssign) and in_function and child.value is not None and not _in_brackets(child):
            yield child
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from _variables(child, inside or (in_function and not isinstance(child, ast.ClassDef)))


def _in_brackets(variable: ast.AnnAssign) -> bool:
    import ast

    return isinstance(variable.target, ast.Name) and not variable.simple


def _ends_line(lines: list[bytes], statement: ast.stmt) -> bool:
    assert statement.end_lineno is not None and statement.end_col_offset is not None
    return not lines[statement.end_lineno - 1][statement.end_col_offset :].strip()


def _entry(name: str, how: int) -> zipfile.ZipInfo:
    import zipfile

    entry = zipfile.ZipInfo(name, _MADE)
    entry.create_system, entry.external_attr, entry.compress_type = _UNIX, _FILE_MODE << 16, how
    return entry

"""slave.pyz: the whole slave program as one file, which any Python from 3.9 on runs.

    python3 slave.pyz HOST:PORT

It is a zip archive of the package ``slave`` behind a line that makes it a program where there is a ``python3``.  Its
first module, ``__main__.py``, is that of the package: an old Python can read it, and says that it is too old; it is not
compressed, so that a Python without zlib can say that too.  Docstrings, comments, types, blanks beside operators and
three of four of the indentation are left out, a third of it; all else stands in its line, so that tracebacks show what
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

if TYPE_CHECKING:
    import ast
    import zipfile

_FIRST_LINE = b"#!/usr/bin/env python3\n"
_MADE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say
_UNIX, _FILE_MODE = 3, 0o100644
_LEVEL = 9
_OF_TYPES = "typing", "collections.abc"


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
    """The archive of a package ``slave`` with these modules, by file name."""
    import io
    import zipfile  # slow to import, and of no use to local slaves

    packed = io.BytesIO()
    packed.write(_FIRST_LINE)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py", zipfile.ZIP_STORED), sources["__main__.py"])
        for name in sorted(sources):
            source = without_annotations(without_comments(without_docstrings(sources[name])))
            source = with_less_indentation(without_blanks(without_names_of_types(source)))
            archive.writestr(_entry(f"slave/{name}", zipfile.ZIP_DEFLATED), source, compresslevel=_LEVEL)
    return packed.getvalue()


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


def without_names_of_types(source: bytes) -> bytes:
    """A module that imports of `typing` and `collections.abc` only what it uses; no line is moved."""
    import ast

    tree, lines = ast.parse(source), source.split(b"\n")
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or node.module not in _OF_TYPES or node.lineno != node.end_lineno:
            continue
        names = [one.name for one in node.names if one.asname or one.name in used]
        if len(names) < len(node.names) and not any(one.asname for one in node.names):
            line = f"from {node.module} import {', '.join(names)}" if names else ""
            lines[node.lineno - 1] = line.encode()
    return b"\n".join(lines)


def _in_brackets(variable: ast.AnnAssign) -> bool:
    import ast

    return isinstance(variable.target, ast.Name) and not variable.simple


def without_blanks(source: bytes) -> bytes:
    """A module without the blanks beside operators, brackets and commas; no line is moved."""
    import io
    import tokenize

    begins, ends = _texts()
    lines = source.decode().split("\n")
    cuts: list[tuple[int, int, int]] = []  # line, first character, end
    depth, last = 0, None  # of texts in texts; the token before, if it stands in the same line
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        depth += token.type in begins
        beside = last is not None and last.end[0] == token.start[0] and depth == (token.type in begins)
        if last is not None and beside and tokenize.OP in (last.type, token.type):
            cuts.append((token.start[0] - 1, last.end[1], token.start[1]))
        depth -= token.type in ends
        last = token if token.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER) or token.type in ends else None
    for line, begin, end in reversed(cuts):
        lines[line] = lines[line][:begin] + lines[line][end:]
    return "\n".join(lines).encode()


def _texts() -> tuple[set[int | None], set[int | None]]:
    """The tokens with which texts begin, and end."""
    import tokenize

    return (
        {tokenize.STRING, getattr(tokenize, "FSTRING_START", None), getattr(tokenize, "TSTRING_START", None)},
        {tokenize.STRING, getattr(tokenize, "FSTRING_END", None), getattr(tokenize, "TSTRING_END", None)},
    )


def with_less_indentation(source: bytes) -> bytes:
    """A module with one blank for each four at the beginning of a line; what stands in texts of several lines stays."""
    import io
    import tokenize

    begins, ends = _texts()
    inside: set[int] = set()
    open_at: list[int] = []
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type in begins:
            open_at.append(token.start[0])
        if token.type in ends:
            inside.update(range(open_at.pop() + 1, token.end[0] + 1))
    lines = source.decode().split("\n")
    for number, line in enumerate(lines, 1):
        rest = line.lstrip(" ")
        if number not in inside:
            lines[number - 1] = " " * -(-(len(line) - len(rest)) // 4) + rest
    return "\n".join(lines).encode()


def _ends_line(lines: list[bytes], statement: ast.stmt) -> bool:
    assert statement.end_lineno is not None and statement.end_col_offset is not None
    return not lines[statement.end_lineno - 1][statement.end_col_offset :].strip()


def _entry(name: str, how: int) -> zipfile.ZipInfo:
    import zipfile

    entry = zipfile.ZipInfo(name, _MADE)
    entry.create_system, entry.external_attr, entry.compress_type = _UNIX, _FILE_MODE << 16, how
    return entry

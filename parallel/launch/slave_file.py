"""slave.pyz: the whole slave program as one file, which any Python from 3.9 on runs.

    python3 slave.pyz HOST:PORT

It is a zip archive behind a line that makes it a program where there is a ``python3``:

    __main__.py          that of the package, as it is: an old Python can read it, and says that it is too old; not
                         compressed, so that a Python without zlib can say that too
    slave/__init__.py    what finds the modules: slave/packed.py
    slave/modules        the modules, compressed as one

Docstrings and comments are left out, a third of it; all else stands in its line, so that tracebacks show what they
should.

The same sources give the same bytes, whoever packs them, when, where and by which Python: names are sorted, times and
permissions are fixed.  Only a zlib of another kind (zlib-ng) compresses otherwise.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

import slave
from slave.packed import MEMBER, packed

if TYPE_CHECKING:
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

    small = {name[: -len(".py")]: without_comments(source) for name, source in sources.items()}
    if small.pop("__init__").strip() not in (b"", b'""'):
        raise ValueError("slave/__init__.py is left out of slave.pyz, so it may hold nothing but its docstring")
    result = io.BytesIO()
    result.write(_FIRST_LINE)
    with zipfile.ZipFile(result, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("__main__.py", zipfile.ZIP_STORED), sources["__main__.py"])
        for name, data in (("__init__.py", small["packed"]), (MEMBER, packed(small))):
            archive.writestr(_entry(f"slave/{name}", zipfile.ZIP_DEFLATED), data, compresslevel=_LEVEL)
    return result.getvalue()


def without_comments(source: bytes) -> bytes:
    """A module without its comments, and with an empty string where one is a statement (a docstring); no line moves."""
    import io
    import tokenize

    ends = tokenize.ENCODING, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT
    lines = source.decode().split("\n")
    begins, said = True, None  # whether a statement may begin here; the string that it began with
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        kind = token.type
        if kind == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column].rstrip()
            continue
        if said is not None and kind in (tokenize.NEWLINE, tokenize.ENDMARKER):
            (first, begin), (last, end) = said.start, said.end
            rest = lines[last - 1][end:]
            lines[first - 1 : last] = [lines[first - 1][:begin] + '""', *[""] * (last - first)]
            lines[last - 1] += rest
        said = token if kind == tokenize.STRING and begins else None
        begins = kind in ends or (kind == tokenize.NL and begins)
    return "\n".join(lines).encode()


def _entry(name: str, how: int) -> zipfile.ZipInfo:
    import zipfile

    entry = zipfile.ZipInfo(name, _MADE)
    entry.create_system, entry.external_attr, entry.compress_type = _UNIX, _FILE_MODE << 16, how
    return entry

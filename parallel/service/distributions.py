"""Which distribution a module comes from: what pip would install, and the metadata that goes along with what is sent.

Programs ask `importlib.metadata` for their own version, many while they are imported.  So a package that is sent brings
what this process would answer, as a ``.dist-info`` folder beside it.  Reads files: for side threads.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, NamedTuple

from slave.archive import File

_SENT = "METADATA", "entry_points.txt", "top_level.txt"
_NO_VERSION = "0"


def requirement_of(name: str) -> str:
    """What pip would install for a top-level module: 'numpy==1.26.4'; '' if it is not known."""
    from importlib import metadata  # slow to import, and seldom needed

    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        pass
    for distribution in metadata.distributions():
        files = distribution.files or []
        if name in _tops_of(distribution) or any(file.parts[0] in (name, f"{name}.py") for file in files):
            return f"{distribution.metadata['Name']}=={distribution.version}"
    return ""


class _Listed(NamedTuple):
    """A distribution, its top-level modules if it names them, where it is installed, and where it is edited, or ''."""

    distribution: Any
    tops: list[str]
    home: str
    edited: str


class Distributions:
    """What is installed, listed once: most programs ask for few packages, and the list costs hundreds of files."""

    def __init__(self) -> None:
        self._listed: list[_Listed] | None = None

    def files_of(self, name: str, folder: str) -> list[File]:
        """The metadata of all distributions that have a part of a top-level module, as files to stand beside it.

        ``folder``: the one that holds the module, with links resolved.
        """
        if self._listed is None:
            self._listed = _list()
        files: dict[str, File] = {}
        for distribution, tops, home, edited in self._listed:
            by_folder = edited and os.path.join(folder, "").startswith(os.path.join(edited, ""))
            installed = not tops and home == folder and _is_recorded(distribution.read_text("RECORD") or "", name)
            if name in tops or by_folder or installed:
                files.update((file.name, file) for file in _files(distribution))
        return list(files.values())


def is_about(file: str, record: str, name: str) -> bool:
    """Whether a file in a zip file is metadata that goes along; ``record``: the RECORD beside it."""
    folder, _, last = file.rpartition("/")
    return last in _SENT and folder.endswith(".dist-info") and _is_recorded(record, name)


def _list() -> list[_Listed]:
    from importlib import metadata

    folders = [path for path in (entry or os.curdir for entry in sys.path) if os.path.isdir(path)]
    found = metadata.distributions(path=folders)  # of a zip file, its descriptor would be kept
    return [_Listed(one, _tops_of(one), os.path.realpath(str(one.locate_file(""))), _edited_in(one)) for one in found]


def _is_recorded(record: str, name: str) -> bool:
    return any(line.startswith((f"{name}/", f"{name}.py,")) for line in record.splitlines())


def _files(distribution: Any) -> list[File]:
    about = distribution.metadata
    name, version = about["Name"], about["Version"] or _NO_VERSION
    if not name:
        return []  # the folder of one that was half removed
    folder = f"{re.sub('[-_.]+', '_', name)}-{version}.dist-info"
    found = [(file, distribution.read_text(file)) for file in _SENT]
    if not found[0][1]:
        found[0] = "METADATA", distribution.read_text("PKG-INFO")  # as it is called in an .egg-info
    return [File(f"{folder}/{file}", text.encode(), False) for file, text in found if text]


def _tops_of(distribution: Any) -> list[str]:
    return (distribution.read_text("top_level.txt") or "").split()


def _edited_in(distribution: Any) -> str:
    """The folder that ``pip install --editable`` was told; '' if it was not."""
    import json
    from urllib.parse import unquote, urlsplit

    text = distribution.read_text("direct_url.json")
    if not text or "editable" not in text:
        return ""
    try:
        told = json.loads(text)
        if told.get("dir_info", {}).get("editable"):
            return os.path.realpath(unquote(urlsplit(told["url"]).path))
    except (ValueError, AttributeError, KeyError, TypeError):
        pass  # whoever has written that
    return ""

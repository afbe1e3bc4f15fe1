"""What another user of this machine does: needs root."""

from __future__ import annotations

import getpass
import grp
import json
import os
import pwd
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest

OTHER = 12345  # a uid without an entry in /etc/passwd

needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")
_MODULES = (getpass, grp, pwd)  # the child may not be able to read them where this Python is installed


def as_user(uid: int, action: Callable[[], object]) -> str:
    """What ``action`` returns in a child process of that user, as text, or the type and text of what it raises."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        child = os.fork()
    if not child:
        _be(uid, action, write)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    assert status == 0 and said, f"the child ended with status {status}"
    return str(json.loads(said))


def _be(uid: int, action: Callable[[], object], write: int) -> None:
    try:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        try:
            said = str(action())
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(said).encode())
    finally:
        os._exit(0)


@contextmanager
def shared_folder(mode: int = 0o1777) -> Iterator[Path]:
    """A folder that all users of this machine see, unlike that of the test."""
    folder = tempfile.mkdtemp(prefix="parallel-tests-", dir="/tmp")
    try:
        os.chmod(folder, mode)
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def folder_of(uid: int, path: Path, mode: int = 0o700) -> Path:
    """Make a folder that belongs to that user."""
    path.mkdir()
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path

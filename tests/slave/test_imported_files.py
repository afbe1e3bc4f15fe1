"""Which of the user's modules that a process has imported were edited."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from slave.imported_files import ImportedFiles


def test_edited_files_are_told_but_those_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = {name: tmp_path / f"{name}.py" for name in ("edited_one", "edited_two", "edited_before")}
    for path in paths.values():
        path.write_text("X = 1\n")
    importlib.invalidate_caches()
    importlib.import_module("edited_before")
    try:
        files = ImportedFiles(sys.modules)
        files.learn()
        importlib.import_module("edited_one")
        importlib.import_module("edited_two")
        files.learn()
        assert files.edited(()) == []
        for path in paths.values():
            os.utime(path, (1, 1))
        assert files.edited(()) == ["edited_one", "edited_two"]
        assert files.edited(["edited_one"]) == ["edited_two"]
        paths["edited_two"].unlink()
        assert files.edited(["edited_one"]) == ["edited_two"]
    finally:
        for name in paths:
            sys.modules.pop(name, None)

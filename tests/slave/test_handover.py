"""What a runner keeps for the next master, and what tells that its program is another one."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from slave import handover
from slave.contexts import Contexts
from slave.environment import Environment, describe
from slave.gathering import new_shared_memory
from slave.mapped import Mapped
from slave.shared_status import GOES_ON, KEEPS, LEAVES, RESTS, STAGE, new_shared_status


def test_an_order_is_there_once_and_has_to_fit() -> None:
    memory, status = new_shared_memory(True), new_shared_status(True)
    assert not handover.leave(memory, bytes(100_000))
    assert handover.leave(memory, pickle.dumps(["config"]))
    status[KEEPS] = GOES_ON
    assert handover.next_config(status, memory) == ["config"]
    assert status[STAGE] == RESTS
    assert handover.take(memory) == b""
    status[KEEPS] = 0
    with pytest.raises(SystemExit):
        handover.next_config(status, memory)
    assert LEAVES not in (0, GOES_ON)


def test_what_of_an_environment_is_the_program() -> None:
    old = describe()
    for same in (dict(old), {**old, "variables": {}, "number": 7, "host": "elsewhere", "outlives": (1.0, "x")}):
        assert handover.same_environment(old, same) == ""
    others: dict[str, Any] = {
        "path": [], "cwd": "/elsewhere", "argv": ["x"], "main_path": "/other.py", "main_name": "other", "flags": ["-O"],
        "version": [2, 7], "platform": "abacus", "ship": None, "preload": False,
    }  # fmt: skip
    for name, value in others.items():
        assert handover.same_environment(old, {**old, name: value}) == f"the program's {name} has changed"
    assert handover.same_environment(old, {**old, "changed": {"pickle": 2}}) == "pickle was loaded anew"
    assert handover.same_environment(old, {**old, "changed": {"never_imported": 2}}) == ""
    assert handover.same_environment(old, {**old, "traced": True})


def test_files_that_have_changed_since_they_were_imported(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own_folder))
    monkeypatch.setattr(time, "time", functools.partial(lambda now: now + 10, time.time()))  # the process begins later
    before = set(sys.modules)
    names = [f"handover_{os.getpid()}_{number}" for number in range(3)]
    files = handover.Files(before, lambda path: path == str(own_folder / f"{names[2]}.py"))
    for name in names:
        path = own_folder / f"{name}.py"
        path.write_text("X = 1\n")
        importlib.invalidate_caches()  # a folder may have changed twice between two ticks of the file system's clock
        importlib.import_module(name)
    main = own_folder / "script.py"
    main.write_text("Y = 1\n")
    try:
        files.note(str(main))
        assert files.changed() == ""
        for path in (own_folder / f"{names[0]}.py", main):
            text = path.read_text()
            path.write_text(text + "# edited")
            assert files.changed() == str(path)
            path.unlink()
            assert files.changed() == str(path)
            path.write_text(text)  # and back: it is what was imported
            assert files.changed() == ""
        (own_folder / f"{names[2]}.py").write_text("sent files are of no interest")
        assert files.changed() == ""
        late = handover.Files(before, lambda path: False)
        late._began -= 1000.0  # the process is older than its modules
        late.note(None)
        assert late.changed()
    finally:
        for name in names:
            del sys.modules[name]


def made(number: int) -> list[int]:
    """A setup: another object each time."""
    return [number]


def test_what_setups_returned_is_kept_by_their_pickles() -> None:
    one, two = (pickle.dumps(functools.partial(made, number)) for number in (1, 2))
    setups = {1: one, 2: one, 3: two, 4: None, 5: pickle.dumps(Mapped(made, False, 1))}
    contexts = Contexts(Environment(describe()), setups.get)
    contexts.noting = True
    before = {context: contexts.arguments(context) for context in setups}
    contexts.forget([3])
    contexts.keep()
    setups.update({11: one, 12: pickle.dumps(Mapped(made, False, 11)), 13: one, 14: one})
    assert contexts.arguments(12)[0] in (before[1][0], before[2][0])  # what is mapped is no setup
    assert contexts.arguments(13)[0] is (before[1] if contexts.arguments(11)[0] is before[2][0] else before[2])[0]
    assert contexts.arguments(14)[0] not in (before[1], before[2])
    contexts.keep()
    setups.update({21: two, 22: one})
    contexts.arguments(21)  # runs anew, and then there may be no memory for the others
    assert all(contexts.arguments(22)[0] is not known[0] for known in (before[1], before[2]))

"""Values and failures as data; why an object cannot be pickled."""

from __future__ import annotations

import functools
import pickle
import threading

import pytest

from slave.outcome import FAILURE, VALUE, pack_failure, pack_value, unpack_failure
from slave.pickling import explain
from tests.support import tasks


class Model:
    def __init__(self) -> None:
        self.name = "m"
        self.parts = [1, {"lock": threading.Lock()}]


class SlottedModel:
    __slots__ = ("empty", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


def why(value: object) -> str:
    try:
        pickle.dumps(value, 5)
    except Exception as error:
        return explain(value, "the task", error)
    raise AssertionError("it can be pickled")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Model(), "the task.parts[1]['lock']: cannot pickle '_thread.lock' object"),
        (SlottedModel(), "the task.lock: cannot pickle"),
        (functools.partial(print, Model()), "the task.args[0].parts[1]['lock']: cannot pickle"),
        (functools.partial(print, end=threading.Lock()), "the task.keywords['end']: cannot pickle"),
        ([lambda: 1], "(a lambda or a function inside a function has no name to import it by"),
        ({"a": (1, threading.Lock())}, "the task['a'][1]: cannot pickle"),
    ],
)
def test_the_part_to_blame_is_named(value: object, path: str) -> None:
    assert path in why(value)


def test_a_cycle_is_not_followed_for_ever() -> None:
    loop: list[object] = [threading.Lock()]
    loop.insert(0, loop)
    assert "cannot pickle" in why(loop)


def test_values_keep_large_buffers_out_of_band() -> None:
    big, small = bytearray(100_000), bytearray(10)
    kind, data, buffers = pack_value([pickle.PickleBuffer(big), pickle.PickleBuffer(small)])
    assert kind == VALUE and len(buffers) == 1
    assert pickle.loads(data, buffers=buffers) == [big, small]


def test_a_failure_is_readable_without_its_class() -> None:
    try:
        tasks.raise_particular()
    except tasks.Particular as error:
        kind, data, _ = pack_failure(error)
    failure = unpack_failure(data)
    assert kind == FAILURE
    assert failure.type_name == "tests.support.tasks.Particular"
    assert failure.message == "code 7 at the door"
    assert "raise_particular" in failure.traceback
    assert isinstance(failure.exception(), tasks.Particular)
    assert failure._replace(pickled=b"garbage").exception() is None
    assert failure._replace(pickled=pickle.dumps("no exception")).exception() is None


def test_builtin_exceptions_are_named_without_their_module() -> None:
    assert unpack_failure(pack_failure(KeyError("k"))[1]).type_name == "KeyError"

"""Values and failures as data; why an object cannot be pickled."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import subprocess
import sys
import threading
from typing import Any, Callable

import pytest

from slave.foreign import set_cause
from slave.outcome import pack_failure, pack_value, unpack_failure
from slave.pickling import explain
from slave.protocol import FAILURE, VALUE
from tests.support import rude, tasks


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


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_are_not_copied_when_they_are_packed(kind: type[Any]) -> None:
    value = kind(b"large" * 100_000)
    kind_of_outcome, data, buffers = pack_value(value)
    assert kind_of_outcome == VALUE and isinstance(data, bytes) and len(data) < 100
    (buffer,) = buffers
    assert isinstance(buffer, pickle.PickleBuffer) and buffer.raw().obj is value
    arrived = pickle.loads(data, buffers=[bytearray(buffer.raw())])
    assert type(arrived) is kind and arrived == value
    assert pack_value(kind(b"small"))[2] == []


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


class Text(str):
    """A class of the user's, which the master's server has no business with."""


class Worded(Exception):
    """Its str() is no plain string."""

    def __str__(self) -> str:
        return Text("in my own words")


class Interrupting(Exception):
    """Its str() interrupts, which is no Exception."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Elusive(Exception):
    """Refuses to show parts of itself."""

    def __init__(self, hidden: str) -> None:
        super().__init__(hidden)
        self.hidden = hidden

    def __getattribute__(self, name: str) -> object:
        if name == object.__getattribute__(self, "__dict__").get("hidden"):
            raise RuntimeError("not to be seen")
        return super().__getattribute__(name)


class NamedOddly(type):
    """Its classes have no module that is a string."""

    def __getattribute__(cls, name: str) -> object:
        if name == "__module__":
            raise RuntimeError("no module")
        return super().__getattribute__(name)


class Odd(Exception, metaclass=NamedOddly):
    pass


class Unreduced(Exception):
    """Pickling it interrupts."""

    def __reduce__(self) -> str:
        raise SystemExit(3)


class ExceptionWithOddArgs(Exception):
    """Its args and its traceback are what no exception has."""

    args = property(lambda self: 7)
    __traceback__ = "none"  # type: ignore[assignment]


WEIRD: dict[str, Callable[[], BaseException]] = {
    kind.__qualname__: kind for kind in (Worded, Interrupting, tasks.MuteError, Odd, Unreduced, ExceptionWithOddArgs)
}
for part in ("__traceback__", "args", "__dict__", "__cause__", "__class__"):
    WEIRD[f"Elusive {part}"] = functools.partial(Elusive, part)


@pytest.mark.parametrize("name", WEIRD)
def test_any_exception_can_be_packed_and_be_read_without_classes(name: str) -> None:
    try:
        kind, data, buffers = pack_failure(WEIRD[name]())
    except BaseException as raised:  # a KeyboardInterrupt would end the tests
        raise AssertionError(f"packing it raised {type(raised).__name__}") from None
    failure = unpack_failure(data)
    assert kind == FAILURE and not buffers
    assert [type(part) for part in failure[:3]] == [str, str, str]
    assert name.split()[0] in failure.type_name


@pytest.mark.parametrize("kind", [*rude.HOSTILE, Unreduced], ids=lambda kind: kind.__name__)
def test_what_can_be_told_of_an_exception_is_told_whatever_else_it_does(kind: type[BaseException]) -> None:
    def raised() -> BaseException:
        try:
            rude.explode(kind, "while it runs")
        except BaseException as error:
            return error

    failure = unpack_failure(pack_failure(raised())[1])
    assert failure.type_name.endswith(f".{kind.__name__}")
    assert failure.message == "while it runs" or kind is rude.Speechless
    assert "in explode" in failure.traceback and kind.__name__ in "".join(failure.traceback.splitlines()[-2:])


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Refuses to have its attributes set, its cause among them."""

    code: int


def test_a_frozen_exception_arrives_with_its_cause_and_can_be_raised_from_where_it_was() -> None:
    error, told = Frozen(3), RuntimeError("where")
    set_cause(error, ValueError("why"))
    found = there_and_back(error)
    assert found == error and str(found.__cause__) == "why"
    set_cause(found, told)
    assert found.__cause__ is told and found.__suppress_context__


def test_a_message_of_a_class_of_ones_own_arrives_as_plain_text() -> None:
    assert b"test_outcome" not in pickle.dumps(unpack_failure(pack_failure(Worded())[1]).message)
    assert unpack_failure(pack_failure(Worded())[1]).message == "in my own words"


def test_only_a_missing_module_is_told_with_its_remedy() -> None:
    def told(error: BaseException) -> str:
        return unpack_failure(pack_failure(error)[1]).traceback

    assert "Manager(python='...')" in told(ModuleNotFoundError("No module named 'm'", name="m"))
    assert "Manager(python='...')" not in told(ImportError("cannot import name 'x' from 'm'", name="m"))
    assert "Manager(python='...')" not in told(ModuleNotFoundError("said by somebody"))


# -- all that an exception has


class Located(OSError):
    """Its constructor takes other arguments than its args."""

    def __init__(self, path: str, attempt: int) -> None:
        super().__init__(2, "not here", path)
        self.attempt = attempt


class Prefixed(Exception):
    """Its constructor would put its prefix before what has one."""

    def __init__(self, text: str) -> None:
        super().__init__(f"model: {text}")


class WithSlots(Exception):
    __slots__ = ("__inner", "step")

    def __init__(self, step: int) -> None:
        super().__init__("slots")
        self.step, self.__inner = step, step + 1

    def inner(self) -> int:
        return self.__inner


class OnlyByKeyword(SyntaxError):
    def __init__(self, *, where: str) -> None:
        super().__init__("bad input", (where, 3, 4, "text"))


class Reduced(Exception):
    """Knows by itself how it is pickled."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.value + 1,)


def there_and_back(error: BaseException) -> Any:
    return unpack_failure(pack_failure(error)[1]).exception()


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (FileNotFoundError(2, "not here", "a", None, "b"), ("errno", "strerror", "filename", "filename2")),
        (Located("/data/x", 3), ("errno", "strerror", "filename", "attempt")),
        (BlockingIOError(11, "full", 5), ("errno", "characters_written")),
        (ImportError("none", name="n", path="p"), ("name", "path", "msg")),
        (OnlyByKeyword(where="input.dat"), ("filename", "lineno", "offset", "text", "msg")),
        (UnicodeDecodeError("utf-8", b"abc", 1, 2, "why"), ("encoding", "object", "start", "end", "reason")),
        (StopIteration(4), ("value",)),
        (SystemExit(5), ("code",)),
        (WithSlots(6), ("step",)),
        (subprocess.CalledProcessError(3, "cmd", b"out", b"err"), ("returncode", "cmd", "output", "stderr")),
        (Prefixed("too hot"), ()),
        (KeyError("a"), ()),
    ],
)
def test_an_exception_keeps_all_of_itself(error: BaseException, attributes: tuple[str, ...]) -> None:
    found = there_and_back(error)
    assert type(found) is type(error)
    assert str(found) == str(error) and found.args == error.args
    assert [getattr(found, name) for name in attributes] == [getattr(error, name) for name in attributes]


def test_an_exception_keeps_private_slots_its_cause_and_what_it_groups() -> None:
    assert there_and_back(WithSlots(6)).inner() == 7
    error = Prefixed("too hot")
    error.__cause__ = Located("/data/x", 3)
    cause = there_and_back(error).__cause__
    assert (cause.filename, cause.attempt) == ("/data/x", 3)
    suppressed = Prefixed("again")
    suppressed.__suppress_context__ = True
    assert there_and_back(suppressed).__suppress_context__
    if sys.version_info >= (3, 11):
        group = ExceptionGroup("several", [Located("/data/x", 3), Prefixed("too hot")])  # noqa: F821
        first, second = there_and_back(group).exceptions
        assert (first.filename, str(second)) == ("/data/x", "model: too hot")


def test_causes_that_go_round_in_a_circle() -> None:
    error, cause = Prefixed("too hot"), Located("/data/x", 3)
    error.__cause__, cause.__cause__ = cause, error
    found = there_and_back(error)
    assert found.__cause__.filename == "/data/x" and found.__cause__.__cause__ is found


@pytest.mark.parametrize("length", [30, 5_000])
def test_a_long_chain_of_causes_takes_no_longer_for_each_of_them(length: int) -> None:
    error: BaseException = Located("/data/0", 0)
    for number in range(1, length):
        error, before = Located(f"/data/{number}", number), error
        error.__cause__ = before
    found = there_and_back(error)
    assert found.filename == f"/data/{length - 1}"
    for number in range(length - 1, length - 25, -1):
        assert found.attempt == number
        found = found.__cause__


class Several(Exception):
    """Holds other exceptions in a list, and what cannot be sent in its slots."""

    __slots__ = ("lock",)

    def __init__(self, errors: list[BaseException]) -> None:
        super().__init__("several failed")
        self.errors, self.lock = errors, threading.Lock()


def test_what_an_exception_holds_in_a_list_is_whole_and_what_cannot_be_sent_is_left_out() -> None:
    error = Several([Located("/data/x", 3)])
    error.errors.append(error)
    found = there_and_back(error)
    assert (found.errors[0].filename, found.errors[0].attempt) == ("/data/x", 3)
    assert found.errors[1] is found and not hasattr(found, "lock")


def test_an_exception_that_knows_how_it_is_pickled_is_asked() -> None:
    assert there_and_back(Reduced(1)).value == 2


# -- looking for what is to blame


class Asking:
    """Whatever it lacks it looks up, and raises what a dictionary raises."""

    def __init__(self) -> None:
        self.known = {"lock": threading.Lock()}

    def __getattr__(self, name: str) -> object:
        return vars(self)["known"][name]


class Shy:
    """Nothing can be learned of it."""

    def __repr__(self) -> str:
        raise LookupError("no repr")

    def __getattribute__(self, name: str) -> Any:
        if name == "__reduce_ex__":
            raise TypeError("cannot pickle a shy one")
        raise LookupError(name)


ASKED = "the task.known['lock']: cannot pickle '_thread.lock' object"
if sys.version_info < (
    3,
    11,
):  # which gave object a __getstate__: that is missed first, and would be without the lock
    ASKED = "the task: KeyError: '__getstate__'"


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (Asking, ASKED),
        (lambda: [Shy()], "the task[0]: cannot pickle a shy one"),
        (lambda: {"a": {1: Shy()}}, "the task['a'][1]: cannot pickle a shy one"),
    ],
)
def test_what_an_object_raises_while_it_is_looked_at_does_not_hide_why_it_cannot_be_sent(
    made: Callable[[], object], told: str
) -> None:
    value = made()
    with pytest.raises(Exception) as caught:
        pickle.dumps(value, 5)
    assert explain(value, "the task", caught.value) == told

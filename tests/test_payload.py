"""Tasks as they are pickled: quickly, and as pickle itself would have it."""

from __future__ import annotations

import errno
import functools
import gc
import multiprocessing
import os
import pickle
import sys
import threading
from types import FunctionType, ModuleType
from typing import Any, Callable

import pytest

import parallel
from parallel.errors import UnpicklableError
from parallel.part_memory import PartMemory
from parallel.payload import Packer, digest_of, setup_dump
from parallel.pickled import describe
from parallel.program import Program
from slave import parted, shared_memory
from slave.environment import Environment
from slave.mapped import call
from slave.parted import LARGE
from slave.protocol import Parted, Payload, Setup
from slave.shared_memory import Borrower, Shared
from tests.conftest import descriptors


def double(number: int, plus: int = 0) -> int:
    return 2 * number + plus


def swallow(data: object, plus: object = None) -> None:
    pass


@pytest.fixture(scope="module")
def program() -> Program:
    made = Program()
    made.main_stays = False  # whoever runs the tests, with `python -c` say
    return made


@pytest.fixture
def packer(program: Program) -> Packer:
    return Packer(program, in_parts=True)


@pytest.fixture
def environment(program: Program) -> Environment:
    return Environment(program.environment)


def whole(payload: Payload) -> bytes:
    assert type(payload) is bytes
    return payload


def test_a_task_is_what_pickle_makes_of_it_also_when_it_comes_again(packer: Packer, environment: Environment) -> None:
    for task in (double, double, len, functools.partial(double, 1), double):
        payload = whole(packer.task(task, (), {}))
        assert payload == pickle.dumps(task, 5)
        found = environment.loads(payload)
        assert found is task or found.func is double


@pytest.mark.parametrize("function", [double, len, functools.partial(double, 1)])
def test_arguments_come_with_it_and_are_told(
    packer: Packer, environment: Environment, function: Callable[..., Any]
) -> None:
    shared = [1] * 300
    for args in ((), (shared,), (shared, shared), ("x" * 70_000,)):
        payload = whole(packer.task(function, args, {"plus": shared}))
        (found, named), task = environment.loads(payload)
        assert (found, named) == (args, {"plus": shared}) and repr(task) == repr(function)
        assert named["plus"] is found[0] if args == (shared,) else True
    assert describe(whole(packer.task(double, (4,), {"plus": 1}))) == "double(4, plus=1)"
    assert call(pickle.loads(whole(packer.task(double, (4,), {"plus": 1}))), ()) == 9


class Interloper:
    """While it is pickled another thread adds a task of another function."""

    packer: Packer

    def __reduce__(self) -> tuple[Any, ...]:
        self.packer.task(half, (), {})
        return int, (4,)


def half(number: int) -> int:
    return number // 2


def test_several_threads_may_add_tasks_of_several_functions(packer: Packer) -> None:
    Interloper.packer = packer
    for _ in range(2):
        assert call(pickle.loads(whole(packer.task(double, (Interloper(),), {}))), ()) == 8


def test_a_map_s_input_is_told_as_it_is() -> None:
    assert describe(pickle.dumps((1, 2, 3))) == "(1, 2, 3)"
    assert describe(pickle.dumps(((1, 2), 3))) == "((1, 2), 3)"


def test_a_function_whose_name_stands_for_another_one_is_refused(
    packer: Packer, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("some_module")
    monkeypatch.setitem(sys.modules, "some_module", module)
    exec("def first(): return 1", vars(module))
    first = module.first
    for _ in range(2):
        payload = whole(packer.task(first, (), {}))
        assert environment.loads(payload) is first
    module.first = double  # type: ignore[attr-defined]
    try:
        found = environment.loads(whole(packer.task(first, (), {})))
    except UnpicklableError as error:  # without cloudpickle
        assert "not the same object" in str(error)
    else:
        assert found() == 1
    assert environment.loads(payload) is double, "as pickle has it"


def arrived(payload: Payload) -> Any:
    """As a slave gets it."""
    if not isinstance(payload, Parted):
        return payload
    pickled, parts = payload.message()
    return pickled, [bytes(part) if part.raw().readonly else bytearray(part) for part in parts]


FORKED = multiprocessing.get_context("fork")
FOR_CHILDREN: dict[str, Callable[[], object]] = {
    "queue": FORKED.SimpleQueue,
    "lock": FORKED.Lock,
    "event": FORKED.Event,
    "pipe": lambda: FORKED.Pipe(False)[0],  # of which pickle itself would send the number of a descriptor
}


@pytest.mark.parametrize("what", FOR_CHILDREN)
def test_what_goes_to_ones_own_children_alone_is_refused_with_what_goes_to_slaves(packer: Packer, what: str) -> None:
    why = r"the task's args\[0\].* through inheritance .* what multiprocessing\.Manager\(\) makes in its place"
    made: Any = FOR_CHILDREN[what]()
    with pytest.raises(UnpicklableError, match=why):
        packer.task(swallow, (made,), {})
    if hasattr(made, "close"):
        made.close()


def test_a_manager_and_a_context_are_refused_by_name(packer: Packer) -> None:
    """Not by a lock somewhere in them: a method whose object holds them is easily made a task."""
    with parallel.Manager() as manager:
        for held, name in ((manager, "Manager"), (manager.get_context(), "Context")):
            with pytest.raises(UnpicklableError, match=rf"args\[0\]\[0\]: a {name} is of the master's process alone"):
                packer.task(swallow, ([held],), {})


class Refusing:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise ValueError("open it again where it is needed")


def test_an_object_that_refuses_is_told_in_its_own_words(packer: Packer) -> None:
    with pytest.raises(UnpicklableError, match=r"args\[0\]\['x'\]: ValueError: open it again where it is needed") as it:
        packer.task(swallow, ({"x": Refusing()},), {})
    assert str(it.value).count("open it again") == 1, "once, and not of each way to pickle it"


def test_the_large_parts_of_a_task_stand_beside_its_pickle_once_one_was_large(
    packer: Packer, environment: Environment
) -> None:
    data, array = bytes(LARGE), bytearray(b"a" * LARGE)
    assert type(packer.task(double, (data,), {})) is bytes  # it was not known that tasks are large
    parted = packer.task(double, (data, data, "x", array), {"plus": 1})
    assert isinstance(parted, Parted) and 2 * LARGE < len(parted) < 2 * LARGE + 1000, "data is there once"
    assert memoryview(parted.parts[0]).obj is data, "and not copied"
    array[:] = b"b" * LARGE
    (args, named), task = environment.loads(arrived(parted))
    assert args == (data, data, "x", b"a" * LARGE) and named == {"plus": 1} and task is double
    assert args[0] is args[1] and type(args[3]) is bytearray
    assert type(packer.task(double, (1,), {})) is bytes
    assert type(packer.task(double, (data,), {})) is bytes, "the last one was small"


def test_a_partial_s_large_bytes_are_not_copied_and_what_has_none_is_as_ever(
    packer: Packer, environment: Environment
) -> None:
    data = bytes(LARGE)
    task: Any = functools.partial(swallow, data, plus=data)
    for _ in range(2):
        parted = packer.task(task, (), {})
    assert isinstance(parted, Parted) and len(parted) < LARGE + 1000
    found = environment.loads(arrived(parted))
    assert (found.func, found.args, found.keywords) == (swallow, (data,), {"plus": data})
    many = functools.partial(swallow, list(range(LARGE)))
    assert packer.task(many, (), {}) == pickle.dumps(many, 5)


def test_a_list_that_is_known_twice_is_rebuilt_as_one(packer: Packer, environment: Environment) -> None:
    shared = [bytes(LARGE)]
    for _ in range(2):
        (args, _), _ = environment.loads(arrived(packer.task(double, (shared, (shared,), bytes(LARGE)), {})))
        assert args[0] is args[1][0]


def test_what_is_wrong_with_a_large_task_is_told_as_ever(packer: Packer) -> None:
    packer.task(double, (bytes(LARGE),), {})
    with pytest.raises(UnpicklableError, match=r"args|\[0\]"):
        packer.task(double, (bytes(LARGE), [threading.Lock()]), {})


def test_with_a_checkpoint_a_task_is_one_pickle(program: Program) -> None:
    packer = Packer(program, in_parts=False)
    assert {type(packer.task(double, (bytes(LARGE),), {})) for _ in range(3)} == {bytes}
    assert {type(packer.input(bytes(LARGE))) for _ in range(3)} == {bytes}


def test_a_map_s_large_inputs_stand_beside_their_pickles(packer: Packer, environment: Environment) -> None:
    data = bytearray(LARGE)
    assert type(packer.input(data)) is bytes
    parted = packer.input((1, data))
    assert isinstance(parted, Parted) and environment.loads(arrived(parted)) == (1, data)
    assert packer.input(5) == pickle.dumps(5, 5)


# -- setups


class Bare:
    """An array as a class of the user's may have it: what it is rebuilt of is kept as it comes."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return Bare, (pickle.PickleBuffer(self.data),)


def arrives(payload: Setup) -> Any:
    return parted.loads(parted.arrived(payload))


def memfds() -> int:
    gc.collect()  # of another test's too
    return sum("memfd:" in one for one in descriptors())


needs_memfd = pytest.mark.skipif(not shared_memory.possible, reason="this system has no memfd")


def test_a_small_setup_is_a_pickle_as_any_other(program: Program) -> None:
    task = functools.partial(swallow, Bare(bytearray(b"x" * 1000)))
    payload = setup_dump(task, "the setup", program)
    assert payload == pickle.dumps(task, 5)
    assert arrives(payload).args[0].data == b"x" * 1000


@needs_memfd
def test_a_large_setup_stands_in_shared_memory_and_what_a_slave_writes_is_its_own(program: Program) -> None:
    small, free, fixed = (bytearray([number]) * size for number, size in ((1, 100), (2, LARGE), (3, LARGE + 1)))
    whole = bytes([4]) * (2 * LARGE)
    read_only = memoryview(bytearray(fixed)).toreadonly()
    made = [Bare(one) for one in (small, free, read_only, whole)]
    payload = setup_dump(functools.partial(swallow, [*made, whole, free]), "the setup", program)
    assert isinstance(payload, Shared)
    for _ in range(2):
        descriptor = os.dup(payload.descriptor)
        view = Borrower().borrow(descriptor, len(payload), False)
        *found, plain, again = arrives(view).args[0]  # type: ignore[arg-type]
        assert [bytes(one.data) for one in found] == [small, free, fixed, whole]
        assert plain == whole and again == free and type(again) is bytearray
        assert [type(one.data) for one in found] == [bytearray, memoryview, memoryview, bytes]
        assert [memoryview(one.data).readonly for one in found] == [False, False, True, True]
        found[1].data[:] = b"z" * LARGE
        with pytest.raises(OSError):
            os.pwrite(payload.descriptor, b"z", 0)


@needs_memfd
def test_a_large_setup_that_is_to_be_as_ever_is_that_in_shared_memory(program: Program) -> None:
    task = functools.partial(swallow, Bare(bytearray(LARGE)))
    payload = setup_dump(task, "the setup", program, in_parts=False)
    assert isinstance(payload, Shared) and bytes(payload) == pickle.dumps(task, 5)
    assert digest_of(payload) == digest_of(pickle.dumps(task, 5))
    before = memfds()
    del payload
    assert memfds() < before


@needs_memfd
@pytest.mark.parametrize("call", ["memfd_create", "pwrite"])
def test_where_no_memory_is_to_be_shared_a_setup_is_a_pickle(
    program: Program, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = memfds()
    monkeypatch.setattr(os, call, refused)
    for in_parts in (True, False):
        for data in (bytearray(LARGE), b"x" * LARGE):
            task = functools.partial(swallow, Bare(data), b"y" * (LARGE + 1))
            assert setup_dump(task, "the setup", program, in_parts=in_parts) == pickle.dumps(task, 5)
    assert memfds() == before


@needs_memfd
def test_a_large_setup_that_cannot_be_pickled_is_refused_as_a_small_one(program: Program) -> None:
    before = memfds()
    with pytest.raises(UnpicklableError, match=r"the setup.args\[1\]: cannot pickle '_thread.lock' object"):
        setup_dump(functools.partial(swallow, b"x" * LARGE, threading.Lock()), "the setup", program)
    assert memfds() == before


@needs_memfd
def test_of_a_large_setup_it_is_known_what_stays_in_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program()
    program.main_stays = True
    setup_dump(functools.partial(swallow, b"x" * LARGE), "the setup", program)
    there = FunctionType((lambda data: None).__code__, {"__name__": "__main__"}, "there")
    monkeypatch.setattr(sys.modules["__main__"], "there", there, raising=False)
    there.__module__, there.__qualname__ = "__main__", "there"
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(UnpicklableError, match="refers to something defined in this session.*: there"):
        setup_dump(functools.partial(there, b"x" * LARGE), "the setup", program)


@needs_memfd
def test_the_arrays_of_a_setup_that_goes_by_value_stand_beside_it(program: Program) -> None:
    pytest.importorskip("cloudpickle")
    small, large, text = Bare(bytearray(b"s" * 100)), Bare(bytearray(b"l" * LARGE)), b"t" * LARGE
    payload = setup_dump(lambda: (small, large, text), "the setup", program)
    assert isinstance(payload, Shared) and len(payload) < 2.1 * LARGE
    view = Borrower().borrow(os.dup(payload.descriptor), len(payload), False)
    found = arrives(view)()  # type: ignore[arg-type]
    assert [type(one) for one in (found[0].data, found[1].data, found[2])] == [bytearray, memoryview, bytes]
    assert [bytes(one) for one in (found[0].data, found[1].data, found[2])] == [b"s" * 100, b"l" * LARGE, text]
    found[1].data[:1] = b"w"


@needs_memfd
@pytest.mark.parametrize("where", ["a session", "a lambda"])
def test_the_arrays_of_a_task_that_goes_by_value_stand_beside_it(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    pytest.importorskip("cloudpickle")
    program = Program()
    program.main_stays = where == "a session"
    program.part_memory = memory = PartMemory()
    function: Any = lambda data, plus: (data, plus)  # noqa: E731
    if program.main_stays:
        function = FunctionType(function.__code__, {"__name__": "__main__"}, "there")
        function.__module__, function.__qualname__ = "__main__", "there"
        monkeypatch.setattr(sys.modules["__main__"], "there", function, raising=False)
    packer, bare, data = Packer(program, in_parts=True), Bare(bytearray(b"b" * LARGE)), b"d" * LARGE
    payloads = [packer.task(function, (bare, data), {}) for _ in range(3)] + [packer.task(swallow, (bare,), {})]
    assert [isinstance(payload, Parted) for payload in payloads] == [False, True, True, True]
    (args, named), found = parted.loads(arrived(payloads[1]))
    mine, text = found(*args, **named)
    assert bytes(mine.data) == bare.data and text == data
    assert [isinstance(memoryview(part).obj, Shared) for part in payloads[3].parts] == [True]  # type: ignore[union-attr]
    memory.close()
    payloads.clear()
    gc.collect()  # why something cannot be pickled is found by exceptions that know their frames

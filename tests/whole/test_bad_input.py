"""Bad input gets a clear error at the call that brought it, and leaves manager and context usable."""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import socket
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, cast

import pytest

import parallel
from parallel.service import addresses
from slave.keys import default_file
from tests.conftest import Make
from tests.support import tasks


def works(context: parallel.Context[Any]) -> bool:
    context.add_task(functools.partial(tasks.give, "works"))
    return list(context.get_results_unordered()) == ["works"]


@pytest.mark.parametrize("task", [None, 5, "text", [], tasks.Counter(1)])
def test_a_task_that_is_not_callable(make: Make, task: Any) -> None:
    context = make().get_context()
    with pytest.raises(parallel.InputTypeError, match="a task must be callable, and .* is not; .*functools.partial"):
        context.add_task(task)
    assert works(context)


def test_a_task_that_cannot_be_pickled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    context = make().get_context()
    counter = tasks.Counter(threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(parallel.UnpicklableError, match="the task.__self__.start: cannot pickle '_thread.lock' object"):
        context.add_task(counter.plus_one)
    with pytest.raises(
        parallel.UnpicklableError, match="a lambda or a function inside a function has no name"
    ) as caught:
        context.add_task(lambda: 1)
    assert caught.value.__context__ is None, "one traceback, and the reason in its last line"
    assert works(context)


def test_a_setup_that_is_not_callable_or_cannot_be_pickled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    manager = make()
    with pytest.raises(parallel.InputTypeError, match="setup must be a callable .*, or None; 5 is neither"):
        manager.get_context(5)  # type: ignore[arg-type]
    with pytest.raises(parallel.UnpicklableError, match="the setup cannot be sent to a slave"):
        manager.get_context(lambda: 1)
    assert works(manager.get_context())


@pytest.mark.parametrize("slave", [None, parallel.LocalSlave, "LocalSlave"])
def test_what_is_no_slave(make: Make, slave: Any) -> None:
    manager = make()
    with pytest.raises(parallel.InputTypeError, match="add_slave takes a Slave or a SlaveArray"):
        manager.add_slave(slave)
    assert works(manager.get_context())


def test_the_same_slave_twice(make: Make) -> None:
    manager = make()
    slave = parallel.LocalSlave()
    manager.add_slave(slave)
    with pytest.raises(ValueError, match=r"LocalSlave\(\) was added before; make a new one for each slave"):
        manager.add_slave(slave)
    assert works(manager.get_context())


def test_one_output_file_for_several_slaves(make: Make) -> None:
    manager = make(1, output="the.output")
    with pytest.raises(parallel.InputError, match="names one file for several slaves; put %d in it"):
        manager.add_slave(parallel.LocalSlave())
    assert works(manager.get_context())
    assert Path("the.output").exists()


def test_an_output_folder_that_does_not_exist(own_folder: Path) -> None:
    with pytest.raises(parallel.InputError, match=f"there is no folder {own_folder}/missing; make it, or name another"):
        parallel.Manager(output="missing/slave%d.output")


def test_an_output_file_that_cannot_be_written(make: Make) -> None:
    Path("slave0.output").mkdir()
    context = make(1).get_context()
    with pytest.raises(parallel.InputError, match="slave0.output cannot be written: Is a directory; name"):
        works(context)


def test_no_output_file_at_all(make: Make, own_folder: Path) -> None:
    assert works(make(2, output=None).get_context())
    assert not list(own_folder.glob("*.output"))


def test_a_port_in_use() -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(parallel.NetworkError, match=f"cannot listen on port {port}: the port is in use by another"):
            parallel.Manager(port=port)


@pytest.mark.parametrize("port", [-1, 65536, "5757", 1.5, True])
def test_what_is_no_port(port: Any) -> None:
    with pytest.raises(parallel.InputError, match="is not a port number"):
        parallel.Manager(port=port)


def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_LOOKUP_SECONDS", 60.0)  # else one that is slow to answer is no word on the name
    with pytest.raises(parallel.NetworkError, match="host='no.such.host.invalid' is unknown here: .*; leave it out"):
        parallel.Manager(host="no.such.host.invalid")
    with pytest.raises(parallel.NetworkError, match="unknown here: .*; name the port apart, host='127.0.0.1', port=57"):
        parallel.Manager(host="127.0.0.1:57")


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "Cannot allocate memory")]
)
def test_a_host_that_cannot_be_asked_for_is_not_unknown(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    why = f"host='lab7': its address cannot be asked for: {error.strerror}"
    with pytest.raises(parallel.NetworkError, match=re.escape(why)) as caught:
        parallel.Manager(host="lab7")
    assert "unknown" not in str(caught.value)
    with pytest.raises(OSError, match=str(error.strerror)):
        addresses._of_host_name()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lease": 0}, "lease=0 is not a positive number of seconds"),
        ({"lease": "x"}, "lease='x' is not a positive"),
        ({"max_attempts": 0}, "max_attempts=0 is not a whole number from 1 on"),
        ({"authkey": b"short"}, "the authkey argument holds a key of 5 bytes"),
        ({"authkey": "text"}, "must be bytes, not str"),
        ({"python": 5}, "python=5 is no command line that starts Python"),
        ({"python": " "}, "python=' ' starts nothing; leave it out for this interpreter"),
        ({"python": "python3\0"}, "starts nothing; leave it out for this interpreter"),
        ({"output": "slave\0.output"}, "can be no file name: there is a null character in it"),
        ({"trace": 5}, "trace=5 is no file name"),
    ],
)
def test_other_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(parallel.InputError, match=message):
        parallel.Manager(**options)


class Index:
    """Like NumPy's whole numbers: no int."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


def test_numbers_may_be_of_other_kinds(make: Make) -> None:
    """NumPy's are neither int nor float; what the manager has of them, and sends, is."""
    one, seconds = cast(int, Index(1)), cast(float, Fraction(121, 2))
    manager = make(0, lease=seconds, max_attempts=one, result_bytes=seconds * 10**6, slaves_wait=Fraction(0))
    manager.add_slaves(one)
    manager.wait_for_slaves(one, seconds)
    assert repr(manager.dispatcher.scheduler.state.leases.term) == "60.5"
    context = manager.get_context(timeout=seconds, retries=one, max_tasks_per_slave=one)
    assert list(context.map(abs, [-1, -2], timeout=seconds, buffersize=one)) == [1, 2]
    assert context.cancel(one) == 0 and works(context)
    manager.remove_slave(cast(int, Index(0)), seconds)


def test_arguments_of_calls_that_cannot_be(make: Make) -> None:
    """Nothing of it reaches the thread that decides: that would end it, and with it the manager."""
    manager = make()
    context = manager.get_context()
    wrong: list[tuple[Callable[..., object], tuple[Any, ...], str]] = [
        *((manager.wait_for_slaves, (n,), f"n={n!r} is not a whole number from 0 on") for n in ("2", -1, 1.5, None)),
        *((manager.wait_for_slaves, (1, t), "timeout=.* is not a number of seconds") for t in ("1", -1, math.nan)),
        *((manager.remove_slave, (0, t), "grace=.* is not a number of seconds") for t in ("1", -1, math.nan)),
        *((context.cancel, (task,), "cancel takes the id that add_task returned") for task in ("fits", [0], 1.0)),
        (manager.subscribe, (5,), "subscribe takes a function to be called with each event, and 5 is none"),
        (lambda other: parallel.map(abs, [1], manager=other), (parallel.Manager,), "manager=.* is no manager"),
        (lambda other: parallel.Executor(manager=other), (5,), "manager=5 is no manager"),
        (parallel.SSHSlave, ("node1", 1, 5), "SSHSlave: python=5 is no command line"),
        (parallel.PipedCommandSlave, ("sh {command}", 1, ""), "PipedCommandSlave: python='' is no command line"),
    ]
    for call, arguments, message in wrong:
        with pytest.raises(parallel.InputError, match=message):
            call(*arguments)
    manager.wait_for_slaves(0, timeout=0)
    assert works(context)
    manager.connect_timeout = "soon"  # type: ignore[assignment]
    with pytest.raises(parallel.InputError, match="connect_timeout='soon' is not a number of seconds"):
        manager.add_slave(parallel.LocalSlave())


def test_a_key_file_that_others_can_read() -> None:
    parallel.Manager(port=0).shutdown()
    default_file().chmod(0o644)
    with pytest.raises(parallel.InputError, match=f"others; make it yours alone: chmod 600 {default_file()}"):
        parallel.Manager(port=0)
    default_file().chmod(0o600)
    parallel.Manager(port=0).shutdown()


def test_local_slaves_need_no_key_file() -> None:
    parallel.Manager().shutdown()
    assert not default_file().exists()


def test_a_join_command_without_a_port(make: Make) -> None:
    with pytest.raises(parallel.InputError, match=r"give it a port, Manager\(port=5757\)"):
        make(0).join_command  # noqa: B018 - reading the property is the test


def test_after_shutdown_every_call_says_so(make: Make) -> None:
    manager = make(1)
    context = manager.get_context()
    assert works(context)
    manager.shutdown()
    manager.shutdown()
    calls: list[Callable[[], object]] = [
        lambda: context.add_task(dict),
        lambda: list(context.get_results_unordered()),
        lambda: manager.get_context(),
        lambda: manager.add_slave(parallel.LocalSlave()),
        lambda: manager.wait_for_slaves(1),
    ]
    for call in calls:
        with pytest.raises(parallel.ManagerClosed, match="the manager was shut down"):
            call()


def test_a_shutdown_wakes_whoever_waits_for_results(make: Make) -> None:
    manager = make(0, port=0)
    context = manager.get_context()
    context.add_task(dict)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            list(context.get_results_unordered())
        except parallel.ManagerClosed as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    manager.shutdown()
    thread.join(60)
    assert len(caught) == 1


def test_waiting_for_slaves_that_do_not_come(make: Make) -> None:
    manager = make(1)
    with pytest.raises(parallel.NoMoreSlavesError, match="2 slaves cannot come"):
        manager.wait_for_slaves(2)
    with pytest.raises(TimeoutError, match="0 of 1 slaves are connected after 0.1 s"):
        make(0, port=0).wait_for_slaves(1, timeout=0.1)
    assert works(manager.get_context())


def test_two_managers_in_one_process(make: Make) -> None:
    one, two = make(1), make(1, output="two%d.output")
    contexts = [one.get_context(), two.get_context()]
    for _ in range(3):
        assert all(works(context) for context in contexts)
    one.shutdown()
    assert works(contexts[1])


def test_a_slave_added_while_a_run_is_on_starts_at_once(make: Make) -> None:
    manager = make(1)
    assert works(manager.get_context())
    manager.add_slave(parallel.LocalSlave())
    manager.wait_for_slaves(2, 60)


def test_class_attributes_set_the_lease(make: Make) -> None:
    class Patient(parallel.Manager):
        heartbeat_timeout = 77.0

    manager = Patient()
    manager.add_slave(parallel.LocalSlave())
    assert works(manager.get_context())
    assert manager.dispatcher.scheduler.state.leases.term == 77.0
    manager.shutdown()
    other = make(1)
    other.heartbeat_timeout = 55.0
    assert works(other.get_context())
    assert other.dispatcher.scheduler.state.leases.term == 55.0
    assert make(0, lease=3.0).heartbeat_timeout == 3.0


def test_a_derived_slave_must_define_its_verbs(make: Make) -> None:
    class Unfinished(parallel.Slave):
        pass

    manager = make(0)
    manager.add_slave(Unfinished())
    context = manager.get_context()
    context.add_task(dict)
    with pytest.raises(TypeError, match=r"Unfinished must define start\(job\)"):
        list(context.get_results_unordered())


def test_without_output_files_a_slave_program_that_ends_is_told_with_its_last_words(make: Make) -> None:
    manager = make(1, output=None, python="echo 'no such module: py' >&2; exit 11;")
    context = manager.get_context()
    context.add_task(tasks.give)
    with pytest.raises(
        parallel.NoMoreSlavesError, match=r"(?s)it exited with code 11; its last words:\n    \| no such module: py"
    ):
        list(context.get_results_unordered())


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".org", "", "two words", "nul\0", "tab\t"])
def test_a_host_that_can_be_no_name(host: str) -> None:
    with pytest.raises(parallel.InputError, match="cannot be the name of a machine: .*; leave it out, or name an"):
        parallel.Manager(host=host)


@pytest.mark.parametrize("host", [5, b"127.0.0.1", ["127.0.0.1"]])
def test_a_host_that_is_no_text(host: Any) -> None:
    with pytest.raises(parallel.InputTypeError, match="a text, as in host='10.0.0.5'"):
        parallel.Manager(host=host)


@pytest.mark.parametrize("output", [5, 0.5, ["slave%d"], True])
def test_an_output_that_is_no_file_name(output: Any) -> None:
    with pytest.raises(parallel.InputTypeError, match="is no file name; 'slave%d.output' is one, None is for no files"):
        parallel.Manager(output=output)


@pytest.mark.parametrize("output", ["", ".", "/tmp", "/tmp/"])
def test_an_output_that_is_a_folder(output: str) -> None:
    with pytest.raises(parallel.InputError, match="is a folder; name files in it: '.*slave%d.output'"):
        parallel.Manager(output=output)


@pytest.mark.parametrize("name", ["50%", "100%d%", "%(x)d", "%*d", "%s %s"])
def test_a_percent_sign_in_the_name_of_an_output_file_that_stands_for_no_number(make: Make, name: str) -> None:
    manager = make(1, output=name)
    with pytest.raises(parallel.InputError, match="names one file for several slaves; put %d in it"):
        manager.add_slave(parallel.LocalSlave())
    assert works(manager.get_context())
    assert Path(name).exists()


@pytest.mark.parametrize("folder", ["50%", "%d", "100%done", "%s"])
def test_a_percent_sign_in_the_folder_of_output_files(make: Make, own_folder: Path, folder: str) -> None:
    Path(folder).mkdir()
    assert works(make(2, output=f"{folder}/slave%d").get_context())
    os.chdir(folder)
    assert works(make(2, output=b"%d.bytes").get_context())
    os.chdir(own_folder)
    assert sorted(path.name for path in Path(folder).iterdir()) == ["0.bytes", "1.bytes", "slave0", "slave1"]


def test_output_files_are_where_they_were_named_wherever_the_program_goes(make: Make, own_folder: Path) -> None:
    manager = make(0)
    Path("deeper").mkdir()
    os.chdir("deeper")
    manager.add_slave(parallel.LocalSlave())
    assert works(manager.get_context())
    assert (own_folder / "slave0.output").exists() and manager.slaves[0].output == str(own_folder / "slave0.output")
    os.chdir(own_folder)


@pytest.mark.parametrize("device", ["/dev/null", Path("/dev/null")])
def test_one_device_for_the_output_of_many(make: Make, device: Any) -> None:
    assert works(make(3, output=device).get_context())


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="Python 3.13.0 cannot import socket in a folder that was deleted"
)
def test_a_working_folder_that_was_deleted(make: Make, own_folder: Path) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    (own_folder / "gone").rmdir()
    try:
        with pytest.raises(parallel.InputError, match="the working folder of this program was deleted; change to ano"):
            parallel.Manager()
        assert works(make(2, output=None).get_context())
        assert works(make(2, output=str(own_folder / "of%d")).get_context())
    finally:
        os.chdir(own_folder)


def test_a_working_folder_that_is_deleted_while_slaves_run(make: Make, own_folder: Path) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    try:
        manager = make(1, output=None)
        assert works(manager.get_context())
        (own_folder / "gone").rmdir()
        assert works(manager.get_context())
        manager.add_slave(parallel.LocalSlave())
        manager.wait_for_slaves(2, timeout=60)
        assert works(manager.get_context())
    finally:
        os.chdir(own_folder)


def test_no_folder_for_temporary_files(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/nonexistent"])
    assert works(make(2, output=None).get_context())
    manager = make(1, output=None, python="echo 'its last words' >&2; exit 9;")
    context = manager.get_context()
    context.add_task(dict)
    with pytest.raises(parallel.NoMoreSlavesError, match="its last words"):
        list(context.get_results_unordered())


def test_a_search_path_with_what_is_no_text(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path, b"/bytes", Path("/a/path"), 7, None])
    assert works(make(1).get_context())


@pytest.mark.parametrize(
    ("ship", "why"),
    [
        ("requests", r"ship='requests' is neither a list of names of packages, nor False"),
        (True, "ship=True is neither a list"),
        (["a.b"], "ship: 'a.b' is not the name of a package, such as 'requests'"),
        ([3], "ship: 3 is not the name of a package"),
        (["no_such_package"], "ship: there is no package 'no_such_package' here"),
        (["sys"], "ship: there is no package 'sys' here"),
        (
            ["numpy"],
            r"'numpy' has compiled parts \(numpy\.\S+\), .*: install it on the slaves, \S+ -m pip install numpy==",
        ),
    ],
)
def test_packages_that_cannot_be_sent(ship: Any, why: str) -> None:
    with pytest.raises(parallel.InputError, match=why):
        parallel.Manager(ship=ship)


@pytest.mark.parametrize("count", [0, -1, "1M", True, float("nan")])
def test_a_share_that_is_no_number_of_bytes(count: Any) -> None:
    with pytest.raises(parallel.InputError, match=f"share_bytes={count!r} is not a positive number of bytes"):
        parallel.Manager(share_bytes=count)

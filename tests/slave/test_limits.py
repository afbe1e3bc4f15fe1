"""What has failed for want of memory or descriptors is said to have, with the limit that it comes from."""

from __future__ import annotations

import errno
import re
import threading
from pathlib import Path

import pytest

import parallel
from slave import limits
from slave.cli import main
from slave.errors import OutOfResources
from slave.missing import missing_module, remedy
from tests.conftest import Make
from tests.support.programs import Program
from tests.support.waiting import eventually


def chained(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


NO_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("_multiarray.so: failed to map segment from shared object", name="numpy"),
    RuntimeError("can't start new thread"),
    LookupError("unknown encoding: idna"),
    chained(ImportError("numpy cannot be imported"), ImportError("x.so: failed to map segment from shared object")),
]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"RLIMIT_AS": 30 << 20, "RLIMIT_DATA": 0, "RLIMIT_NOFILE": 7}
    monkeypatch.setattr(limits, "_limit", lambda name: found[name])


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_a_want_of_memory_is_the_machines(error: BaseException) -> None:
    assert limits.no_memory(error) and limits.shortage(error)
    assert re.fullmatch(r"on \S+ a process may use 30 MiB of memory: raise that limit .*ulimit -v.*", remedy(error))
    assert missing_module(error) == ""
    assert "30 MiB" in limits.explained(error)


@pytest.mark.parametrize(
    "error", [ImportError("no module", name="numpy"), ValueError("MemoryError"), RuntimeError("no"), OSError(2, "x")]
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not limits.no_memory(error) and not limits.shortage(error) and limits.told(error) == ""


def test_causes_that_go_in_a_circle() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not limits.no_memory(first)


@pytest.mark.usefixtures("limit")
def test_a_want_of_descriptors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(errno.EMFILE, "Too many open files")
    assert limits.no_descriptor(error) and not limits.no_memory(error)
    assert re.fullmatch(r"on \S+ a process may have 7 files open: raise that limit \(ulimit -n\)", limits.told(error))

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr("slave.cli._serve_by_hand", fail)
    monkeypatch.setattr("slave.cli.log", SaysIt())
    assert main(["host:1"]) == OutOfResources.exit_code
    assert "may have 7 files open" in capsys.readouterr().out


class SaysIt:
    """In the place of the slave program's logger."""

    def error(self, text: str, *values: object) -> None:
        print(text % values)


def test_a_slave_that_may_open_no_files_ends_with_one_line(make: Make, own_folder: Path) -> None:
    """At once, and not after the hour for which it may look for a master."""
    port = make(0, port=0).address[1]
    shell = f"ulimit -n 7; exec python3 -m slave 127.0.0.1:{port} -n 1 --wait 3600"
    program = Program("sh", "-c", shell, cwd=own_folder)
    try:
        assert program.ends() == OutOfResources.exit_code, program.err
        assert re.fullmatch(
            r"slave: cannot reach the master at .*too many open files.* may have 7 files open: .*\(ulimit -n\)\n",
            program.err,
            re.IGNORECASE,
        ), program.err
    finally:
        program.kill()


def test_local_slaves_that_cannot_be_started(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    context = make(1).get_context()
    context.add_task(dict)
    with monkeypatch.context() as without:
        without.setattr("subprocess.Popen", fail)
        with pytest.raises(
            parallel.Error, match=r"^local slaves cannot be started: .*Too many open files; .*ulimit -n"
        ):
            list(context.get_results_unordered())


def test_a_master_that_gets_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr("threading.Thread.start", fail)
        with pytest.raises(parallel.NetworkError, match="^cannot make a manager: RuntimeError: can't start new thread"):
            parallel.Manager()


def test_a_slave_that_its_agent_gives_up_is_told_of(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Though it has never come, and has no launcher that would tell it."""
    port = make(0, port=0).address[1]
    program = Program("sh", "-c", f"ulimit -n 10; exec python3 -m slave 127.0.0.1:{port} -n 1")
    try:
        program.ends()
        if program.process.returncode == 0:  # else not even the agent can work, on this version of Python
            text = r"parallel: slave 0 \(started by hand on \S+\) is given up: its process cannot be started: .*ulimit"
            eventually(lambda: re.search(text, caplog.text), 60, "a line that says so")
    finally:
        program.kill()

"""Whole scripts as users write them: __main__, modules beside it, no guard, a session, a fork."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import children
from tests.support.processes import of_all
from tests.support.programs import Program
from tests.support.waiting import eventually
from tests.whole.conftest import MAIN, OPENING, Run

# Python 3.12 and later warn of a fork of a process that has threads
FORKING = OPENING + "import warnings\nwarnings.simplefilter('ignore')\n" + MAIN


def test_functions_and_classes_of_the_script_itself(run: Run) -> None:
    program = run(
        OPENING
        + """
class Point:
    def __init__(self, x): self.x = x
    def __call__(self, offset): return Point(self.x + offset)
class Trouble(Exception): pass
def setup(): return 10
def fail(offset): raise Trouble("here")
"""
        + MAIN
        + """
        c = m.get_context(setup)
        for x in range(3):
            c.add_task(Point(x))
        points = list(c.get_results_unordered())
        print(sorted(p.x for p in points), all(type(p) is Point for p in points))
        c.add_task(fail)
        try:
            list(c.get_results_unordered())
        except parallel.RemoteError as error:
            print(type(error.exc) is Trouble, error.type_name)
"""
    )
    assert program.ends() == 0, program.err
    assert program.out == "[10, 11, 12] True\nTrue Trouble\n"
    assert program.complaints == ""


def test_modules_beside_the_script_the_folder_and_the_path(run: Run, own_folder: Path) -> None:
    (own_folder / "beside.py").write_text("import os, sys\ndef look(): return os.getcwd(), sys.argv[1:]\n")
    (own_folder / "far").mkdir()
    (own_folder / "far" / "remote.py").write_text("def one(): return 1\n")
    program = run(
        OPENING
        + "import beside\nsys.path.append(os.path.abspath('far'))\nimport remote\n"
        + MAIN
        + """
        c = m.get_context()
        c.add_task(beside.look)
        print(*c.get_results_unordered())
        c.add_task(remote.one)
        print(*c.get_results_unordered())
""",
        "an argument",
    )
    assert program.ends() == 0, program.err
    assert program.out == f"({str(own_folder)!r}, ['an argument'])\n1\n"


def test_a_file_in_the_folder_named_like_a_library_module_does_no_harm(run: Run, own_folder: Path) -> None:
    for name in ("json", "uuid", "argparse", "slave"):
        (own_folder / f"{name}.py").write_text("raise SystemExit('the wrong module was imported')\n")
    program = run(
        "import sys\nhere, sys.path[:] = sys.path[0], sys.path[1:]\nimport parallel\nsys.path.insert(0, here)\n"
        + MAIN
        + "        c = m.get_context()\n        c.add_task(dict)\n        print(*c.get_results_unordered())\n"
    )
    assert program.ends() == 0, program.err
    assert program.out == "{}\n"


def children_of(program: Program) -> list[str]:
    """Processes that still belong to the program's session, or whose parent it was."""
    texts = (text for _, text in of_all("stat"))
    return [text for text in texts if int(text.rsplit(")", 1)[1].split()[3]) == program.process.pid]


def test_a_script_that_is_not_guarded(run: Run) -> None:
    program = run(
        OPENING
        + """
def task(): return 1
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context()
c.add_task(task)
try:
    list(c.get_results_unordered())
except parallel.RemoteError as error:
    print(error)
"""
    )
    assert program.ends() == 0, program.err
    assert "Manager() was called while a slave was importing" in program.out
    assert "belongs under: if __name__ == '__main__':" in program.out
    eventually(lambda: not children_of(program), what="the end of what it had started")


def test_a_script_that_is_not_guarded_and_takes_its_tasks_from_a_module(run: Run) -> None:
    program = run(
        OPENING
        + """
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context()
c.add_task(os.getcwd)
print(len(list(c.get_results_unordered())))
"""
    )
    assert program.ends() == 0, program.err
    assert program.out == "1\n"


def test_python_dash_m(own_folder: Path) -> None:
    package = own_folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").write_text("BASE = 40\n")
    text = "from .other import BASE\ndef task(): return BASE + 2\n" + OPENING + MAIN
    text += "        c = m.get_context()\n        c.add_task(task)\n        print(*c.get_results_unordered())\n"
    (package / "job.py").write_text(text)
    program = Program(sys.executable, "-m", "package.job", cwd=own_folder)
    assert program.ends() == 0, program.err
    assert program.out == "42\n"


@pytest.mark.parametrize("how", ["argument", "standard input"])
def test_functions_of_a_session_are_refused_at_once(own_folder: Path, how: str) -> None:
    text = """
import sys
sys.modules["cloudpickle"] = None
import parallel
def task(): return 1
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context()
for refused in (lambda: c.add_task(task), lambda: m.get_context(task)):
    try:
        refused()
    except parallel.UnpicklableError as error:
        print(error)
c.add_task(dict)
print(list(c.get_results_unordered()))
"""
    if how == "argument":
        program = Program(sys.executable, "-c", text, cwd=own_folder)
    else:
        (own_folder / "text").write_text(text)
        program = Program("/bin/sh", "-c", f"{sys.executable} < text", cwd=own_folder)
    assert program.ends() == 0, program.err
    first, second, third = program.out.splitlines()
    assert first.startswith("the task refers to something defined in this session, which has no file")
    assert second.startswith("the setup refers to something defined in this session")
    assert third == "[{}]"


def test_a_notebook_keeps_its_stdout_its_exit_and_its_random_numbers(run: Run) -> None:
    program = run(
        """
import atexit, io, random, signal, sys
import parallel
if __name__ == '__main__':
    real, sys.stdout = sys.stdout, io.StringIO()
    fake = sys.stdout
    random.seed(5)
    state, handlers = random.getstate(), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    for _ in range(2):  # a cell that is run again
        m = parallel.Manager()
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_task(dict)
        assert list(c.get_results_unordered()) == [{}]
        try:
            m.get_context("not callable")
        except parallel.InputTypeError:
            pass
        m.shutdown()
    assert sys.stdout is fake and fake.getvalue() == ''
    assert random.getstate() == state
    assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    print('still here', file=real)
"""
    )
    assert program.ends() == 0, program.err
    assert program.out == "still here\n" and program.complaints == ""


def test_what_slaves_print_goes_to_their_output_files(run: Run, own_folder: Path) -> None:
    program = run(
        OPENING
        + "def talk():\n    print('to stdout')\n    print('to stderr', file=sys.stderr)\n"
        + "    os.system('echo from a child')\n"
        + "if __name__ == '__main__':\n"
        + "    os.mkdir('logs')\n"
        + "    with parallel.Manager(output='logs/of %d') as m:\n"
        + "        m.add_slave(parallel.LocalSlave())\n"
        + "        c = m.get_context()\n        c.add_task(talk)\n        list(c.get_results_unordered())\n"
    )
    assert program.ends() == 0, program.err
    assert program.out == "" and program.complaints == ""
    lines = (own_folder / "logs" / "of 0").read_text().splitlines()
    assert [line for line in lines if not line.startswith("slave: ")] == ["to stdout", "to stderr", "from a child"]


def test_a_fork_of_the_users_program_harms_nothing(run: Run) -> None:
    program = run(
        FORKING
        + """
        c = m.get_context()
        c.add_task(dict)
        print(*c.get_results_unordered(), flush=True)
        child = os.fork()
        if not child:
            try:
                c.add_task(dict)
                m.get_context()
            except parallel.ManagerClosed as error:
                print(str(error).replace(str(os.getppid()), 'PARENT'), flush=True)
            sys.exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        c.add_task(list)
        print(*c.get_results_unordered())
"""
    )
    assert program.ends() == 0, program.err
    assert program.out.splitlines() == [
        "{}",
        "this manager belongs to process PARENT, of which this one is a fork",
        "0",
        "[]",
    ]
    assert program.complaints == ""


def test_front_ends_that_were_used_before_a_fork_are_refused_in_it_and_work_on_in_its_parent(run: Run) -> None:
    program = run(
        FORKING
        + """
        c = m.get_context()
        e, p = parallel.Executor(manager=m), parallel.Pool(manager=m)
        print(e.submit(abs, -1).result(), p.map(abs, [-2]), c.submit(abs, -3).result(), flush=True)
        c.add_task(dict)
        child = os.fork()
        if not child:
            for call in (
                lambda: e.submit(abs, -1), lambda: p.map(abs, [-2]), lambda: c.submit(abs, -3),
                lambda: next(p.imap(abs, [-2])), lambda: next(c.get_results_unordered()), lambda: m.wait_for_slaves(1),
            ):
                try:
                    print(call())
                except parallel.ManagerClosed as error:
                    print('of which this one is a fork' in str(error), flush=True)
            e.shutdown()
            p.close()
            p.join()
            sys.exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        print(e.submit(abs, -1).result(), p.map(abs, [-2]), *c.get_results_unordered())
        e.shutdown()
        p.terminate()
"""
    )
    assert program.ends() == 0, program.err
    assert program.out.splitlines() == ["1 [2] 3", *["True"] * 6, "0", "1 [2] {}"]
    assert program.complaints == ""


def test_waiting_is_told_on_stderr_in_one_line(run: Run) -> None:
    program = run(
        OPENING
        + """
import parallel.core.patience as patience
patience.FIRST_WORD = 0.2
if __name__ == '__main__':
    m = parallel.Manager(port=0)
    c = m.get_context()
    c.add_task(dict)
    list(c.get_results_unordered())
"""
    )
    program.says("waiting: 1 task left; no slave is connected; slaves may join by hand\n")
    first, second, third = program.err.splitlines()[:3]
    assert first.startswith("parallel: slaves may join; on another machine run: python3 -c ")
    assert second.startswith("parallel: it asks there for a token; ")
    assert third.startswith("parallel: waiting: ")
    assert program.out == ""


def test_no_child_of_the_tests_is_left() -> None:
    assert not [one for one in children() if "slave" in one]

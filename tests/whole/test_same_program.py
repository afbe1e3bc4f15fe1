"""What worked on the master works on a slave: the same modules in the same order, the same flags, the same __main__."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel import program
from slave.imported_files import stamp_of
from tests.support.programs import Program, pythons
from tests.support.users import shared_folder
from tests.whole.conftest import MAIN, OPENING, Run

ONE = """
        c = m.get_context()
        c.add_task(task)
        print(*c.get_results_unordered())
"""
TASK = "def task(): return 42\n"


def out_of(program: Program, *, told: bool = False) -> str:
    """What the program printed, after a good end; ``told``: on stderr that a slave could not rebuild a task."""
    assert program.ends(60) == 0, program.err
    assert program.complaints == "" or (told and "cannot do task" in program.err), program.err
    return program.out


# -- sys.path


@pytest.mark.parametrize("place", ["append", "insert"])
def test_a_module_is_shadowed_on_the_slave_where_it_is_on_the_master(run: Run, own_folder: Path, place: str) -> None:
    (own_folder / "lib").mkdir()
    (own_folder / "lib" / "statistics.py").write_text("def mean(data): return 'mine'\n")
    how = "append(lib)" if place == "append" else "insert(0, lib)"
    program = run(
        OPENING
        + f"lib = os.path.abspath('lib')\nsys.path.{how}\n"
        + "def task():\n    import statistics\n    return statistics.mean([1, 3])\n"
        + MAIN
        + "        print(task())\n"
        + ONE
    )
    assert out_of(program) == ("2\n2\n" if place == "append" else "mine\nmine\n")


def test_the_checkout_on_the_path_hides_no_folder_of_the_users(run: Run, own_folder: Path) -> None:
    for name in ("tools", "tests"):
        (own_folder / name).mkdir()
        (own_folder / name / "helper.py").write_text(f"def who(): return 'my {name}'\n")
    program = run(
        OPENING
        + "from tools import helper\nimport tests.helper\n"
        + "def task(): return helper.who(), tests.helper.who()\n"
        + MAIN
        + ONE
    )
    assert out_of(program) == "('my tools', 'my tests')\n"


def test_folder_path_and_environment_are_those_of_the_time_when_slaves_start(run: Run, own_folder: Path) -> None:
    (own_folder / "lib").mkdir()
    (own_folder / "lib" / "late.py").write_text(
        "import os, sys\ndef where(): return os.getcwd(), os.environ['LATE'], sys.getrecursionlimit()\n"
    )
    program = run(
        OPENING
        + MAIN
        + """
        os.chdir('lib')
        sys.path.append(os.getcwd())
        os.environ['LATE'] = 'yes'
        sys.setrecursionlimit(4321)
        import late
        c = m.get_context()
        c.add_task(late.where)
        print(*c.get_results_unordered())
"""
    )
    assert out_of(program) == f"({str(own_folder / 'lib')!r}, 'yes', 4321)\n"


def test_slaves_that_run_find_what_is_added_to_the_path_later(run: Run, own_folder: Path) -> None:
    for name in ("one", "two"):
        (own_folder / name).mkdir()
        (own_folder / name / f"in_{name}.py").write_text("import os\ndef look(): return __name__, os.getpid()\n")
    program = run(
        OPENING
        + """
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_task(os.getpid)
        for pid in c.get_results_unordered():
            sys.path.append(os.path.abspath('one'))
            import in_one
            c.add_task(in_one.look)
            break
        print(*(name for name, other in c.get_results_unordered() if other == pid))
        sys.path.append(os.path.abspath('two'))
        import in_two
        c.add_task(in_two.look)
        print(*(name for name, other in c.get_results_unordered() if other == pid))
"""
    )
    assert out_of(program) == "in_one\nin_two\n"


def test_variables_and_folder_reach_slaves_that_are_added_later_and_those_that_run(run: Run) -> None:
    program = run(
        OPENING
        + """
def look(): return os.environ.get('ONE'), os.environ.get('TWO'), os.environ.get('MINE'), os.path.basename(os.getcwd())
def mine(): os.environ['MINE'] = 'set by a task'
if __name__ == '__main__':
    os.environ['ONE'] = '1'
    os.mkdir('deeper')
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        for task in (mine, look):
            c.add_task(task)
            [first] = c.get_results_unordered()
        print(first[:3])
        del os.environ['ONE']
        os.environ['TWO'] = '2'
        os.chdir('deeper')
        m.add_slave(parallel.LocalSlave())
        m.wait_for_slaves(2)
        seen = set()
        while len(seen) < 2:
            for _ in range(10):
                c.add_task(look)
            seen |= set(c.get_results_unordered())
        print(sorted(seen, key=str))
"""
    )
    found = "[(None, '2', 'set by a task', 'deeper'), (None, '2', None, 'deeper')]\n"
    assert out_of(program) == "('1', None, 'set by a task')\n" + found


OTHERS = [(version, path) for version, path in pythons() if version != "{}.{}".format(*sys.version_info)]


@pytest.mark.skipif(not OTHERS, reason="needs another version of Python")
def test_packages_for_the_masters_version_shadow_nothing_in_another(run: Run, own_folder: Path) -> None:
    """As on a cluster whose PYTHONPATH leads to what was installed for one version."""
    packages = own_folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    packages.mkdir(parents=True)
    (packages / "statistics.py").write_text("def mean(data): return 'for another version'\n")
    (packages / "only_there.py").write_text("def look():\n    import statistics\n    return statistics.mean([1, 3])\n")
    program = run(
        OPENING
        + f"sys.path.insert(1, {str(packages)!r})\nimport only_there\n"
        + MAIN.replace("Manager()", f"Manager(python={OTHERS[0][1]!r})")
        + ONE.replace("(task)", "(only_there.look)")
    )
    assert out_of(program) == "2\n"


# -- flags


FLAGS = (
    "def task(): return __debug__, tuple(sys.flags), sys.warnoptions, sorted(sys._xoptions.items()), "
    "sys.get_int_max_str_digits() if hasattr(sys, 'get_int_max_str_digits') else 0\n"
)


@pytest.mark.parametrize(
    "flags",
    ["-O", "-OO -B -s", "-W ignore -W error::UserWarning", "-X dev", "-X utf8 -X int_max_str_digits=0"],
)
@pytest.mark.parametrize("how", ["this python", "a shell fragment"])
def test_the_interpreters_flags(own_folder: Path, flags: str, how: str) -> None:
    python = "None" if how == "this python" else repr(f"nice {sys.executable}")
    (own_folder / "script.py").write_text(
        OPENING + FLAGS + MAIN.replace("Manager()", f"Manager(python={python})") + "        print(task())\n" + ONE
    )
    program = Program(sys.executable, *flags.split(), "script.py", cwd=own_folder)
    assert program.ends() == 0, program.err
    master, slave = program.out.splitlines()
    assert master == slave


@pytest.mark.parametrize("flag", ["-E", "-I"])
def test_an_interpreter_that_is_isolated(own_folder: Path, flag: str) -> None:
    root = str(Path(__file__).resolve().parents[2])
    (own_folder / "script.py").write_text(
        f"import sys\nsys.path.append({root!r})\n" + OPENING + FLAGS + MAIN + "        print(task())\n" + ONE
    )
    program = Program(sys.executable, flag, "script.py", cwd=own_folder)
    assert program.ends() == 0, program.err
    master, slave = program.out.splitlines()
    assert master == slave


@pytest.mark.parametrize("what", ["sys.frozen = True", "sys.executable = ''", "sys.executable = None"])
def test_a_program_that_is_no_python_says_that_one_must_be_named(run: Run, what: str) -> None:
    program = run(
        OPENING
        + f"""
if __name__ == '__main__':
    python, {what.partition(" = ")[0]} = sys.executable, {what.partition(" = ")[2]}
    with parallel.Manager() as m:
        try:
            m.add_slave(parallel.LocalSlave())
        except parallel.InputError as error:
            print(str(error).replace(python, 'PYTHON'))
    import subprocess
    subprocess._args_from_interpreter_flags = lambda: ['-I']  # a freezer's own, which is not handed on
    with parallel.Manager(python=python) as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_task(functools.partial(eval, "__import__('sys').flags.isolated"))
        print(*c.get_results_unordered())
"""
    )
    first, second = out_of(program).splitlines()
    assert "name a Python for the slaves" in first and "Manager(python='python3')" in first
    assert second == "0"


# -- __main__


def test_the_text_of_its_name_in_data_is_no_reference(own_folder: Path) -> None:
    text = (
        OPENING
        + """
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context(functools.partial(dict, a='__main__'))
c.add_task(functools.partial(max, '', 'pkg/__main__.py', key=len) if False else functools.partial(sorted, ['__main__']))
try:
    print(*c.get_results_unordered())
except parallel.RemoteError as error:
    print(error.type_name)
c = m.get_context()
c.add_task(functools.partial(len, 'pkg/__main__.py, __mp_main__'))
print(*c.get_results_unordered())
m.shutdown()
"""
    )
    program = Program(sys.executable, "-c", text, cwd=own_folder)
    assert out_of(program) == "TypeError\n28\n"


def test_data_does_not_have_a_script_imported(run: Run) -> None:
    program = run(
        "import sys\nprint('runs', file=sys.__stdout__) if __name__ == '__main__' else sys.exit('imported')\n"
        + OPENING
        + MAIN
        + "        c = m.get_context()\n        c.add_task(functools.partial(len, '__main__'))\n"
        + "        print(*c.get_results_unordered())\n"
    )
    assert out_of(program) == "runs\n8\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_manager_in_a_process_of_multiprocessing(run: Run, method: str) -> None:
    program = run(
        OPENING
        + "import multiprocessing\n"
        + "class Point:\n    def __init__(self, x): self.x = x\n    def __call__(self): return Point(self.x + 1)\n"
        + f"""
def work():
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        c = m.get_context()
        c.add_task(Point(41))
        print(*((type(p) is Point, p.x) for p in c.get_results_unordered()))
if __name__ == '__main__':
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join()
"""
    )
    assert out_of(program) == "(True, 42)\n"


def test_an_unguarded_manager_in_a_spawned_process_is_told_where_it_belongs(run: Run) -> None:
    program = run(
        OPENING
        + """
import multiprocessing
m = parallel.Manager(output=None)
if __name__ == '__main__':
    process = multiprocessing.get_context('spawn').Process(target=print)
    process.start()
    process.join()
    m.shutdown()
"""
    )
    assert program.ends() == 0
    assert "while a child of multiprocessing was importing the script" in program.err
    assert "belongs under: if __name__ == '__main__':" in program.err


@pytest.mark.parametrize("named", ["app.pyz", "folder", "package", "./sub/../app.pyz"])
def test_programs_that_are_a_zip_file_a_folder_or_a_package(own_folder: Path, named: str) -> None:
    package = own_folder / "package"
    (own_folder / "sub").mkdir()
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "beside.py").write_text("BASE = 40\n")
    imported = "from .beside import BASE\n" if named == "package" else "from beside import BASE\n"
    text = imported + "def task(): return BASE + 2\n" + OPENING + "os.chdir('/')\n" + MAIN + ONE
    (package / "__main__.py").write_text(text.replace("Manager()", "Manager(output=None)"))
    zipapp.create_archive(package, own_folder / "app.pyz")
    package.rename(own_folder / "folder") if named == "folder" else None
    arguments = ["-m", "package"] if named == "package" else [named]
    assert out_of(Program(sys.executable, *arguments, cwd=own_folder)) == "42\n"


# as IPython's %run does, of which a session may have many, after something has imported multiprocessing
SESSION = """
import multiprocessing, sys, types
for _ in range(2):
    session, sys.modules['__main__'] = sys.modules['__main__'], types.ModuleType('__main__')
    sys.modules['__main__'].__file__ = 'script.py'
    with open('script.py') as file:
        exec(compile(file.read(), 'script.py', 'exec'), vars(sys.modules['__main__']))
    sys.modules['__main__'] = session
"""
LAUNCHERS = {
    "a session": ["-c", SESSION],
    "run_path": ["-c", "import multiprocessing, runpy; runpy.run_path('script.py', run_name='__main__')"],
    "run_module": ["-c", "import runpy; runpy.run_module('script', run_name='__main__', alter_sys=True)"],
    "run_module beside": ["-c", "import runpy; runpy.run_module('script', run_name='__main__')"],
    "cProfile": ["-m", "cProfile", "-o", "profile", "script.py"],
    "cProfile -m": ["-m", "cProfile", "-o", "profile", "-m", "script"],
    "trace": ["-m", "trace", "--count", "-C", "counts", "--ignore-dir=/", "script.py"],
    "pdb": ["-m", "pdb", "-c", "continue", "-c", "quit", "script.py"],
    "compiled": ["script.pyc"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_scripts_that_other_programs_run(own_folder: Path, launcher: str) -> None:
    (own_folder / "script.py").write_text(
        OPENING
        + "class Point:\n    def __init__(self, x): self.x = x\n"
        + "def task(): return Point(7)\ndef fail(): raise Trouble\nclass Trouble(Exception): pass\n"
        + MAIN
        + """
        c = m.get_context()
        c.add_task(task)
        print([(p.x, type(p) is Point) for p in c.get_results_unordered()])
        c.add_task(fail)
        try:
            list(c.get_results_unordered())
        except parallel.RemoteError as error:
            print(type(error.exc) is Trouble)
"""
    )
    if launcher == "compiled":
        code = "import py_compile; py_compile.compile('script.py', 'script.pyc')"
        subprocess.run([sys.executable, "-c", code], cwd=own_folder, check=True)
        (own_folder / "script.py").unlink()
    program = Program(sys.executable, *LAUNCHERS[launcher], cwd=own_folder)
    assert program.ends(60) == 0, program.err
    told = [line for line in program.out.splitlines() if line.startswith(("[", "True", "False"))]
    assert told == ["[(7, True)]", "True"] * (2 if launcher == "a session" else 1)


def test_a_script_on_standard_input_is_found_where_it_is(own_folder: Path) -> None:
    (own_folder / "script.py").write_text(TASK + OPENING + MAIN + ONE)
    program = Program("/bin/sh", "-c", f"{sys.executable} /dev/stdin <script.py", cwd=own_folder)
    assert out_of(program) == "42\n"


@pytest.mark.parametrize("how", ["cat script.py | {} /dev/stdin", "bash -c '{} <(cat script.py)'"])
def test_a_script_that_comes_from_a_pipe_is_told_so(own_folder: Path, how: str) -> None:
    hidden = "import sys\nsys.modules['cloudpickle'] = None\n"  # else it is sent by value: see test_by_value.py
    (own_folder / "script.py").write_text(hidden + TASK + OPENING + MAIN + ONE)
    program = Program("/bin/sh", "-c", how.format(sys.executable), cwd=own_folder)
    assert program.ends() == 1
    assert "which has no file that a slave could import: task. Put it into a module" in program.err


def test_a_task_that_is_defined_under_the_guard(run: Run) -> None:
    program = run(
        OPENING
        + MAIN
        + """
        def task(): return 1
        c = m.get_context()
        for _ in range(2):
            c.add_task(task)
        for _ in range(2):
            try:
                list(c.get_results_unordered())
            except parallel.RemoteError as error:
                print(str(error).splitlines()[0])
"""
    )
    told = out_of(program, told=True).splitlines()
    assert len(told) == 2
    for line in told:
        assert "'task' is not defined in the master's script" in line and "so define 'task' above that" in line


def test_a_module_that_makes_a_manager_when_it_is_imported(run: Run, own_folder: Path) -> None:
    (own_folder / "careless.py").write_text(
        "import os, parallel\nif 'MASTER' not in os.environ: parallel.Manager()\ndef task(): return 1\n"
    )
    program = run(
        OPENING
        + "os.environ['MASTER'] = 'yes'\nimport careless\ndel os.environ['MASTER']\n"
        + MAIN
        + """
        c = m.get_context()
        c.add_task(careless.task)
        try:
            list(c.get_results_unordered())
        except parallel.RemoteError as error:
            print(error.message)
"""
    )
    assert f"while a slave was importing the module {own_folder / 'careless.py'}" in out_of(program, told=True)


def test_a_module_that_asks_the_main_module(run: Run, own_folder: Path) -> None:
    (own_folder / "asks.py").write_text(
        "import __main__, inspect\nFILE, LEVEL = __main__.__file__, __main__.LEVEL\n"
        "def look(): return FILE, LEVEL, __main__.__name__, hasattr(__main__, 'nothing')\n"
        "def change(): __main__.LEVEL += 1; return __main__.level()\n"
    )
    program = run(
        OPENING
        + "LEVEL = 5\ndef level(): return LEVEL\nimport asks\n"
        + MAIN
        + """
        c = m.get_context()
        c.add_task(asks.look)
        print(*c.get_results_unordered())
        c.add_task(asks.change)
        print(*c.get_results_unordered())
"""
    )
    assert out_of(program) == f"({str(own_folder / 'script.py')!r}, 5, '__main__', False)\n6\n"


def test_a_script_that_cannot_be_imported_costs_tasks_of_modules_nothing(run: Run) -> None:
    program = run(
        OPENING
        + "if __name__ != '__main__': os.system('echo imported >>log'); raise KeyError('no')\n"
        + "def task(): return 1\n"
        + MAIN.replace("        m.add_slave(parallel.LocalSlave())\n", "", 1)
        + """
        c = m.get_context()
        for one in (task, dict, task):
            c.add_task(one)
        told = []
        while len(told) < 3:
            try:
                told += list(c.get_results_unordered())
                break
            except parallel.RemoteError as error:
                told.append(error.type_name.rpartition('.')[2])
        with open('log') as log:
            print(told, log.read().count('imported'))
"""
    )
    assert out_of(program, told=True).split("] ")[1] == "1\n"
    assert program.out.count("MainUnavailable") == 2


def test_processes_that_a_task_spawns_find_the_script(run: Run) -> None:
    program = run(
        OPENING
        + "import multiprocessing\ndef double(x): return 2 * x\n"
        + "def task():\n    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        + "        return pool.map(double, range(3))\n"
        + MAIN
        + ONE
    )
    assert out_of(program) == "[0, 2, 4]\n"


# -- code that changes


NOTEBOOK = """
import importlib, os, sys
import parallel
sys.path.insert(0, os.getcwd())
sys.dont_write_bytecode = True
def edit(name, text):
    with open(name + '.new', 'w') as file:
        file.write(text + '#' * edit.count)  # of another size each time, should the clock of the file system be coarse
    os.replace(name + '.new', name)  # a process that is being started may be reading it
    edit.count += 1
edit.count = 0
edit('helper.py', 'X = 0\\n')
TEXT = 'import helper, os\\ndef f(*got): return helper.X, got, os.getpid()\\ndef setup(): return helper.X\\n'
edit('module.py', TEXT)
import module, helper
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context(module.setup)
def result():
    c.add_task(module.f)
    [found] = c.get_results_unordered()
    return found
"""
RELOADS = {
    "the module": (
        "edit('module.py', 'import os\\ndef f(*got): return %d, got, os.getpid()\\ndef setup(): return 0\\n')",
        "importlib.reload(module)",
    ),
    "what it imports": ("edit('helper.py', 'X = %d\\n')", "importlib.reload(helper)"),
    "import after removal": (
        "edit('helper.py', 'X = %d\\n')",
        "del sys.modules['helper'], sys.modules['module']; import helper, module",
    ),
}


@pytest.mark.parametrize("what", RELOADS)
def test_code_that_was_loaded_anew_runs_on_slaves_that_had_the_old_one(run: Run, what: str) -> None:
    edit, reload = RELOADS[what]
    text = NOTEBOOK + "first = result()\nassert first[:2] == (0, (0,)), first\nassert result() == first\n"
    for number in (1, 2, 3):
        text += edit % number + "\n" + reload + "\nnew = result()\n"
        text += f"assert new[0] == {number} and new[2] != first[2], new\nassert result() == new\nfirst = new\n"
    program = run(text + "m.shutdown()\nprint('done')\n")
    assert out_of(program) == "done\n"


ONLY_THERE = """
import importlib, os, sys, time
import parallel
{session}
def edit(file, text):
    with open(file, 'w') as opened: opened.write(text)
edit('deep.py', 'X = 0\\n')
edit('module.py', 'import os\\ndef f():\\n    import deep\\n    return deep.X, os.getpid()\\n')
import module
m = parallel.Manager()
m.add_slave(parallel.LocalSlave())
c = m.get_context()
def result():
    c.add_task(module.f)
    [found] = c.get_results_unordered()
    return found
first = result()
assert first[0] == 0 and result() == first
edit('deep.py', 'X = 10\\n')
print('then', result()[0])
m.shutdown()
"""


@pytest.mark.parametrize(("session", "then"), [("sys.ps1 = '>>> '", 10), ("", 0)])
def test_code_that_only_slaves_import_is_new_in_a_session_and_what_it_was_in_a_program(
    run: Run, session: str, then: int
) -> None:
    """A session goes on after an edit; a program is what it was when it began."""
    program = run(ONLY_THERE.format(session=session))
    assert out_of(program) == f"then {then}\n"


def test_code_that_is_loaded_anew_in_the_loop_over_results(run: Run) -> None:
    program = run(
        NOTEBOOK
        + """
c.add_task(module.f)
seen = []
for x, given, pid in c.get_results_unordered():
    seen.append(x)
    if len(seen) < 6:
        edit('helper.py', f'X = {len(seen)}\\n')
        importlib.reload(helper)
        c.add_task(module.f)
m.shutdown()
print(seen)
"""
    )
    assert out_of(program) == "[0, 1, 2, 3, 4, 5]\n"


def test_code_that_is_edited_and_not_loaded_here_changes_nothing(run: Run) -> None:
    program = run(
        NOTEBOOK
        + """
first = result()
edit('helper.py', 'X = 1\\n')
assert result() == first
edit('helper.py', 'X = 0\\n')
importlib.reload(helper)
new = result()
importlib.reload(helper)
assert result() == new, 'loaded again and not edited: the same process will do'
m.shutdown()
print('done')
"""
    )
    assert out_of(program) == "done\n"


def test_code_that_is_edited_is_told_when_a_slave_comes_that_may_import_it(run: Run) -> None:
    """Its results would be of other code than those of the other slaves, in silence."""
    program = run(
        NOTEBOOK
        + """
first = result()
edit('helper.py', 'X = 1\\n')
os.utime('helper.py', (1e9, 1e9))  # long before the next slave joins, whatever clock stamps files
for n in (2, 3):
    m.add_slave(parallel.LocalSlave())
    m.wait_for_slaves(n)
m.shutdown()
print('done')
"""
    )
    assert program.ends(60) == 0 and program.out == "done\n", program.err
    [line] = program.complaints.splitlines()  # once for each edit
    assert "helper.py was edited after this program had read it: slaves that come from now on, as slave " in line


def test_an_edit_after_a_slave_has_come_is_not_told_however_late_that_is_looked_at(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that looks may stand still at any line, and meanwhile the user edits, and loads that anew."""
    file, looking = own_folder / "edited_later.py", threading.Event()
    file.write_text("X = 0\n")
    monkeypatch.syspath_prepend(str(own_folder))
    importlib.import_module("edited_later")
    watched = program.Program()
    moment = time.monotonic()
    file.write_text("X = 'something else'\n")

    def late(path: str) -> object:
        if path == str(file):
            looking.wait(1.0)
        return stamp_of(path)

    monkeypatch.setattr(program, "stamp_of", late)
    assert watched.edited_files(moment) == []
    assert watched.edited_files(time.monotonic() + 1.0) == [str(file)]
    del sys.modules["edited_later"]


def test_tasks_in_every_state_when_code_changes(run: Run) -> None:
    """Those that run end as they began; those of the same lease that wait are run by a fresh process, none twice."""
    program = run(
        NOTEBOOK
        + """
c = m.get_context()
for turn in range(1, 4):
    for _ in range(300):
        c.add_task(module.f)
    results = c.get_results_unordered()
    got = [next(results)]
    edit('helper.py', f'X = {turn}\\n')
    importlib.reload(helper)
    c.add_task(module.f)
    got += results
    assert len(got) == 301 and {x for x, _, _ in got} <= {turn - 1, turn} and got[-1][0] == turn, got[-1]
assert [s.state for s in m.slaves] == ['idle'], m.slaves
m.shutdown()
print('done')
"""
    )
    assert out_of(program) == "done\n"


def test_code_that_ipythons_autoreload_has_patched_in_its_module(run: Run) -> None:
    program = run(
        NOTEBOOK
        + """
import types
sys.modules['IPython.extensions.autoreload'] = types.ModuleType('IPython.extensions.autoreload')
first = result()
assert result() == first
edit('helper.py', 'X = 1\\n')
helper.X = 1
assert result()[0] == 1
m.shutdown()
print('done')
"""
    )
    assert out_of(program) == "done\n"


def test_a_function_of_a_session_is_refused_after_a_script_that_defined_it_too(own_folder: Path) -> None:
    (own_folder / "script.py").write_text(
        "import parallel\ndef task(): return 'of the script'\nm = parallel.Manager()\n"
    )
    session = SESSION.replace("range(2)", "range(1)").replace(
        "    sys.modules['__main__'] = session\n",
        "    script, sys.modules['__main__'] = sys.modules['__main__'], session\n"
        "m = script.m\ndef task(): return 'of the session'\n"
        "try: m.get_context().add_task(task)\nexcept Exception as error: print(error)\nm.shutdown()\n",
    )
    session = "import sys\nsys.modules['cloudpickle'] = None\n" + session
    program = Program(sys.executable, "-c", session, cwd=own_folder)
    assert "the task refers to something defined in this session" in out_of(program)


# -- what multiprocessing keeps to one program


@pytest.fixture
def their_folder() -> Iterator[str]:
    """For temporary files: a manager of multiprocessing kills a process that takes a second to end, and leaves them."""
    with shared_folder(0o700) as folder:
        yield str(folder)


def test_proxies_of_a_multiprocessing_manager(run: Run, their_folder: str) -> None:
    program = run(
        OPENING
        + "import multiprocessing\ndef put(queue, shared, x): queue.put(x); shared[x] = 2 * x\n"
        + """
if __name__ == '__main__':
    with multiprocessing.Manager() as shared, parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        queue, table = shared.Queue(), shared.dict()
        c = m.get_context()
        for x in range(3):
            c.add_task(functools.partial(put, queue, table, x))
        list(c.get_results_unordered())
        print(sorted(queue.get() for _ in range(3)), dict(table))
""",
        TMPDIR=their_folder,
    )
    assert out_of(program) == "[0, 1, 2] {0: 0, 1: 2, 2: 4}\n"


@pytest.mark.parametrize("how", ["another key", "gone"])
def test_a_proxy_that_a_slave_cannot_use_is_told_as_such(run: Run, their_folder: str, how: str) -> None:
    """As for a slave on another machine, which has neither the key nor the socket."""
    program = run(
        OPENING
        + f"import multiprocessing\nHOW = {how!r}\n"
        + """
if __name__ == '__main__':
    with parallel.Manager() as m:
        m.add_slave(parallel.LocalSlave())
        m.wait_for_slaves(1)
        shared = multiprocessing.Manager()
        queue = shared.Queue()
        if HOW == 'another key':
            multiprocessing.current_process().authkey = b'another'
            other = multiprocessing.Manager()
            queue = other.Queue()
        c = m.get_context()
        task = functools.partial(print, queue)
        if HOW == 'gone':
            shared.shutdown()
        c.add_task(task)
        try:
            list(c.get_results_unordered())
        except parallel.RemoteError as error:
            print(error.type_name, error.message)
""",
        TMPDIR=their_folder,
    )
    assert program.ends() == 0, program.err
    assert program.out.startswith("slave.environment.ProxyUnusable a proxy of a multiprocessing manager came with the")
    assert (
        "Only a LocalSlave(), on the master's machine" in program.out and "BaseManager with an address" in program.out
    )

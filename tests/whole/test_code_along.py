"""The user's code comes along: hosts that share no folder, where there is nothing but Python."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import hosts as bare_hosts
from tests.support.network import TwoHosts, possible
from tests.support.programs import Program, pyenv
from tests.support.terminals import Terminal

NETWORK = pytest.mark.skipif(not possible() or not bare_hosts.possible(), reason="namespaces need root and iproute2")

SCRIPT = """
import sys
import parallel
import beside
from wares import deep
from wares.sub import relative

class Shape:
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side ** 2

def local(n):
    return Shape(n)

def setup():
    return beside.BASE,

def fails(base):
    raise ValueError("here it is")

def in_child(base):
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(deep.number, (3,))

if __name__ == "__main__":
    with parallel.Manager(port=5757) as m:
        print("token", m.make_token(), flush=True)
        c = m.get_context(setup)
        for task in TASKS:
            c.add_task(task)
        while True:
            try:
                for result in c.get_results_unordered():
                    print("result", result if not isinstance(result, Shape) else result.area(), flush=True)
                break
            except parallel.RemoteError as error:
                print("error", error, flush=True)
        print("over", flush=True)
"""
FILES = {
    "beside.py": "BASE = 40\ndef add(base, n=2):\n    return base + n\n",
    "wares/__init__.py": "",
    "wares/deep.py": """
import importlib.resources, inspect, os, sys
def number(n):
    return n + 1
def data(base):
    beside = open(os.path.join(os.path.dirname(__file__), "data", "table.txt")).read()
    if sys.version_info >= (3, 9):
        resource = (importlib.resources.files("wares") / "data" / "table.txt").read_text()
    return [beside, resource, inspect.getsource(number)]
def late(base):
    import room.part
    return room.part.NAME
def raises(base):
    return 1 / 0  # a line to be shown
def compiled(base):
    import wares.quick
def optional(base):
    found = []
    for _ in range(3):
        try:
            import nobody_has_this
        except ImportError as error:
            found.append(str(error))
    return found
""",
    "wares/data/table.txt": "a table",
    "wares/sub/__init__.py": "",
    "wares/sub/relative.py": """
from ..deep import number
from . import other
def f(base):
    return number(other.ONE)
""",
    "wares/sub/other.py": "ONE = 1\n",
    "wares/quick.cpython-311-x86_64-linux-gnu.so": "no library",
    "room/part.py": "NAME = __name__\n",
}


def lay(folder: Path, tasks: str, script: str) -> None:
    """Write the program."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "script.py").write_text(script.replace("TASKS", tasks))


@pytest.fixture
def network() -> Iterator[TwoHosts]:
    with TwoHosts() as made:
        yield made


def run(network: TwoHosts, folder: Path, tasks: str, version: str, runners: int = 1, script: str = SCRIPT) -> str:
    """What the master prints when a bare host of that Python runs the tasks."""
    lay(folder, tasks, script)
    return run_program(network, folder, ["script.py"], version, runners)


def run_program(network: TwoHosts, folder: Path, arguments: list[str], version: str, runners: int = 1) -> str:
    """The same of a program that is there."""
    python = next(iter(pyenv(version)), None)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    master = Program(*network.on("master"), sys.executable, *arguments, cwd=folder)
    try:
        command = master.says(r"on another machine run: (.*)\n").group(1)
        token = master.says(r"token (\S+)\n").group(1)
        with Terminal(bare_hosts.bare(network, "slave", python, f"{command} -n {runners}")) as terminal:
            terminal.shows(r"(?s)paste the token", 60)
            terminal.type(token + "\n")
            terminal.shows("connected: ", 60)
            master.says("over\n", 120)
            assert master.ends() == 0, master.err
            assert terminal.ends() == 0
    finally:
        master.kill()
    return master.out


@NETWORK
@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_what_the_script_imports_is_there(network: TwoHosts, own_folder: Path, version: str) -> None:
    names = "deep.data relative.f beside.add local deep.late in_child deep.optional deep.raises fails deep.compiled"
    tasks = "[" + ", ".join(names.split()) + "]"
    out = run(network, own_folder, tasks, version)
    assert "result ['a table', 'a table', 'def number(n):\\n    return n + 1\\n']" in out
    assert "result 2\n" in out and "result 42\n" in out and "result 1600\n" in out and "result 4\n" in out
    assert "result room.part\n" in out
    assert "return 1 / 0  # a line to be shown" in out and 'raise ValueError("here it is")' in out
    told = (
        r"wares.quick is a compiled extension module, and such are not sent; .*/wares/__init__.py. Install it on \S+ "
    )
    assert re.search(told + rf"for its Python {version}\S*: \S+ -m pip install wares", out), out


LARGE = """
import functools, hashlib, os, tempfile, time
import parallel
from heavy import digest

def meet(where): # until all four runners have come: none does two tasks and leaves another one out
    folder = os.path.join(tempfile.gettempdir(), where)
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, str(os.getpid())), "w").close()
    until = time.monotonic() + 60
    while len(os.listdir(folder)) < 4 and time.monotonic() < until:
        time.sleep(0.01)

def setup(data):
    return hashlib.sha256(data).hexdigest(), digest()

def work(mine, theirs):
    meet("work")
    return os.getpid(), mine, theirs

def mapped(data, n):
    meet("mapped")
    return os.getpid(), len(data) + n

if __name__ == "__main__":
    data = os.urandom(SIZE)
    with parallel.Manager(port=5757) as m:
        print("token", m.make_token(), flush=True)
        m.wait_for_slaves(4)
        c = m.get_context(functools.partial(setup, data))
        for _ in range(4):
            c.add_task(work)
        found = list(c.get_results_unordered())
        assert {one[1:] for one in found} == {(hashlib.sha256(data).hexdigest(), digest())}, found
        print("runners", len({one[0] for one in found}), flush=True)
        found = list(m.get_context().map(functools.partial(mapped, data), range(8)))
        assert [size for _, size in found] == [len(data) + n for n in range(8)]
        print("runners", len({one[0] for one in found}), flush=True)
        print("over", flush=True)
"""


@NETWORK
@pytest.mark.slow
def test_what_is_large_crosses_the_network_once_for_a_machine(network: TwoHosts, own_folder: Path) -> None:
    """A package with 8 MB of data, and 12 MB that setup gets, and again that the function of a map is bound to."""
    package, setup = 8 << 20, 12 << 20
    (own_folder / "heavy").mkdir()
    (own_folder / "heavy/data.bin").write_bytes(os.urandom(package))
    (own_folder / "heavy/__init__.py").write_text(
        "import hashlib, importlib.resources\n"
        "def digest():\n"
        "    return hashlib.sha256((importlib.resources.files('heavy') / 'data.bin').read_bytes()).hexdigest()\n"
    )
    before = sent(network)
    out = run(network, own_folder, "", "3.13", 4, LARGE.replace("SIZE", str(setup)))
    crossed = sent(network) - before
    assert out.count("runners 4") == 2, out
    assert package + 2 * setup < crossed < 1.15 * (package + 2 * setup), f"{crossed} bytes crossed"


def sent(network: TwoHosts) -> int:
    """Bytes that the master's host has sent."""
    command = [*network.on("master"), "cat", "/proc/net/dev"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (line,) = [line for line in text.splitlines() if line.strip().startswith("eth0:")]
    return int(line.split()[9])


UNGUARDED = """
import parallel
def task(): return 1
m = parallel.Manager(port=5757)
print("token", m.make_token(), flush=True)
c = m.get_context()
c.add_task(task)
try:
    list(c.get_results_unordered())
except parallel.RemoteError as error:
    print("error", error, flush=True)
m.shutdown()
print("over", flush=True)
"""


@NETWORK
@pytest.mark.slow
def test_a_script_without_a_guard_is_told_the_line_to_add(network: TwoHosts, own_folder: Path) -> None:
    out = run(network, own_folder, "", "3.9", script=UNGUARDED)
    assert "A slave imports the script to find the tasks in it" in out, out
    assert "belongs under: if __name__ == '__main__':" in out


@NETWORK
@pytest.mark.slow
@pytest.mark.parametrize("way", ["zipapp", "-m package"])
def test_the_main_program_of_a_package_or_a_zip_file(network: TwoHosts, own_folder: Path, way: str) -> None:
    lay(own_folder / "job", "[local, beside.add, deep.data, relative.f]", SCRIPT)
    (own_folder / "job/script.py").rename(own_folder / "job/__main__.py")
    shutil.rmtree(own_folder / "job/room")
    if way == "zipapp":
        arguments = ["job.pyz"]
        zipapp.create_archive(own_folder / "job", own_folder / "job.pyz")
        shutil.rmtree(own_folder / "job")
    else:
        arguments = ["-m", "job"]
        (own_folder / "job/__init__.py").write_text("import os, sys\nsys.path.append(os.path.dirname(__file__))\n")
    out = run_program(network, own_folder, arguments, "3.9")
    assert "result 1600\n" in out and "result 42\n" in out and "result 2\n" in out, out
    assert "result ['a table', 'a table'," in out, out


HERE = "{}.{}".format(*sys.version_info[:2])


@NETWORK
@pytest.mark.slow
def test_cloudpickle_travels_too(network: TwoHosts, own_folder: Path) -> None:
    if importlib.util.find_spec("cloudpickle") is None:
        pytest.skip("no cloudpickle for this Python")
    out = run(network, own_folder, "[lambda base: base + 3, lambda base: Shape(base)]", HERE)
    assert "result 43\n" in out and "result 1600\n" in out, out


@NETWORK
@pytest.mark.slow
def test_a_slave_of_another_python_says_so_before_anything_runs(network: TwoHosts, own_folder: Path) -> None:
    if importlib.util.find_spec("cloudpickle") is None:
        pytest.skip("no cloudpickle for this Python")
    out = run(network, own_folder, "[lambda base: base + 3, beside.add]", "3.9")
    assert f"<lambda> was sent by value by a master of Python {HERE}, and this slave is one of Python 3.9" in out, out
    assert "result 42\n" in out


@NETWORK
@pytest.mark.slow
def test_nothing_is_sent_if_that_is_asked_for(network: TwoHosts, own_folder: Path) -> None:
    script = SCRIPT.replace("port=5757", "port=5757, ship=False").replace("get_context(setup)", "get_context()")
    out = run(network, own_folder, "[deep.number]", "3.9", script=script)
    assert "No module named 'wares'" in out and "install it there" in out, out

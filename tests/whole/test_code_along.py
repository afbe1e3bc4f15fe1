"""The user's code comes along: hosts that share no folder, where there is nothing but Python."""

from __future__ import annotations

import re
import sys
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


def lay(folder: Path, tasks: str) -> None:
    """Write the program."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "script.py").write_text(SCRIPT.replace("TASKS", tasks))


@pytest.fixture
def network() -> Iterator[TwoHosts]:
    with TwoHosts() as made:
        yield made


def run(network: TwoHosts, folder: Path, tasks: str, version: str, runners: int = 1) -> str:
    """What the master prints when a bare host of that Python runs the tasks."""
    python = next(iter(pyenv(version)), None)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    lay(folder, tasks)
    master = Program(*network.on("master"), sys.executable, "script.py", cwd=folder)
    try:
        command = master.says(r"on another machine run: (.*)\n").group(1)
        token = master.says(r"token (\S+)\n").group(1)
        with Terminal(bare_hosts.bare(network, "slave", python, f"{command} -n {runners}")) as terminal:
            terminal.shows(r"(?s)paste the token", 60)
            terminal.type(token + "\n")
            terminal.shows("connected: ", 30)
            master.says("over\n", 60)
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

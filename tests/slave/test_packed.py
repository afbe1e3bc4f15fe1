"""How the package finds its modules in slave.pyz; whole programs of it are in tests/launch/test_slave_file.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies

from parallel.launch.slave_file import slave_file
from slave.packed import PackedModules, packed, unpacked
from tests.support.programs import pythons


@given(strategies.dictionaries(strategies.from_regex(r"[a-z_]\w*", fullmatch=True), strategies.binary()))
def test_what_is_packed_is_found_again(sources: dict[str, bytes]) -> None:
    assert unpacked(packed(sources)) == sources
    assert packed(sources) == packed(dict(reversed(sources.items())))


def test_it_finds_its_own_modules_and_no_others() -> None:
    finder = PackedModules("slave", "/there/slave.pyz/slave", {"one": "é = 1\n".encode()})
    for name in ("one", "slave", "slave.two", "slave.one.two", "other.one"):
        assert finder.find_spec(name) is None
    spec = finder.find_spec("slave.one", ["/there/slave.pyz/slave"])
    assert spec is not None and spec.parent == "slave" and spec.has_location and not spec.submodule_search_locations
    assert spec.origin == "/there/slave.pyz/slave/one.py"
    loader = spec.loader
    assert loader is not None and loader.get_source("slave.one") == "é = 1\n"  # type: ignore[attr-defined]
    with pytest.raises(OSError):
        loader.get_data("/there/slave.pyz/slave/two.py")  # type: ignore[attr-defined]


IN_SLAVE_PYZ = """
import inspect, linecache, multiprocessing, os, sys, traceback
sys.path.insert(0, sys.argv[1])
import slave.cpus, slave.limits, slave.packed
file = os.path.join(sys.argv[1], "slave", "limits.py")
assert slave.limits.__file__ == slave.limits.__spec__.origin == file, slave.limits.__file__
assert slave.limits.__package__ == "slave" and slave.__path__ == [os.path.dirname(file)], slave.__path__
assert inspect.getsource(slave.limits.no_memory).startswith("def no_memory("), inspect.getsource(slave.limits)
child = multiprocessing.get_context("spawn").Process(target=slave.cpus.usable_cpus)
child.start()
child.join()
assert child.exitcode == 0
os.unlink(sys.argv[1])
import slave.next_master
try:
    slave.packed.unpacked(b"a b\\n")
except ValueError:
    text = traceback.format_exc()
assert "slave.pyz/slave/packed.py" in text and "    for name, size in zip(" in text, text
"""


@pytest.mark.parametrize(
    ("version", "python"), [("this", sys.executable), *pythons()], ids=["this", *(version for version, _ in pythons())]
)
def test_in_slave_pyz(own_folder: Path, version: str, python: str) -> None:
    """Files have names, tracebacks lines, children the modules, and nothing is missed when slave.pyz is gone."""
    file = own_folder / "slave.pyz"
    file.write_bytes(slave_file())
    command = [python, "-I", "-W", "error", "-c", IN_SLAVE_PYZ, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr

"""The order of sys.path on a slave, as data."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from slave.search_path import BOUND, LIBRARY, OWN, PACKAGES, Entry, kind_of, own_entries, search_path
from tests.support.programs import environment, pythons

SLAVE: list[Entry] = [
    ("/clone", OWN),
    ("/py312/lib", LIBRARY),
    ("/py312/lib/dynload", LIBRARY),
    ("/py312/site", PACKAGES),
    ("/py312/pth", OWN),
]
LIB, SITE = ["/py312/lib", "/py312/lib/dynload"], ["/py312/site"]


def test_entries_stand_where_they_stand_on_the_master() -> None:
    master = [("/script", OWN), ("/py/lib", LIBRARY), ("/between", OWN), ("/py/site", PACKAGES), ("/appended", OWN)]
    path = search_path(master, SLAVE, same=False)
    assert path == ["/script", *LIB, "/between", *SITE, "/appended", "/clone", "/py312/pth"]


def test_an_equal_python_finds_the_masters_packages_too_but_after_all_else() -> None:
    master = [("/script", OWN), ("/py/lib", LIBRARY), ("/py/site", PACKAGES)]
    path = search_path(master, SLAVE, same=True)
    assert path == ["/script", *LIB, *SITE, "/clone", "/py312/pth", "/py/lib", "/py/site"]


@pytest.mark.parametrize("same", [True, False])
def test_packages_of_another_version_shadow_nothing(same: bool) -> None:
    master = [("/script", OWN), ("/cluster/for-311", BOUND), ("/py/lib", LIBRARY), ("/py/site", PACKAGES)]
    path = search_path(master, SLAVE, same)
    if same:
        assert path.index("/cluster/for-311") == 1
    else:
        assert path[-1] == "/cluster/for-311" and path[:3] == ["/script", *LIB]


def test_a_master_without_packages_leaves_the_slave_its_own() -> None:
    assert search_path([("/script", OWN)], SLAVE, same=True) == ["/script", *LIB, *SITE, "/clone", "/py312/pth"]


def test_the_same_interpreter_has_the_very_path_of_the_master() -> None:
    mine = own_entries(sys.path, str(Path.cwd()))
    paths = [path for path, _ in mine]
    again = own_entries(["/elsewhere", *paths], None)
    assert search_path(mine, again, same=True) == [*paths, "/elsewhere"]


def test_kinds(tmp_path: Path) -> None:
    assert kind_of(sysconfig.get_paths()["stdlib"]) == LIBRARY
    assert kind_of(sysconfig.get_paths()["stdlib"] + "/lib-dynload") == LIBRARY
    assert kind_of(sysconfig.get_paths()["purelib"]) == PACKAGES
    assert kind_of(sysconfig.get_paths()["purelib"] + "/some.egg") == PACKAGES
    assert kind_of(str(tmp_path / "mine")) == OWN
    assert kind_of("/opt/cluster/lib/python3.11/site-packages") == BOUND
    assert kind_of("/home/me/python311-notes") == OWN
    installed = tmp_path / "target"
    (installed / "numpy-2.0.dist-info").mkdir(parents=True)
    assert kind_of(str(installed)) == BOUND, "pip install --target: for one version of Python"


def test_what_an_import_passes_by_is_left_out() -> None:
    path = [b"/bytes", Path("/a/path"), 5, None, "", "relative/../lib", "/absolute"]
    found = [entry for entry, _ in own_entries(path, "/here")]
    assert found == ["/bytes"] * (sys.version_info < (3, 11)) + ["/here", "/here/lib", "/absolute"]
    assert [entry for entry, _ in own_entries(["", "lib", "/absolute"], None)] == ["/absolute"]


@pytest.mark.parametrize("python", [sys.executable, *(path for _, path in pythons())])
def test_where_an_interpreter_has_its_library_and_packages(python: str) -> None:
    program = (
        "import sys, sysconfig; from slave.search_path import _PATHS, _interpreters_paths as ours; mine = ours(); "
        "loaded = [one for one in sys.modules if one.startswith('_sysconfigdata')]; theirs = sysconfig.get_paths(); "
        "print(mine == {name: theirs[name] for name in _PATHS}, loaded)"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60, env=environment())
    assert done.stdout == "True []\n", done.stderr

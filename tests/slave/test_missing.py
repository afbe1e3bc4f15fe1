"""What is said of a module that is missing, or that is of another version."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import pytest

from slave import missing
from slave.missing import master_has, missing_module, remedy, shown, version_of


@pytest.fixture
def numpy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An old one, as far as it matters here."""
    module = types.ModuleType("numpy")
    module.__version__ = "1.24.4"  # type: ignore[attr-defined]
    module.__path__ = []
    for name in [name for name in sys.modules if name.startswith("numpy.")]:  # of the one that is installed
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", module)
    return module


def error_of(pickled: bytes) -> BaseException:
    with pytest.raises((ImportError, AttributeError)) as caught:
        pickle.loads(pickled)
    return caught.value


def test_an_array_of_numpy_2_for_numpy_1(numpy: types.ModuleType) -> None:
    error = error_of(b"cnumpy._core.multiarray\n_reconstruct\n.")
    assert missing_module(error) in ("numpy._core", "numpy._core.multiarray")
    told = remedy(error)
    assert "in numpy 1.24.4, which is that of" in told and sys.executable in told and "install the same there" in told


def test_a_module_that_is_not_there_at_all() -> None:
    error = error_of(b"cno_such_module.part\nf\n.")
    assert missing_module(error) == "no_such_module"
    assert remedy(error).startswith(f"No module 'no_such_module' for {sys.executable} (Python ")
    assert "Manager(python='...')" in shown(remedy(error), 300)


def test_a_name_that_an_older_package_lacks(numpy: types.ModuleType) -> None:
    error = error_of(b"cnumpy\nnovelty\n.")
    assert missing_module(error) == "numpy"
    assert "numpy 1.24.4 of " in remedy(error) and "is not the numpy of the master" in remedy(error)


def test_a_name_that_is_not_there_as_later_pythons_say_it(numpy: types.ModuleType) -> None:
    """What loads a pickle says from 3.14 on what any program may, which gets a name wrong itself."""
    with pytest.raises(AttributeError, match="module 'numpy' has no attribute 'novelty'") as its_own:
        numpy.novelty  # noqa: B018
    assert missing_module(its_own.value) == ""
    with pytest.raises(AttributeError, match="module 'numpy' has no attribute 'novelty'") as of_c:
        getattr(numpy, "novelty")  # noqa: B009
    assert missing_module(of_c.value) == "numpy" and "is not the numpy of the master" in remedy(of_c.value)
    arrived = AttributeError("module 'numpy' has no attribute 'novelty'")
    assert missing_module(arrived) == "numpy"


def test_a_name_that_cannot_be_imported(numpy: types.ModuleType) -> None:
    with pytest.raises(ImportError) as caught:
        exec("from numpy import novelty")
    assert missing_module(caught.value) == "numpy" and "numpy 1.24.4" in remedy(caught.value)


def test_a_package_that_could_not_be_loaded_is_not_called_another_version() -> None:
    error = ImportError("wares cannot be had from the master: its files have more than 512 MiB", name="not_loaded")
    assert missing_module(error) == "not_loaded" and remedy(error) == ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        AttributeError("'int' object has no attribute 'y'"),
        AttributeError("Can't get attribute 'f' on <module '__main__' from 'x.py'>"),
        None,
    ],
)
def test_other_errors_are_of_no_module(error: BaseException | None) -> None:
    assert missing_module(error) == ""
    assert error is None or remedy(error) == ""


def test_versions(numpy: types.ModuleType) -> None:
    assert version_of("numpy.linalg") == "numpy 1.24.4"
    assert version_of("pytest") == f"pytest {pytest.__version__}"
    assert version_of("no_such_module") == "" == master_has("") == master_has("no_such_module")
    assert master_has("numpy._core").startswith("the master has numpy 1.24.4 for Python ")


def test_what_the_masters_program_has_made_or_loaded_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """To install it where the slaves are would help nobody."""
    made, loaded = types.ModuleType("made"), types.ModuleType("plugins.one")
    loaded.__file__ = "/lab/plugins/first.py"
    for module in (made, loaded):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert master_has("made").startswith("the master's program has made the module 'made' itself, and there is no file")
    told = master_has("plugins.one")
    assert "has loaded the module 'plugins.one' from /lab/plugins/first.py, which an import does not find" in told
    loaded.__file__ = "/lab/plugins/one.py"
    assert master_has("plugins.one") == master_has("sys") == master_has("zipimport") == ""


def test_what_is_shown_is_one_line_of_bounded_length() -> None:
    assert shown("a\nb\x00c") == "a b c" and len(shown("x" * 5000)) == 900


@pytest.fixture
def other_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs Python 3.8."""
    monkeypatch.setattr(missing, "_master_python", [])
    missing.learn_python((3, 8))


def raised_by(code: str) -> BaseException:
    with pytest.raises(BaseException) as caught:
        exec(compile(code, "module.py", "exec"), {})
    return caught.value


@pytest.mark.parametrize(
    "code",
    [
        "f(:",
        "import dataclasses\n@dataclasses.dataclass(new_option=True)\nclass Some: pass",
        "class Group(NoSuchBuiltin): pass",
        "raise SystemExit('needs another Python')",
        "try:\n    unknown\nexcept NameError as error:\n    raise RuntimeError('no main program') from error",
    ],
)
def test_a_module_that_another_python_cannot_import_is_told_with_both(other_master: None, code: str) -> None:
    told = remedy(raised_by(code))
    assert f"imported by {sys.executable} (Python {sys.version.split()[0]})" in told
    assert "the master's is Python 3.8" in told


def test_what_a_task_raises_while_it_runs_is_not_of_another_python(other_master: None) -> None:
    def fails() -> None:
        raise TypeError("its own")

    with pytest.raises(TypeError) as caught:
        fails()
    assert remedy(caught.value) == ""
    assert remedy(raised_by("import os\nos.environ['NOT_SET_HERE']")) == ""


@pytest.mark.parametrize("pickled", [b"cenum\nNoSuchEnum\n.", b"cbuiltins\nNoSuchGroup\n.", b"cjson.novelty\nf\n."])
def test_nobody_is_told_to_install_a_part_of_python(other_master: None, pickled: bytes) -> None:
    told = remedy(error_of(pickled))
    assert "is a part of Python itself, and the master's is Python 3.8" in told and "install" not in told


def test_a_module_of_the_masters_library_alone(other_master: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "_of_library", set())
    monkeypatch.setattr(missing, "_requirements", {})
    missing.learn("novel_library", "", of_library=True)
    told = remedy(error_of(b"cnovel_library\nf\n."))
    assert "it is a part of Python itself, as the master's Python 3.8 has it" in told and "install" not in told


@pytest.mark.parametrize(
    ("name", "is_package", "file", "told"),
    [
        (
            "wares",
            True,
            "wares/libwares.so",
            "is a compiled file, and such are not sent; the master has wares in /there",
        ),
        ("wares", True, "wares/../table.txt", "table.txt lies beside a module that the master has sent"),
        ("wares", False, "table.txt", "put both into a package"),
        ("wares", True, "wares/table.txt", ""),
        ("wares", True, "../elsewhere.txt", ""),
    ],
)
def test_a_file_that_was_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_package: bool, file: str, told: str
) -> None:
    folder = tmp_path / "digest"
    folder.mkdir()
    monkeypatch.setattr(missing, "_sent", {})
    missing.learn_sent(str(folder), name, is_package, "/there")
    path = f"{folder}/{file}"
    with pytest.raises(OSError) as read:
        Path(path).read_bytes()
    of_linker = OSError(f"{path}: cannot open shared object file: No such file or directory")
    for error in (read.value, *([of_linker] if file.endswith(".so") else [])):
        found = remedy(error)
        assert told in found if told else not found

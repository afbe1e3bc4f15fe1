"""What is said of a module that is missing, or that is of another version."""

from __future__ import annotations

import pickle
import sys
import types

import pytest

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

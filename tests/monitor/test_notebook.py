"""How far a run is, under the cell of a notebook."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import Make
from tests.support.programs import script, without_waiting
from tests.support.tasks import wait_for
from tests.support.waiting import eventually


class Handle:
    """What IPython's `display` returns: shows nothing but raw bundles of text and html."""

    def __init__(self, bundle: dict[str, str]) -> None:
        assert threading.current_thread() is threading.main_thread(), "a thread has no cell"
        self.bundles = [bundle]

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw and set(bundle) == {"text/plain", "text/html"}
        self.bundles.append(bundle)


class FakeShell:
    """A notebook's shell, in its first cell."""

    def __init__(self) -> None:
        self.kernel, self.execution_count = object(), 1


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeShell, list[Handle]]:
    """This program is one: its shell, and what is displayed."""
    shell: FakeShell = FakeShell()
    handles: list[Handle] = []

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        handles.append(Handle(bundle))
        return handles[-1]

    package: Any = ModuleType("IPython")
    package.get_ipython = lambda: shell
    package.display = ModuleType("IPython.display")
    package.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", package.display)
    return shell, handles


@pytest.mark.usefixtures("patient")
def test_it_is_told_under_the_cell_that_asks_for_results(
    make: Make, own_folder: Path, notebook: tuple[FakeShell, list[Handle]], capsys: pytest.CaptureFixture[str]
) -> None:
    shell, handles = notebook
    manager = make(slaves=1)
    context = manager.get_context(label="<b>fits</b>")
    context.add_task(wait_for, str(own_folder / "gate"))
    results = context.get_results_unordered()
    context.get_results_unordered()  # in the same cell
    assert [handle.bundles[0] for handle in handles] == [{"text/plain": "", "text/html": ""}]
    shown = eventually(lambda: handles[0].bundles[1:])[0]
    assert shown["text/plain"].startswith("0 of 1 tasks done (0%)")
    assert '<progress value="0" max="1">' in shown["text/html"]
    (own_folder / "gate").touch()
    list(results)
    shell.execution_count = 2
    eventually(lambda: handles[0].bundles[-1]["text/plain"].startswith("1 of 1 tasks done (100%)"))
    context.add_task(wait_for, str(own_folder / "gate"))
    list(context.get_results_unordered())
    manager.shutdown()
    assert len(handles) == 2 and handles[1].bundles[-1]["text/plain"].startswith("2 tasks done in ")
    assert capsys.readouterr().err == ""


REAL = """
import json, nbclient, nbformat, sys
book = nbformat.v4.new_notebook()
book.cells = [nbformat.v4.new_code_cell(text) for text in (
    "import parallel, time\\ndef nap(n):\\n    time.sleep(0.4)\\n    print('nap', n)\\n    return n",
    "m = parallel.Manager.local(2)\\nprint(sorted(m.get_context().map(nap, range(8))))",
    "m.shutdown()",
)]
nbclient.NotebookClient(book, timeout=120, startup_timeout=120, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in book.cells]))
"""


def test_a_real_notebook(own_folder: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient and ipykernel are not installed")
    pytest.importorskip("ipykernel", reason="nbclient and ipykernel are not installed")
    program = script(own_folder / "notebook.py", REAL, PYTHONWARNINGS="ignore")
    assert program.ends(240) == 0, program.err
    first, second, third = json.loads(program.out)
    texts = {name: [one["text"] for one in second if one.get("name") == name] for name in ("stdout", "stderr")}
    assert not first and "".join(texts["stdout"]) == "[0, 1, 2, 3, 4, 5, 6, 7]\n"  # it may come in two parts
    prints = without_waiting("".join(one["text"] for one in (*second, *third) if one.get("name") == "stderr"))
    assert sorted(prints.split()[3::4]) == list("01234567"), prints
    assert re.search(r"slave [01]: nap ", "".join(texts["stderr"])), "under the cell that waited for it"
    (shown,) = [one["data"]["text/plain"] for one in second if one["output_type"] == "display_data"]
    assert shown.startswith("8 tasks done in "), shown

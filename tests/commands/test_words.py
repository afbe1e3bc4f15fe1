"""The words that a user has to know are told in the same way wherever they are told."""

from __future__ import annotations

import re

import pytest

from parallel.__main__ import WORDS, main
from tests.support.programs import ROOT


def test_help_tells_what_the_words_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.partition("words:")[2].splitlines()
    assert [tuple(line.split(None, 1)) for line in shown if line] == list(WORDS.items())
    assert all(len(line) < 120 for line in shown)


def test_so_does_the_readme() -> None:
    section = (ROOT / "README.md").read_text().partition("## Words\n")[2].partition("\n## ")[0]
    assert re.findall(r"- \*\*(\w+)\*\*: (.*)", section) == list(WORDS.items())

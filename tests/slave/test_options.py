"""The slave program's command line."""

from __future__ import annotations

import pytest

from parallel.__main__ import main
from slave.options import options_of
from slave.token import Token, new_once, reusable

KEY = b"a key that both sides have"
TOKENS = [
    Token(reusable(KEY)).text(),
    Token(new_once(KEY, "run"), [("10.0.0.5", 5757)], "0123456789abcdef").text(),
    "0a" * 32,  # a key, as the master makes it
]


@pytest.mark.parametrize("secret", TOKENS, ids=["reusable", "for once", "key"])
@pytest.mark.parametrize("before", [[], ["--key-file"]])
def test_a_secret_on_a_command_line_is_refused_and_not_shown(
    secret: str, before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options_of([*before, secret])
    with pytest.raises(SystemExit):
        main(["status", *before, secret])
    out, err = capsys.readouterr()
    assert err.count("this is a token or a key, which does not belong on a command line") == 2
    assert out == "" and secret not in err


@pytest.mark.parametrize(
    "text", ["10.0.0.5", "10.0.0.5:", "http://10.0.0.5:5757/a", "10.0.0.5:5757/", "::1:80", "x" * 40]
)
def test_what_is_no_address_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of([text])
    assert f"{text!r} is not HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "20", "-5", "x", "1.5"])
def test_priorities_are_from_1_to_19(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(["--nice", text])
    assert f"{text!r} is not a whole number from 1 to 19" in capsys.readouterr().err

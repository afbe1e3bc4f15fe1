"""What the launchers check of the arguments that users give them."""

from __future__ import annotations

import shlex

from slave.plain_numbers import whole

from ..errors import InputError


def whole_number(n: object, whose: str) -> int:
    """``n``, a number of slaves.  Raises `InputError` if it is none."""
    number = whole(n)
    if number is None or number < 1:
        raise InputError(f"{whose} needs a number of slaves, a whole one from 1 on, not {n!r}")
    return number


def python_text(python: object, whose: str) -> str:
    """``python``, a shell fragment.  Raises `InputError` if it is none."""
    if not isinstance(python, str) or not python.strip() or "\0" in python:
        raise InputError(f"{whose}: python={python!r} is no command line that starts Python, such as 'nice python3'")
    return python


def words_of(options: object, program: str) -> list[str]:
    """The words of a user's own text for a command line.  Raises `InputError` if it cannot be split as a shell does."""
    try:
        if not isinstance(options, str):
            raise ValueError("it is no text")
        return shlex.split(options)
    except ValueError as error:
        raise InputError(f"the options {options!r} are no part of a command line for {program}: {error}") from None

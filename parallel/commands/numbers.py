"""Numbers on command lines, refused in one line that says what is wanted."""

from __future__ import annotations

import argparse

_MOST = 10_000


def number(text: str) -> int:
    """A whole number from 0 on."""
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1 on, of what one starts."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:15]) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MOST:,}")
    return int(text)


def seconds(text: str) -> float:
    """Seconds from 0 on."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")
    return found


def pause(text: str) -> float:
    """Seconds between two looks, from a tenth on."""
    found = seconds(text)
    if not 0.1 <= found <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pause: 0.1 to 86400 seconds")
    return found

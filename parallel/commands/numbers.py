"""Numbers on command lines, refused in one line that says what is wanted."""

from __future__ import annotations

import argparse

from slave.options import seconds

__all__ = ["count", "number", "pause", "seconds"]

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


def pause(text: str) -> float:
    """Seconds between two looks, from a tenth on."""
    found = seconds(text)
    if not 0.1 <= found <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pause: 0.1 to 86400 seconds")
    return found

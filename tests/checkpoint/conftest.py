"""Whole scripts, as in tests/whole."""

from tests.whole.conftest import run

__all__ = ["run"]

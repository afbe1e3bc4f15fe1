"""What tests of what is told of a run may have."""

from __future__ import annotations

import pytest

from tests.support.patient import LIMITS, SECONDS


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Managers wait for the last words of their slaves, and of whoever is told what happened, however busy it is."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, SECONDS)

"""What comes out when listening fails, or is interrupted."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

import parallel
from parallel.service import endpoint


def test_a_timeout_of_the_users_alarm_is_no_failure_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError("too late")

    def interrupted() -> tuple[str, int]:
        signal.raise_signal(signal.SIGALRM)
        raise AssertionError("the handler did not raise")

    before = signal.signal(signal.SIGALRM, too_late)
    try:
        with parallel.Manager(output=None) as manager:
            with monkeypatch.context() as patch, pytest.raises(TimeoutError, match="too late"):
                patch.setattr(endpoint, "_local_address", interrupted)
                list(manager.get_context().get_results_unordered())
            assert list(manager.get_context().get_results_unordered()) == []
    finally:
        signal.signal(signal.SIGALRM, before)

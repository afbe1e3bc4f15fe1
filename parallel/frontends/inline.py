"""Inside a task: what would go to slaves runs in that process, one by one, so that library code works there."""

from __future__ import annotations

import concurrent.futures
from typing import Any, Callable

from slave.inside import in_runner

from ..checks import refuse_while_imported


def inside_task(name: str) -> bool:
    """Whether this process is a slave's that runs a task.

    Raises `Error` in one that imports the script, where ``name`` must not be called at all.
    """
    refuse_while_imported(name)
    return in_runner()


class InlineWork:
    """A `Work` (work.py) without slaves."""

    max_workers = 1
    manager = None
    broken = None

    def __init__(self, setup: Callable[[], object] | None) -> None:
        self._setup = setup

    def submit(
        self, function: Callable[..., Any], args: tuple[object, ...], named: dict[str, object]
    ) -> concurrent.futures.Future[Any]:
        """Call it now; returns a future that is done."""
        if self._setup is not None:
            setup, self._setup = self._setup, None
            setup()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, **named))
        except BaseException as error:  # as a slave would: a call's own affair ends nobody
            future.set_exception(error)
        return future

    def finish(self) -> None:
        """All is done already."""

    def finish_soon(self) -> None:
        """All is done already."""

    def abort(self) -> None:
        """All is done already."""

    def cancel_waiting(self) -> None:
        """All is done already."""

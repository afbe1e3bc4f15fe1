"""Engine: what the launchers must know of a batch system.  The array that uses it is in array.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Callable, NamedTuple, Protocol


class TaskState(NamedTuple):
    """What an engine says of one task of an array."""

    running: bool
    words: str  # "queued: ...", "held: ...", "running on n1"
    error: bool = False  # whether it will not run unless somebody helps


class Piece(NamedTuple):
    """One submitted job array, which is all of a `BatchArray` or, if that is too long for the site, a part of it."""

    job: str
    first: int  # the place in the array of its first task
    tasks: int


Places = Mapping[tuple[str, int], TaskState]  # by job id and task, counted from 0


class Reports(Protocol):
    """What slave programs and jobs report of themselves, in a folder: sooner than the engine says it, and for sure."""

    script: str  # what is submitted
    path: str

    def accepted(self, piece: Piece) -> None:
        """A piece of the array was submitted."""
        ...

    def look(self) -> None:
        """See what is new; all else says what was known at the last look."""
        ...

    def host(self, place: int) -> str | None:
        """Where that slave program was started; None if it was not yet, or waits again."""
        ...

    def state(self, place: int) -> TaskState | None:
        """What its job does; None if the engine is to be asked."""
        ...

    def exit_code(self, place: int) -> int | None:
        """With which code that slave program ended; None if it did not, or was killed together with its job."""
        ...

    def end(self, place: int) -> str | None:
        """How it ended, in words; None if that is not known."""
        ...

    def tells_end(self, place: int) -> bool:
        """Whether the end of its job would be reported, so that a queue which does not list it may be wrong."""
        ...

    def forget(self, place: int) -> None:
        """Its job is started again: what is told of the former start is out of date."""
        ...

    def await_end(self, job: str) -> list[str]:
        """The command that returns when a deleted job reports no more, a few seconds later at most; [] if it may."""
        ...

    def all_ended(self) -> bool:
        """Whether all jobs report no more, so that the folder can be removed."""
        ...


class Engine(Protocol):
    """A batch system: pure functions that make its command lines and read its answers.

    Tasks of an array are counted from 0 here, whatever the engine does.
    """

    name: str
    first: int  # what it calls the first task of an array
    program: str  # what submits a job, as typed
    remedy: str  # what to do if that cannot be found
    index: str  # shell code for the script, which gets the place of its first task as argument: see staging.py

    def submission(self, script: str, name: str, piece_of: tuple[int, int], options: Sequence[str]) -> list[str]:
        """The command that submits an array; ``piece_of``: place of its first task, number of tasks."""
        ...

    def job_id(self, answer: str) -> str:
        """The id in the answer to that.  Raises ValueError."""
        ...

    def passing(self, complaint: str) -> bool:
        """Whether a refusal to submit may be over soon."""
        ...

    def advice(self, complaint: str) -> str:
        """What to do about a refusal to submit; '' for nothing."""
        ...

    def limit_question(self) -> list[str]:
        """The command that tells how long an array may be."""
        ...

    def limit(self, answer: str) -> int | None:
        """The number of tasks in it; None if there is no limit, or none that it tells."""
        ...

    def search(self, name: str) -> list[str]:
        """The command that finds jobs of that name."""
        ...

    def found(self, answer: str, name: str) -> str | None:
        """The id of the job of that name in the answer."""
        ...

    def look(self, jobs: Sequence[str], run: Callable[[Sequence[str]], str]) -> Places:
        """What the tasks of these jobs do, asked by ``run``; ended ones are left out.  Raises `LaunchError`."""
        ...

    def hidden(self, piece: Piece, listed: bool, run: Callable[[Sequence[str]], str]) -> Collection[int]:
        """Tasks of the piece that have not ended, though the list (of which ``listed`` are some) does not show them.

        Asked by ``run`` for this very job: lists are filtered as the user, or the site, has configured.
        """
        ...

    def history_question(self, job: str) -> list[str]:
        """The command that tells how the tasks of a job ended."""
        ...

    def history(self, answer: str) -> Mapping[int, str]:
        """The same in words, by task, as far as the engine knows."""
        ...

    def deletion(self, job: str, tasks: Sequence[int] | None) -> list[str]:
        """The command that deletes tasks of a job, all if None."""
        ...

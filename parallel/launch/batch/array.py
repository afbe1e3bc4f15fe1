"""BatchArray: slaves that a batch system starts, as a job array.  What differs between them is in an `Engine`."""

from __future__ import annotations

import logging
import secrets
import shlex
import signal
import time
from collections.abc import Mapping, Sequence

from ...errors import LaunchError
from ..arguments import whole_number, words_of
from ..base import Slave, SlaveArray, TryAgain
from ..job import Job
from ..run_command import require, run_command
from .engine import Engine, Piece, Places, Reports, TaskState

log = logging.getLogger("parallel")

_ASK_AGAIN = 2.0, 20.0  # seconds between two questions to the engine: at first, at most
_GLANCE_SECONDS, _GLANCE_AGAIN = 0.01, 5.0  # between two looks at the folder: for each slave, at most
_TERMINATED = 128 + signal.SIGTERM  # the exit code of a slave program that its engine asked to end
_GONE = 2  # answers in a row without a job, after which it is believed to be gone
_LAST_REPORTS, _LOOK_AGAIN = 5.0, 0.02  # seconds for deleted jobs to report their end, and between two looks
_POLL_PATIENCE = 10.0  # seconds for the engine to say what its jobs do


class BatchSlave(Slave):
    """One task of a job array."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class BatchArray(SlaveArray):
    """See the module's text.

    ``numslave`` slaves.  ``options``: text for the engine's submitting command, as one would type it there; ``words``:
    the same as words, if it is not to be split as a shell does.
    """

    together = hearsay = True

    def __init__(self, engine: Engine, numslave: int, options: str, words: Sequence[str] | None = None) -> None:
        numslave = whole_number(numslave, type(self).__name__)
        self._options = words_of(options, engine.program) if words is None else words
        self._engine = engine
        self._what = f"{type(self).__name__}({numslave}{f', {options!r}' if options else ''})"
        super().__init__([BatchSlave(f"{self._what}[{place}]") for place in range(numslave)])
        self._folder: Reports | None = None
        self._pieces: list[Piece] = []
        self._unsure: tuple[str, Piece] | None = None  # a submission that may have been accepted without our knowing
        self._ends: list[str | None] = [None] * numslave
        self._missing = [0] * numslave
        self._seen: Places = {}
        self._history: dict[tuple[str, int], str] = {}  # by job and task: how it ended, as the engine says
        self._told_itself: set[int] = set()  # places whose slave program left its exit code
        self._stopped: set[int] = set()  # places that were deleted
        self._next_glance, self._was_urgent = 0.0, False
        self._next_look, self._pause = 0.0, _ASK_AGAIN[0]
        self._started: dict[int, float] = {}  # place: when its slave program was first seen to have been started

    def __repr__(self) -> str:
        return self._what

    def check(self) -> None:
        """See `Slave.check`."""
        require(self._engine.program, self._engine.remedy)

    # -- start

    def start(self, jobs: Sequence[Job]) -> None:
        """Submit what has not been submitted.  Raises `TryAgain`, `InputError` and `LaunchError`."""
        if self._folder is None:
            self._folder = self.make_folder(jobs)
        limit = self._longest()
        done = sum(piece.tasks for piece in self._pieces)
        while done < len(self.slaves):
            count = min(limit or len(self.slaves), len(self.slaves) - done)
            self._submit(Piece("", done, count))
            done += count

    def make_folder(self, jobs: Sequence[Job]) -> Reports:
        """What the jobs find, and where they report."""
        assert self.staging is not None
        return self.staging.array(jobs, self._engine.index)

    def _longest(self) -> int | None:
        try:
            return self._engine.limit(run_command(self._engine.limit_question(), _POLL_PATIENCE))
        except LaunchError as error:
            log.info("parallel: %s does not tell how long an array may be: %s", self._engine.name, error)
            return None

    def _submit(self, piece: Piece) -> None:
        assert self._folder is not None
        engine = self._engine
        try:
            job = self._find_unsure()
            if job is None:
                name = f"parallel-{secrets.token_hex(4)}"
                self._unsure = name, piece
                piece_of = piece.first, piece.tasks
                submission = engine.submission(self._folder.script, name, piece_of, self._options)
                job = engine.job_id(run_command(submission))
        except LaunchError as error:
            if error.late or engine.passing(str(error)):
                raise TryAgain(f"it is not submitted yet: {error}") from None
            self._unsure = None
            advice = engine.advice(str(error))
            raise LaunchError(f"{error}; {advice}" if advice else str(error)) from None
        self._accepted(piece._replace(job=job))

    def _find_unsure(self) -> str | None:
        """The job of a submission that had no answer, or a strange one, if there is one."""
        if self._unsure is None:
            return None
        name, _ = self._unsure
        return self._engine.found(run_command(self._engine.search(name)), name)

    def _accepted(self, piece: Piece) -> None:
        assert self.staging is not None and self._folder is not None
        self._unsure = None
        self._pieces.append(piece)
        self._folder.accepted(piece)
        for command in (self._engine.deletion(piece.job, None), self._folder.await_end(piece.job)):
            if command:
                self.staging.when_killed(shlex.join(command))
        for place in range(piece.first, piece.first + piece.tasks):
            slave = self.slaves[place]
            assert isinstance(slave, BatchSlave)
            slave.name = f"{self._what}[{place}], {self._task_name(piece, place)}"
        log.info("parallel: %s submitted as %s job %s", self._what, self._engine.name, piece.job)

    def _task_name(self, piece: Piece, place: int) -> str:
        return f"{self._engine.name} job {piece.job}.{place - piece.first + self._engine.first}"

    # -- poll

    def poll(self) -> list[str | None]:
        """See `SlaveArray.poll`.  The folder is looked at often, the engine is asked ever more seldom."""
        assert self._folder is not None
        now = time.monotonic()
        if now >= self._next_glance or self.urgent or self.closing:
            self._folder.look()
            self._next_glance = now + min(_GLANCE_AGAIN, _GLANCE_SECONDS * len(self.slaves))
        if self.urgent and not self._was_urgent:
            self._next_look, self._pause = now, _ASK_AGAIN[0]
        self._was_urgent = self.urgent
        if now >= self._next_look and not self.closing and None in self._ends and self._pieces:
            self._look()
            self._pause = min(_ASK_AGAIN[1], self._pause * 1.5)
            self._next_look = time.monotonic() + self._pause
        for place in range(len(self.slaves)):
            if place not in self._told_itself:  # what the engine says may turn out to be wrong
                self._ends[place] = self._how(place, now)
        return list(self._ends)

    def _look(self) -> None:
        assert self._folder is not None
        started = [place for place in range(len(self.slaves)) if self._folder.host(place) is not None]
        try:
            self._seen = self._engine.look(
                [piece.job for piece in self._pieces], lambda command: run_command(command, _POLL_PATIENCE)
            )
        except LaunchError as error:
            log.info("parallel: %s does not tell what its jobs do: %s", self._engine.name, error)
            return
        for piece in self._pieces:
            for task in range(piece.tasks):
                here = (piece.job, task) in self._seen
                self._missing[piece.first + task] = 0 if here else self._missing[piece.first + task] + 1
            missing = [task for task in range(piece.tasks) if self._missing[piece.first + task] == _GONE]
            if missing:
                self._find_hidden(piece)
            for task in range(piece.tasks):
                here = (piece.job, task) in self._seen
                gone = self._missing[piece.first + task] == _GONE and self._ends[piece.first + task] is None
                if gone and (piece.job, task) not in self._history:
                    self._history.update(self._ask_history(piece.job))
                if here and piece.first + task in started and not self._seen[piece.job, task].running:
                    self._folder.forget(piece.first + task)  # it was preempted or requeued, and starts again
                    self._started.pop(piece.first + task, None)

    def _find_hidden(self, piece: Piece) -> None:
        """Before some are believed to be gone: the list may be filtered, and the engine is asked for this very job."""
        listed = any(job == piece.job for job, _ in self._seen)
        for task in self._engine.hidden(piece, listed, lambda command: run_command(command, _POLL_PATIENCE)):
            if task < piece.tasks and (piece.job, task) not in self._seen:
                self._missing[piece.first + task] = 0
                host = self._folder.host(piece.first + task) if self._folder is not None else None
                hidden = TaskState(host is not None, f"{self._engine.name} knows the job, and does not list it")
                self._seen = {**self._seen, (piece.job, task): hidden}

    def _ask_history(self, job: str) -> Mapping[tuple[str, int], str]:
        try:
            answer = run_command(self._engine.history_question(job), _POLL_PATIENCE)
        except LaunchError as error:
            log.info("parallel: %s does not tell how its jobs ended: %s", self._engine.name, error)
            return {}
        return {(job, task): how for task, how in self._engine.history(answer).items()}

    def _how(self, place: int, now: float) -> str | None:
        """How the slave at this place ended; None if it did not: then what it does is noted."""
        assert self._folder is not None
        piece = next((one for one in self._pieces if one.first <= place < one.first + one.tasks), None)
        slave = self.slaves[place]
        if piece is None:
            return None
        code, host = self._folder.exit_code(place), self._folder.host(place)
        ended_by_engine = code == _TERMINATED and self._missing[place] < _GONE  # which may start it again
        end = None if ended_by_engine else self._folder.end(place)
        if end is not None:
            self._told_itself.add(place)
            return end
        state = self._folder.state(place) or self._seen.get((piece.job, place - piece.first))
        recorded = self._history.get((piece.job, place - piece.first))
        if self._missing[place] >= _GONE and (recorded or not self._folder.tells_end(place)):
            where = f"after it had been started on {host}" if host else "before it was started"
            return f"{self._task_name(piece, place)} left the queue {where} ({recorded or 'was it deleted?'})"
        if host is not None:
            since = now - self._started.setdefault(place, now)
            slave.doing, slave.trouble = f"started on {host} {since:.0f} s ago, and not connected", ""
        else:
            slave.doing = state.words if state is not None else "submitted"
            slave.trouble = state.words if state is not None and state.error else ""
        return None

    # -- stop

    def stop(self, slaves: Sequence[Slave]) -> None:
        """Delete these tasks' jobs.  Raises `LaunchError`."""
        if self._unsure is not None:
            job = self._find_unsure()
            if job is not None:
                self._accepted(self._unsure[1]._replace(job=job))
        for piece in self._pieces:
            tasks = [
                task for task in range(piece.tasks) if any(self.slaves[piece.first + task] is slave for slave in slaves)
            ]
            if tasks:
                self._stopped.update(piece.first + task for task in tasks)
                # at the end the whole job: some of its tasks may not have been made yet (HTCondor's max_idle)
                whole = self.closing or len(tasks) == piece.tasks
                run_command(self._engine.deletion(piece.job, None if whole else tasks))

    def finish(self) -> None:
        """Delete what the engine said had ended, and what has not said so itself: it may have been wrong."""
        for piece in self._pieces:
            told = self._told_itself | self._stopped
            tasks = [task for task in range(piece.tasks) if piece.first + task not in told]
            if tasks:
                try:
                    run_command(self._engine.deletion(piece.job, None if len(tasks) == piece.tasks else tasks))
                except LaunchError as error:
                    log.info("parallel: %s", error)  # it was right
        if self._folder is not None:
            self._wait_for_reports(self._folder)

    def _wait_for_reports(self, folder: Reports) -> None:
        """The last words of jobs are to come, and none behind the end of their folder."""
        deadline = time.monotonic() + _LAST_REPORTS
        folder.look()
        while not folder.all_ended() and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
            folder.look()
        if self.staging is not None and not folder.all_ended():
            self.staging.written_late = True

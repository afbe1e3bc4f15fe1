"""Store: what contexts write results to: one for each file, of which a process has one.

    dispatcher --note--> queue --write--> file        by the store's thread, or by a reader that cannot wait for it
                                 sync --> disk        by the store's thread, once a second

The dispatcher only puts outcomes into the queue.  The thread writes what it finds there, at once; a reader that is
about to give a result to the user first writes what is there, or waits until that is done: so it is in the file before
the user sees it.  What cannot be written stays in the queue, in its order.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Protocol

from slave.protocol import VALUE

from ..core.effects import Outcome, Values
from ..errors import CheckpointError, InputTypeError, ManagerClosed
from ..program import Program
from . import digests
from .batch import Batch
from .code import Code, changed
from .disk import Disk, now
from .format import DROP, Entry
from .identity import Counts
from .lock import Lock
from .results_file import LARGE, Origin, ResultsFile

_SYNC_SECONDS = 1.0
_RETRY_SECONDS = 1.0  # after what could not be written
_READER_SECONDS, _MOMENT = 0.05, 0.005  # a reader that was here so lately gets so long to come again
_MOST_AT_ONCE = 4 << 20  # bytes that are written with one call, about
_AHEAD = digests.MOST - 1  # large results of which digests are made while one is written
_CLOSE_SECONDS = 2.0
_LOOK_SECONDS = 1e-4  # for which the file is taken to be where it was: results that come one right after the other


class Source(Protocol):
    """Whose tasks the outcomes are of.  ``waits``: readers wait, who write what comes."""

    waits: int

    def record(self, outcomes: Sequence[Any], batch: Batch) -> None:
        """Put in what is to be written of outcomes, each an `Outcome` or `Values`."""


class Store:
    """See the module's text.  Safe to use from several threads.

    ``path``: with all links followed.  ``tell``: gets lines of text for the user.  Raises `CheckpointError`.
    """

    def __init__(self, path: str, key: bytes, code: Code, tell: Callable[[str], object]) -> None:
        self.path, self.code, self.tell = path, code, tell
        self._lock = Lock(path)
        try:
            disk = Disk(path, write=True)
            try:
                self.file = ResultsFile(disk, key, tell)
            except BaseException:
                disk.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self.counts = Counts(self.file.index)
        self.naming = threading.RLock()  # guards the counts and the origins; a signal handler may add tasks
        self.first_origin = max(self.file.origins, default=-1) + 1  # of this run
        self.known = 0  # tasks of this run whose results are in the file
        self._told_of: set[int] = set()  # origins of which the user knows that their code has changed
        self.queue: deque[tuple[Source, Sequence[Any]]] = deque()
        self._writing = threading.RLock()  # held by whoever takes from the queue and writes; see `_write`
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._resting = False  # the thread waits for the bell
        self._unsynced, self._synced_at = False, 0.0
        self._trouble: CheckpointError | None = None  # of a sync, to be told once
        self._read_at = 0.0  # when a reader was last here
        self.look_at = 0.0  # when to look next whether the file is there
        self._gone = False  # it was not, and the user was told
        self._closed, self._pid = False, os.getpid()
        threading.Thread(target=self._run, name="parallel checkpoint", daemon=True).start()

    # -- for the dispatcher

    def note(self, source: Source, outcomes: Sequence[Any]) -> None:
        """These have come.  Never waits, and opens no file."""
        self.queue.append((source, outcomes))
        if not source.waits:
            self.wake()

    def wake(self) -> None:
        """Have the thread look at the queue."""
        if self._resting:
            self._resting = False
            self._bell.put(None)

    # -- for readers

    def ensure(self, durable: bool, outcome: Outcome | Values | None = None) -> bool:
        """What was noted before is in the file, and on the disk if ``durable``.  Raises `CheckpointError`.

        ``outcome``: that one is there; of what was noted later only what is written with the same call, for with large
        results it takes long to write them all.  Returns whether all is there that was noted before.
        """
        if self._closed:
            return False
        everything = not self.queue
        self._read_at = time.monotonic()
        if (self.queue and not self._is_written(outcome)) or (durable and self._unsynced):
            with self._writing:
                self._look()
                everything = self._write_until(outcome)
                if durable and self._unsynced:
                    self._unsynced = False
                    self.file.sync()
        elif self._read_at > self.look_at:
            with self._writing:
                self._look()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        return everything

    def _is_written(self, outcome: Outcome | Values | None) -> bool:
        """Whether that is known.  (Small ones are not looked for: it takes as long to write them all.)"""
        return outcome is not None and outcome.size >= LARGE and not self._is_queued(outcome)

    def _is_queued(self, outcome: Outcome | Values) -> bool:
        return any(one is outcome for _, outcomes in self.queue.copy() for one in outcomes)

    def _look(self) -> None:
        """Whether the file is there.  One that has vanished is written again when the user was told and asks again."""
        if self._gone:
            self.file.put_back()
            self._gone = False
        try:
            self.file.check_place()
        except CheckpointError:
            self._gone = True
            raise
        self.look_at = time.monotonic() + _LOOK_SECONDS

    def write_origin(self, origin: Origin) -> int:
        """The number of that origin, which is in the file by then.  Raises `CheckpointError`."""
        with self._writing:
            return self.file.origin(origin)

    def tell_of_code(self, number: int, now: Origin) -> None:
        """Say once how many results are not used, since their code has changed."""
        if number in self._told_of:
            return
        stale = {number}
        files: list[str] = []
        current = dict(self.code.loaded())
        for other, origin in self.file.origins.items():
            paths = [path for name, path, digest in origin.modules if current.get(name, digest) != digest]
            if paths and other < self.first_origin:
                stale.add(other)
                files += paths
        self._told_of |= stale
        index = self.file.index
        count = sum(index.origin(place) in stale for place in index.places())
        then = self.file.origins.get(number)
        files += [] if then is None else changed(then, now, exactly=True)
        names = ", ".join(dict.fromkeys(files)) or "what they come from cannot be read"
        self.tell(
            f"{count} results in {self.path} were made by other code, and are not used (changed: {names}); "
            f'get_context(..., code="ignore") uses them'
        )

    def drop(self, entry: Entry) -> None:
        """That result is not to be used again.  Raises `CheckpointError`."""
        if not self._closed:
            with self._writing:
                self.file.append([(DROP, entry._replace(made=now()), b"", ())])

    # -- writing

    def _write_until(self, outcome: Outcome | Values | None = None) -> bool:
        """Write what is in the queue until that is in the file.  Returns whether all is."""
        if self._is_written(outcome):
            return False
        while not self._write():
            if outcome is not None and not self._is_queued(outcome):
                return False
        return True

    def _write(self) -> bool:
        """Write what came first into the queue, with one call; for who holds `_writing`.  Raises `CheckpointError`.

        Returns whether that was all.  A signal handler that interrupts this and reads results does the same in the
        midst of it: it writes the same records, and maybe more, to the same place.
        """
        if os.getpid() != self._pid or self._closed:
            return True
        batch = Batch()
        items = self.queue.copy()
        written = 0
        for source, outcomes in items:
            written += 1
            source.record(outcomes, batch)
            if batch.size > _MOST_AT_ONCE:
                self._expect(itertools.islice(items, written, written + _AHEAD))
                break
        records = batch.records()
        if records:
            self.file.append(records, now())
            if not self._unsynced:
                self._unsynced = True
                self.wake()
        for item in itertools.islice(items, written):
            if self.queue and self.queue[0] is item:
                self.queue.popleft()
        if written < len(items):
            return False
        self.file.expect_nothing()  # a large result that was cancelled is kept by nobody
        return True

    def _expect(self, items: Iterable[tuple[Source, Sequence[Any]]]) -> None:
        """Have digests made of what is large among these."""
        large = (one for _, outcomes in items for one in outcomes if one.size >= LARGE and type(one) is Outcome)
        for outcome in itertools.islice(large, _AHEAD):
            if outcome.kind == VALUE:
                self.file.expect(outcome.data, outcome.buffers)

    def _run(self) -> None:
        """The thread: writes what no reader has written, and syncs."""
        patience: float | None = None
        while not self._closed:
            self._rest(patience)
            patience = None
            if self.queue and time.monotonic() - self._read_at < _READER_SECONDS:
                self._rest_for_a_moment()  # the reader is quick: it writes what there is as it comes along
            try:
                if self.queue:
                    with self._writing:
                        self._write()  # and a reader may come between
            except CheckpointError:  # the reader meets it too, and tells
                patience = _RETRY_SECONDS
                continue
            if self._unsynced:
                patience = self._synced_at + _SYNC_SECONDS - time.monotonic()
                if patience <= 0:
                    self._sync()
                    patience = None

    def _rest_for_a_moment(self) -> None:
        try:
            self._bell.get(timeout=_MOMENT)
        except queue.Empty:
            pass

    def _rest(self, patience: float | None) -> None:
        self._resting = True
        if self._closed or (self.queue and patience != _RETRY_SECONDS):
            return
        if self._unsynced and patience is None:
            patience = 0.0
        try:
            self._bell.get(timeout=patience)
        except queue.Empty:
            pass

    def _sync(self) -> None:
        self._unsynced, self._synced_at = False, time.monotonic()
        try:
            self.file.sync()
        except CheckpointError as error:
            self._trouble, self.look_at = error, 0.0

    def close(self) -> None:
        """Write what is left, and let other masters have the file.  May be called twice, and from any thread."""
        if self._closed or os.getpid() != self._pid:
            return
        if self._acquire_to_close():
            try:
                self._write_until()
                self.file.sync()
            except CheckpointError as error:
                self.tell(f"results that came last are in no file: {error}")
            finally:
                self._closed = True
                self._writing.release()
        elif self.queue:
            self.tell("results that came last are in no file: what was just being written did not get on")
        self._closed = True
        self._bell.put(None)
        self.file.close()
        self._lock.release()

    def _acquire_to_close(self) -> bool:
        """Wait for whoever writes as long as it gets on: not if a signal handler waits for us in the midst of it."""
        seen: tuple[int, int] | None = None
        while not self._writing.acquire(timeout=_CLOSE_SECONDS):
            before, seen = seen, (self.file.end, len(self.queue))
            if seen == before:
                return False
        return True


class Stores:
    """The files that one manager's contexts write to, each opened once."""

    def __init__(self, key: Callable[[], bytes], program: Program, tell: Callable[[str], object]) -> None:
        self._key, self._code, self._tell = key, Code(program), tell
        self._opening = threading.Lock()  # held while one is opened
        self._stores: dict[str, Store] = {}
        self._closed = False

    def open(self, path: str | os.PathLike[str]) -> Store:
        """The one for this file, which is made if it is missing.

        Raises `CheckpointError`, `InputError`, and `ManagerClosed` if they were closed, be it just now.
        """
        try:
            real = os.path.realpath(os.fspath(path))
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"checkpoint={path!r} is no name of a file: {error}") from None
        if isinstance(real, bytes):
            real = os.fsdecode(real)
        with self._opening:
            store = self._stores.get(real)
            if store is None:
                try:
                    store = self._stores[real] = Store(real, self._key(), self._code, self._tell)
                except OSError as error:
                    if isinstance(error, CheckpointError):
                        raise
                    why = error.strerror or str(error)
                    raise CheckpointError(f"the checkpoint {real} cannot be opened: {why}") from None
        if self._closed:  # looked at now: whoever closes them later sees this one
            store.close()
            raise ManagerClosed("the manager was shut down")
        return store

    def close(self) -> None:
        """Close all.  May be called twice."""
        self._closed = True
        for store in list(self._stores.values()):
            store.close()

"""``imap`` and ``imap_unordered`` of a pool: the iterator, and what takes the inputs."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, TypeVar

from ..errors import InputTypeError
from ..program import Program
from .calls import Calls
from .pool_results import Came, Known, Part, Waker, known_of, size_of, standard, terminated

Result = TypeVar("Result")

_MOST_OUT, _MOST_BYTES = 10_000, 16e6  # parts of which nothing has come yet
_MOST_UNTAKEN, _MOST_UNTAKEN_BYTES = 100_000, 512e6  # parts, and results, that nobody has taken


_NOTHING = object()


class _Raised(NamedTuple):
    """What a call has raised, in the place of its result."""

    error: BaseException


class IMapIterator(Iterator[Result]):
    """What ``imap`` and ``imap_unordered`` return.  An input whose call raised raises in its place; the next come.

    ``chunked``: each part is a list of results.  ``room``: how many parts may be out at any time.  Very many results
    that nobody has taken hold up the inputs, which may be endless, until the pool is closed.
    """

    def __init__(
        self, ordered: bool, chunked: bool, program: Program, room: int, forget: Callable[[IMapIterator[Any]], object]
    ) -> None:
        self._ordered, self._chunked, self._program, self._forget = ordered, chunked, program, forget
        self._turn = threading.RLock()  # one thread at a time asks
        self._came: deque[Came] = deque()  # if they are given as they come; else ...
        self._early: dict[int, Came] = {}  # ... by part
        self._asked = 0  # parts that were given to the user, or a part of them
        self._values: deque[Any] = deque()  # of the part that is being given
        self._length: int | None = None  # in parts, when it is known
        self._out: dict[int, int] = {}  # by part: its bytes, while nothing has come of it
        self._room = room
        self._bytes = 0  # about so many are out
        self._gone_out = 0  # parts; written by the feeder
        self._result_bytes = 0  # that have come; written by the dispatcher
        self._taken_bytes = 0  # of these; written by who asks
        self._for_nobody = False  # the pool was closed: all inputs are to be done, whether somebody asks or not
        self._waker, self._feeder_waker = Waker(), Waker()
        self.dropped = False

    def __iter__(self) -> IMapIterator[Result]:
        return self

    def __next__(self) -> Result:
        return self.next()

    def next(self, timeout: float | None = None) -> Result:
        """The next result.  Raises what its call raised, ``multiprocessing.TimeoutError`` after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        longest = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
        if not self._turn.acquire(timeout=longest):
            raise multiprocessing.TimeoutError
        given: Any = _NOTHING
        try:
            try:
                while not self._values:
                    if self._has_much_room():
                        self._feeder_waker.wake()
                    left = None if deadline is None else deadline - time.monotonic()
                    if not self._waker.wait_for(self._is_told, left):
                        raise multiprocessing.TimeoutError
                    self._take()
                given = self._values[0]
                del self._values[0]
            finally:
                self._turn.release()
        except BaseException:
            if given is not _NOTHING:  # of a signal's handler: the next call gives what this one had
                self._values.appendleft(given)
            raise
        if type(given) is _Raised:
            raise given.error
        result: Result = given
        return result

    def _is_told(self) -> bool:
        """Whether `_take` need not wait."""
        came = self._asked in self._early if self._ordered else bool(self._came)
        return came or self._asked == self._length or self.dropped

    def _take(self) -> None:
        """Have the values of the next part in `_values`; raise if there are none."""
        came = self._early.get(self._asked) if self._ordered else self._came[0] if self._came else None
        if came is None:
            if self._asked == self._length:
                raise StopIteration
            raise terminated()
        known = known_of(came, self._program)
        size = size_of(came)
        if known.error is not None:
            values = deque([_Raised(known.error)])
        else:
            values = deque(known.value if self._chunked else (known.value,))
        # from here on nothing is called: a signal's handler that raises would lose it
        if self._ordered:
            del self._early[self._asked]
        else:
            del self._came[0]
        self._asked += 1
        self._taken_bytes += size
        self._values = values

    # -- for the feeder

    def wait_for_room(self) -> bool:
        """Wait until one more part may be added; False if none is wanted any more."""
        if not self.has_room():
            self._feeder_waker.wait_for(self._has_much_room, None)
        return not self.dropped

    def has_room(self) -> bool:
        """Whether one more part may be added now."""
        return self._may_go_out(1)

    def _has_much_room(self) -> bool:
        """Then it is worth while to wake the feeder."""
        return self._may_go_out(0.5)

    def _may_go_out(self, part: float) -> bool:
        if self.dropped:
            return True
        untaken, size = self._gone_out - self._asked, self._result_bytes - self._taken_bytes
        if not self._for_nobody and (untaken > part * _MOST_UNTAKEN or size > part * _MOST_UNTAKEN_BYTES):
            return False
        out = len(self._out)
        return out < self._room or (out < part * _MOST_OUT and self._bytes < part * _MOST_BYTES)

    def let_all_in(self) -> None:
        """The pool was closed: all inputs are to be done, though nobody takes the results before that."""
        self._for_nobody = True
        self._feeder_waker.wake()

    def goes_out(self, index: int, size: int) -> None:
        """This part is about to be added."""
        self._out[index] = size
        self._bytes += size
        self._gone_out = index + 1

    def ends_after(self, parts: int) -> None:
        """There are no more."""
        self._length = parts
        self._waker.wake()
        if not self._out:
            self._forget(self)

    # -- filled by other threads

    def settle(self, index: int, came: Came) -> None:
        """See `Job`."""
        size = self._out.pop(index, None)
        self._bytes -= size or 0
        self._result_bytes += size_of(came)
        if self._ordered:
            self._early[index] = came
        else:
            self._came.append(came)
        self._waker.wake()
        if self._has_much_room():
            self._feeder_waker.wake()
        if self._length is not None and not self._out:
            self._forget(self)

    def drop(self, error: BaseException) -> None:
        """The pool was terminated: nothing more comes."""
        self.dropped = True
        self._waker.wake()
        self._feeder_waker.wake()


class Feeding:
    """Takes the inputs of an `imap` and adds them, in a thread of its own: they are the user's code, and may block.

    A list, a tuple or a range cannot: those are taken by the caller's thread, as far as there is room.
    """

    def __init__(self, job: IMapIterator[Any], calls: Calls, inputs: Iterable[Any], chunksize: int) -> None:
        self._job, self._calls, self._chunksize = job, calls, chunksize
        self._inputs = inputs
        self._items: Iterator[Any] | None = None
        self._added = 0

    def begin(self, feeders: set[threading.Thread], on_end: Callable[[], None]) -> None:
        """``feeders``: where the thread is while it runs; ``on_end`` is called then."""

        def run() -> None:
            try:
                self._feed(self._job.wait_for_room)
            finally:
                feeders.discard(thread)
                on_end()

        if type(self._inputs) in (list, tuple, range) and self._feed(self._job.has_room):
            return
        thread = threading.Thread(target=run, name="parallel pool feeder", daemon=True)
        feeders.add(thread)
        thread.start()

    def _feed(self, may_add: Callable[[], bool]) -> bool:
        """Add as many as may be; whether that is all."""
        job = self._job
        while may_add():
            if job.dropped:
                return True
            try:
                item = self._next()
            except StopIteration:
                job.ends_after(self._added)
                return True
            except BaseException as error:  # of the user's iterator: it stands in its place, and is the last
                self._came(Known(error))
                job.ends_after(self._added)
                return True
            try:
                self._add(item)
            except BaseException as error:  # the manager was shut down, say
                self._came(Known(error))
                job.ends_after(self._added)
                return True
        return job.dropped

    def _next(self) -> Any:
        if self._items is None:
            self._items = iter(self._inputs)
        if self._chunksize == 1:
            return next(self._items)
        chunk = tuple(itertools.islice(self._items, self._chunksize))
        if not chunk:
            raise StopIteration
        return chunk

    def _add(self, item: Any) -> None:
        try:
            payload = self._calls.pack(item)
        except InputTypeError as error:
            self._came(Known(standard(error)))
            return
        index = self._added
        self._job.goes_out(index, len(payload))
        self._calls.add([(Part(self._job, index, self._calls.recorder), payload)])
        self._added += 1

    def _came(self, known: Known) -> None:
        self._job.goes_out(self._added, 0)
        self._job.settle(self._added, known)
        self._added += 1

"""Jobs: what a pool has under way, on slaves, or inside a task in that process."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple, Union

from slave.calls import call_each, call_each_starred, nothing
from slave.protocol import Payload

from ..errors import InputTypeError, UnpicklableError
from ..payload import standard_error
from ..program import Program
from .calls import Calls
from .imap import Feeding, IMapIterator
from .inline import InlineWork
from .pool_results import AsyncResult, Known, Part, standard, terminated
from .processes import Processes
from .work import Work

_TOGETHER = 0.0005  # seconds; what takes no longer to pickle is added together


_CHUNKS = 4  # of a map, for each slave
_NOTHING = 0.02  # seconds that a map may take longer for once because this machine is busy with other things
_WORTH = 0.0005  # seconds of work for which there is to be a chunk of its own


class Callbacks(NamedTuple):
    """What is called with the result of a job, or with its error."""

    callback: Callable[[Any], object] | None = None
    error_callback: Callable[[Any], object] | None = None


class SlaveJobs:
    """The jobs of a pool on slaves."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._under_way: set[AsyncResult[Any] | IMapIterator[Any]] = set()
        self._feeders: set[threading.Thread] = set()
        self._closed = False
        self._timed: tuple[object, float] = None, math.inf  # a function, and seconds of one call of it, at most

    def start(self, sets_up: bool) -> None:
        """Start the slaves if they are its own, and, ``sets_up``, have each run setup.

        With a checkpoint all may be known: then they start when they are needed.
        """
        if not self.work.own:
            return
        try:
            if self.work.checkpoint is not None:
                self.work.functions  # noqa: B018 - the initializer is pickled, and the file opened
                return
            calls = self.work.functions.call(nothing, (), {})
        except UnpicklableError as error:  # of the initializer
            raise standard_error(error) from None
        if sets_up:
            each = range(self.work.max_workers)
            self._add(lambda: calls, self._job(len(each), True, Callbacks()), each)

    # -- new ones

    def apply(
        self, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], callbacks: Callbacks
    ) -> AsyncResult[Any]:
        """One call."""
        job = self._job(1, False, callbacks)
        self._add(lambda: self.work.functions.call(function, args, named), job, (None,))
        return job

    def map(
        self, function: Callable[..., Any], chunks: Sequence[Sequence[Any]], starred: bool, callbacks: Callbacks
    ) -> AsyncResult[list[Any]]:
        """Calls with the inputs of each chunk, which is one task."""
        if not chunks:
            return self._job(0, True, callbacks)
        calls, began = sum(map(len, chunks)), time.perf_counter()

        def done() -> None:
            took = time.perf_counter() - began
            each = took / calls * min(len(chunks), self.work.max_workers)
            known, seconds = self._timed
            if known is function and took < _NOTHING:
                each = min(each, 2 * seconds)
            self._timed = function, each

        counts = self.work.own and self.work.context.entrance.mailbox.recorder is None
        job = self._job(len(chunks), True, callbacks, done if counts else None)
        self._add(lambda: self.work.functions.calls(function, True, starred), job, chunks)
        return job

    def chunksize(self, function: object, calls: int) -> int:
        """How many of so many calls are to be one task: as with the standard pools, but for short ones.

        These are as few tasks as there are slaves, if they took so short a time when the function was mapped last.  Not
        with a checkpoint, which knows a chunk by its inputs.
        """
        slaves = self.work.max_workers
        known, seconds = self._timed
        tasks = slaves * _CHUNKS
        if known is function:
            tasks = max(slaves, min(tasks, math.ceil(calls * seconds / _WORTH)))
        return max(1, -(-calls // tasks))

    def imap(
        self, function: Callable[[Any], Any], inputs: Iterable[Any], chunksize: int, ordered: bool
    ) -> IMapIterator[Any]:
        """The same lazily."""
        program = self._program
        room = 2 * self.work.max_workers + 2
        job: IMapIterator[Any] = IMapIterator(ordered, chunksize > 1, program, room, self._under_way.discard)
        self._under_way.add(job)
        try:
            calls = self.work.functions.calls(function, chunksize > 1, False)
        except InputTypeError as error:
            job.goes_out(0, 0)
            job.settle(0, Known(standard(error)))
            job.ends_after(1)
        else:
            Feeding(job, calls, inputs, chunksize).begin(self._feeders, self._end_soon)
        return job

    def _job(
        self, parts: int, joined: bool, callbacks: Callbacks, done: Callable[[], None] | None = None
    ) -> AsyncResult[Any]:
        def forget(job: AsyncResult[Any]) -> None:
            self._under_way.discard(job)
            if done is not None:
                done()

        courier = self.work.context.entrance.mailbox.courier
        if any(callbacks):
            courier.start()  # it may be that no task comes of this, which would start it
        job: AsyncResult[Any] = AsyncResult(parts, joined, self._program, courier.send, forget, *callbacks)
        self._under_way.add(job)
        job.begin()
        return job

    @property
    def _program(self) -> Program:
        """What results are rebuilt in."""
        return self.work.context.entrance.program

    def _add(self, way: Callable[[], Calls], job: AsyncResult[Any], items: Iterable[Any]) -> None:
        """One task for each item.  What cannot be sent is that part's error."""
        try:
            calls = way()
        except InputTypeError as error:
            for index, _ in enumerate(items):
                job.settle(index, Known(standard(error)))
            return
        packed: list[tuple[Part, Payload]] = []
        began = time.perf_counter()
        for index, item in enumerate(items):
            part = Part(job, index, calls.recorder)
            try:
                packed.append((part, calls.pack(item)))
            except InputTypeError as error:
                part.fail(standard(error))
            if time.perf_counter() - began > _TOGETHER:
                calls.add(packed)
                packed, began = [], time.perf_counter()
        calls.add(packed)

    # -- the end

    def close(self) -> None:
        """Nothing more is added; the slaves end when all is done, if they are its own."""
        self._closed = True
        for job in list(self._under_way):
            if isinstance(job, IMapIterator):
                job.let_all_in()
        self._end_soon()

    def _end_soon(self) -> None:
        if self._closed and not self._feeders:
            self.work.finish_soon()

    def join(self) -> None:
        """Wait until all is done, and the slaves have ended."""
        for feeder in list(self._feeders):
            feeder.join()
        self.work.finish()

    def drop(self) -> None:
        """Drop all, and end the slaves if they are its own."""
        for job in list(self._under_way):
            job.drop(terminated())
        self.work.abort()

    def processes(self, wait: bool) -> list[Any]:
        """The slaves' processes; ``wait``: until all of its own are connected."""
        manager = self.work.manager
        if wait and self.work.own and manager is not None:
            manager.wait_for_slaves(self.work.max_workers)
        return list(Processes(lambda: manager).values())


class InlineJobs:
    """The jobs of a pool inside a task."""

    def __init__(self, work: InlineWork) -> None:
        self.work = work

    def start(self, sets_up: bool) -> None:
        """There is nothing to start."""

    def apply(
        self, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], callbacks: Callbacks
    ) -> AsyncResult[Any]:
        """Call it now."""
        return self._run([(function, args, named)], False, callbacks)

    def map(
        self, function: Callable[..., Any], chunks: Sequence[Sequence[Any]], starred: bool, callbacks: Callbacks
    ) -> AsyncResult[list[Any]]:
        """Call it with all of them now."""
        mapper = call_each_starred if starred else call_each
        return self._run([(mapper, (function, chunk), {}) for chunk in chunks], True, callbacks)

    def chunksize(self, function: object, calls: int) -> int:
        """How many calls are made together."""
        return 1

    def _run(
        self, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]], joined: bool, to: Callbacks
    ) -> AsyncResult[Any]:
        job: AsyncResult[Any] = AsyncResult(len(calls), joined, None, lambda errand: errand(), lambda job: None, *to)
        job.begin()
        for index, call in enumerate(calls):
            future = self.work.submit(*call)
            error = future.exception()
            job.settle(index, Known(error) if error is not None else Known(None, future.result()))
        return job

    def imap(self, function: Callable[[Any], Any], inputs: Iterable[Any], chunksize: int, ordered: bool) -> InlineIMap:
        """Each call is made when its result is asked for."""
        return InlineIMap(self.work, function, inputs)

    def close(self) -> None:
        """All is done already."""

    def join(self) -> None:
        """All is done already."""

    def drop(self) -> None:
        """All is done already."""

    def processes(self, wait: bool) -> list[Any]:
        """This one."""
        return [multiprocessing.current_process()]


class InlineIMap(Iterator[Any]):
    """What ``imap`` returns inside a task."""

    def __init__(self, work: InlineWork, function: Callable[[Any], Any], inputs: Iterable[Any]) -> None:
        self._work, self._function, self._inputs = work, function, iter(inputs)

    def __next__(self) -> Any:
        return self._work.submit(self._function, (next(self._inputs),), {}).result()

    def next(self, timeout: float | None = None) -> Any:
        """The next result."""
        return self.__next__()


Jobs = Union[SlaveJobs, InlineJobs]

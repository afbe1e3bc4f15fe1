"""MapResults: what `Context.map` and `map_unordered` return.

The function is sent once to each runner, as the setup of a context of the map's own, which shares what the setup of the
user's context returned (slave/mapped.py).  Each input is a task; many of short calls are one object in the master
(core/chunk.py), and what they return comes together.  Here is in what order outcomes are given, and what becomes of
errors; an input that fails is that input's error alone.  How inputs become tasks: map_inputs.py.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Callable, Generic, TypeVar

from slave.moved import is_moved
from slave.protocol import VALUE
from slave.signals import came_from_handler

from .core.effects import Outcome, Values
from .errors import RemoteError, ResultError
from .map_inputs import MapInputs
from .outcomes import cannot_be_rebuilt, original, rebuild
from .program import Program
from .quick_values import NO_VALUES, QuickValues
from .service.mailbox import Mailbox
from .stays_here import stays_here

Result = TypeVar("Result")

MOST_EARLY = 100_000  # results that wait for an earlier one; then no more inputs are taken


class _Rebuilding:
    """How a value, or an error, is made of what came of an input.

    ``originals``: errors are what the calls raised, as the standard library's maps have it.
    """

    def __init__(self, mailbox: Mailbox, program: Program, originals: bool) -> None:
        self._mailbox, self._program, self._originals = mailbox, program, originals

    def value(self, block: Values, at: int) -> tuple[bool, Any]:
        """One value of a block, or the error in its place."""
        data = block.data[at]
        if type(data) is not bytes:
            return False, data
        try:
            if not self._program.main_is_hidden:
                return False, pickle.loads(data)
            return False, self._program.loads(lambda: pickle.loads(data))
        except BaseException as error:  # see `rebuild`
            if came_from_handler(error):
                raise
            if is_moved(error):
                return self.value(block, at)
            outcome = Outcome(block.tasks[at], VALUE, block.slave, data, ())
            if self._mailbox.recorder is not None:
                self._mailbox.recorder.input_cannot_be_rebuilt(block.indices[at])
            return True, self.error(block.indices[at], cannot_be_rebuilt(outcome, error))

    def error(self, index: int, error: RemoteError) -> BaseException:
        """The error as the map raises it."""
        error.index, error.label = index, error.label or self._mailbox.label
        return original(error) if self._originals else error


class MapResults(Iterator[Result], Generic[Result]):
    """An iterator over the results of a map, and an asynchronous one.

    What it raises for an input that failed is that input's outcome (`RemoteError`, with its ``index``): the next call
    goes on with the others.  What the inputs' iterable raises comes out too, and then it is asked no more.
    """

    __reduce__ = stays_here

    def __init__(
        self,
        mailbox: Mailbox,
        inputs: MapInputs,
        program: Program,
        *,
        ordered: bool,
        originals: bool,
        context: object,
        when_over: Callable[[Mailbox], None],
    ) -> None:
        self._mailbox, self._inputs, self._program = mailbox, inputs, program
        mailbox.read = True  # inputs are taken when somebody asks for results
        self._ordered, self._counts = ordered, inputs.bounded  # what was given is counted
        self._rebuilding = _Rebuilding(mailbox, program, originals)
        self._context = context  # which is kept: its setup's result is used
        self._turn = threading.RLock()  # one thread at a time asks
        self._given = 0
        self._early: dict[int, tuple[bool, Any]] = {}  # by index: what is known and has not been given
        self._block: Values | None = None  # what came together, and is given one by one
        self._at = 0  # which of it is next
        self._quick = NO_VALUES  # those of it that its thread takes without the lock; then `_at` is not kept
        self._again: list[tuple[Values, int]] = []  # values that were to be given, and could not be rebuilt
        self._when_over = when_over  # called once, if all inputs were read to their end
        self._over = False
        self._finalizer = weakref.finalize(self, Mailbox.abandon, mailbox)
        self._finalizer.atexit = False

    def __iter__(self) -> MapResults[Result]:
        return self

    def __next__(self) -> Result:
        quick = self._quick
        if (
            quick is not NO_VALUES
            and quick.thread == threading.get_ident()
            and not (self._mailbox.wants_tasks and self._inputs.come_first())
        ):
            try:
                for value in quick.values:
                    return value  # type: ignore[no-any-return]  # it is what a call returned
            except BaseException as error:
                with self._turn:
                    self._again.append((quick.block, quick.place - 1))
                    if self._quick is quick:
                        self._slow_down()
                if came_from_handler(error):
                    raise
        return self._next()

    def _next(self) -> Result:
        """The same where there is more to do than to rebuild the next value."""
        given: tuple[int, bool, Any] | None = None
        try:
            with self._turn:
                while True:
                    self._slow_down()
                    if self._again:
                        is_error, value = self._rebuilding.value(*self._again[-1])
                        again, at = self._again[-1]
                        del self._again[-1]
                        given = again.indices[at], is_error, value
                        break
                    block = self._block
                    if block is not None and not self._early and not self._inputs.come_first():
                        at = self._at
                        index = block.indices[at]
                        if index == self._given or not self._ordered:
                            is_error, value = self._rebuilding.value(block, at)
                            self._at, self._given = at + 1, self._given + 1
                            given = index, is_error, value
                            if at + 1 == len(block.data):
                                self._block = None
                            elif not self._counts and not self._program.main_is_hidden:
                                self._quick = QuickValues(block, at + 1)
                            break
                    key = self._look()
                    if key is not None:
                        is_error, value = self._early[key]
                        self._inputs.caller_leaves()
                        self._given += 1
                        del self._early[key]
                        given = key, is_error, value
                        break
                    for_tasks = self._inputs.room(self._given) > 0
                    if self._over or (not self._mailbox.wait(for_tasks) and self._is_over()):
                        raise StopIteration
        except BaseException:  # of a signal's handler, if it had been taken: the next call gives it
            if given is not None:
                self._put_back(*given)
            raise
        if is_error:
            raise value
        return value  # type: ignore[no-any-return]  # it is what a call returned

    def _put_back(self, key: int, is_error: bool, value: Any) -> None:
        self._early[key] = is_error, value
        self._given -= 1
        if self._block is not None and self._at == len(self._block.data):
            self._block = None

    # -- asynchronously

    def __aiter__(self) -> MapResults[Result]:
        return self

    async def __anext__(self) -> Result:
        while True:
            self._slow_down()
            if self._again:
                return self._give_again()
            key = self._look()
            if key is not None:
                return self._give(key)
            for_tasks = self._inputs.room(self._given) > 0
            if self._over or (not await self._mailbox.wait_async(for_tasks) and self._is_over()):
                raise StopAsyncIteration

    # -- the end

    def close(self) -> None:
        """Take no more inputs, and stop what runs: there are no further results."""
        self._inputs.close()
        self._early.clear()
        self._again.clear()
        self._block, self._quick = None, NO_VALUES
        if not self._over:
            self._over = True
            self._mailbox.cancel()
            self._mailbox.ready.clear()
            self._finalizer()

    def _is_over(self) -> bool:
        """All that was taken is known: whether there is nothing more to take."""
        if self._mailbox.ready or self._early or self._again or self._block is not None:
            return False
        inputs = self._inputs
        if not inputs.exhausted and not inputs.asking:
            inputs.feed(self._given, self._refuse)
            return False
        if not inputs.asking:
            self._over = True
            if self._finalizer.detach() is not None:
                self._when_over(self._mailbox)
        return True

    # -- outcomes

    def _look(self) -> int | None:
        """Which of `_early` comes next; None if it has to be waited for."""
        mailbox, early = self._mailbox, self._early
        while True:
            if mailbox.wants_tasks and self._inputs.room(self._given) > 0 and not self._over:
                waiting = mailbox.ready or early or self._block is not None
                if not waiting or self._inputs.rested():
                    self._inputs.feed(self._given, self._refuse)
            if early:
                key = self._given if self._ordered else next(iter(early))
                if key in early:
                    return key
            if self._over:
                return None
            if self._block is not None:
                self._take_of_block()
            elif mailbox.ready:
                self._take()
            else:
                return None

    def _take(self) -> None:
        """The next outcome, rebuilt, leaves the mailbox when it stands here: Ctrl-C loses nothing."""
        outcome = first = self._mailbox.ready[0]
        recorder = self._mailbox.recorder
        if type(outcome) is Values:
            if recorder is not None:
                recorder.front_values(outcome)
            self._block, self._at = outcome, 0
            try:
                self._mailbox.took(outcome)
            except BaseException:
                if self._is_first(outcome):  # a signal's handler has raised before it was taken
                    self._block = None
                raise
            return
        if recorder is not None:
            found = recorder.front()
            if found is None:
                return
            outcome = found
        is_error, value = rebuild(outcome, self._program)
        if is_error and recorder is not None and type(value) is ResultError:
            recorder.cannot_be_rebuilt()
        index = outcome.tag
        assert isinstance(index, int)
        self._early[index] = is_error, self._rebuilding.error(index, value) if is_error else value
        try:
            self._mailbox.took(first)
        except BaseException:
            if self._is_first(first):
                del self._early[index]
            raise

    def _is_first(self, outcome: object) -> bool:
        return bool(self._mailbox.ready) and self._mailbox.ready[0] is outcome

    def _slow_down(self) -> None:
        """Take what is left of the block one by one again."""
        quick = self._quick
        if quick is not NO_VALUES:
            at = quick.stop()
            self._inputs.gave(at - quick.first)
            is_over = at == len(quick.block.data)
            self._at, self._quick = at, NO_VALUES  # from here on nothing is called, so that no handler comes between
            if is_over:
                self._block = None

    def _give_again(self) -> Result:
        """A value that could not be rebuilt: the error in its place, if that is still so."""
        is_error, value = self._rebuilding.value(*self._again[-1])
        self._again.pop()
        if is_error:
            raise value
        return value  # type: ignore[no-any-return]  # it is what a call returned

    def _take_of_block(self) -> None:
        """The next value of the block, or all of it if they are to be given in another order."""
        block = self._block
        assert block is not None
        end = len(block.data)
        while self._at < end:
            self._early[block.indices[self._at]] = self._rebuilding.value(block, self._at)
            self._at += 1
            if not self._ordered:
                break
        if self._at == end:
            self._block = None

    def _refuse(self, index: int, error: Exception) -> None:
        """An input that cannot be a task has an outcome all the same."""
        self._early[index if self._ordered else -1 - index] = True, error

    def _give(self, key: int) -> Result:
        is_error, value = self._early[key]
        self._inputs.caller_leaves()
        self._given += 1
        del self._early[key]
        if is_error:
            raise value
        result: Result = value
        return result

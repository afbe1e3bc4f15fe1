"""MapResults: what `Context.map` and `map_unordered` return.

The function is sent once to each runner, as the setup of a context of the map's own, which shares what the setup of the
user's context returned (slave/mapped.py).  Each input is a task; many of short calls are one object in the master
(core/chunk.py), and what they return comes together.  Inputs are taken in the thread that asks for results, as the
slaves need them; an input that fails is that input's error alone.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Generic, TypeVar

from slave.protocol import VALUE, Payload
from slave.signals import came_from_handler

from . import at_hand
from .core.effects import Outcome, Values
from .errors import CheckpointError, InputError, InputTypeError, RemoteError, ResultError
from .outcomes import cannot_be_rebuilt, original, rebuild
from .program import Program
from .quick_values import NO_VALUES, QuickValues
from .service.mailbox import Mailbox, still_in

Result = TypeVar("Result")

_NOTHING = object()
_LONGEST_AHEAD = 60.0  # seconds of work that are fetched ahead at the most
_MOST_IDLE = 4  # maps that are over and kept for the next ones
_MOST_EARLY = 100_000  # results that wait for an earlier one; then no more inputs are taken


class Idle:
    """Mailboxes of maps that are over, by their functions' digests: the next map of the same one needs no other.

    So a program that maps the same function again and again sends it once to each runner, and its time is known.
    """

    def __init__(self) -> None:
        self._mailboxes: dict[bytes, Mailbox] = {}

    def take(self, function: bytes) -> Mailbox | None:
        """One for the function with that digest, if there is one."""
        return self._mailboxes.pop(function, None)

    def keep(self, function: bytes, mailbox: Mailbox) -> None:
        """Keep one, in the place of the oldest if there are several."""
        other = self._mailboxes.pop(function, None)
        self._mailboxes[function] = mailbox
        if other is None and len(self._mailboxes) > _MOST_IDLE:
            other = self._mailboxes.pop(next(iter(self._mailboxes)), None)
        if other is not None:
            other.abandon()

    def abandon(self) -> None:
        """Keep none."""
        while self._mailboxes:
            self._mailboxes.popitem()[1].abandon()


class MapResults(Iterator[Result], Generic[Result]):
    """An iterator over the results of a map, and an asynchronous one.

    What it raises for an input that failed is that input's outcome (`RemoteError`, with its ``index``): the next call
    goes on with the others.  What the inputs' iterable raises comes out too, and then it is asked no more.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        inputs: Iterable[Any],
        dumps: Callable[[Any], Payload],
        program: Program,
        *,
        ordered: bool,
        limit: float | None,
        retries: int,
        ahead: int | None,
        originals: bool,
        context: object,
        when_over: Callable[[Mailbox], None],
    ) -> None:
        self._mailbox, self._inputs, self._dumps, self._program = mailbox, iter(inputs), dumps, program
        mailbox.coming = still_in(self._inputs)
        mailbox.read = True  # inputs are taken when somebody asks for results
        self.record: Callable[[Any, float | None, int, int, Any], object] | None = None  # how inputs are added, if so
        self.record_input: Callable[[Any, int, bool], object] | None = None  # or so
        self._ordered, self._limit, self._retries = ordered, limit, retries
        self._ahead = ahead if ahead is not None else _MOST_EARLY
        self._bounded = ordered or ahead is not None
        self._originals = originals  # errors are what the calls raised, as the standard library's maps have it
        self._context = context  # which is kept: its setup's result is used
        self._at_hand = at_hand.may_be(self._inputs)
        self._turn = threading.RLock()  # one thread at a time asks
        self._asking = self._exhausted = False
        self._taken = self._given = 0  # inputs, results
        self._item: object = _NOTHING  # the next input, if one has left the iterable and was not added
        self._before = mailbox.added  # by earlier maps
        self._early: dict[int, tuple[bool, Any]] = {}  # by index: what is known and has not been given
        self.stream = mailbox.inputs(limit, retries)  # how inputs are added, if there is no `record`
        self._block: Values | None = None  # what came together, and is given one by one
        self._at = 0  # which of it is next
        self._quick = NO_VALUES  # those of it that its thread takes without the lock; then `_at` is not kept
        self._again: list[tuple[Values, int]] = []  # values that were to be given, and could not be rebuilt
        self._rests_until = 0.0  # as of `Feeder`: until then results have precedence over further inputs
        self._left_at, self._away = 0.0, 0.0  # when the last result was given; for how long the caller was away lately
        self._when_over = when_over  # called once, if all inputs were read to their end
        self._over = False
        self._finalizer = weakref.finalize(self, Mailbox.abandon, mailbox)
        self._finalizer.atexit = False

    def __iter__(self) -> MapResults[Result]:
        return self

    def __next__(self) -> Result:
        quick = self._quick
        if quick is not NO_VALUES and quick.thread == threading.get_ident() and not self._feeds_first():
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
                        is_error, value = self._rebuilt(*self._again[-1])
                        again, at = self._again[-1]
                        del self._again[-1]
                        given = again.indices[at], is_error, value
                        break
                    block = self._block
                    if block is not None and not self._early and not self._feeds_first():
                        at = self._at
                        index = block.indices[at]
                        if index == self._given or not self._ordered:
                            is_error, value = self._rebuilt(block, at)
                            self._at, self._given = at + 1, self._given + 1
                            given = index, is_error, value
                            if at + 1 == len(block.data):
                                self._block = None
                            elif not self._bounded and not self._program.main_is_hidden:
                                self._quick = QuickValues(block, at + 1)
                            break
                    key = self._look()
                    if key is not None:
                        is_error, value = self._early[key]
                        self._note_given()
                        del self._early[key]
                        given = key, is_error, value
                        break
                    if self._over or (not self._mailbox.wait(for_tasks=self._room > 0) and self._is_over()):
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
            if self._over or (not await self._mailbox.wait_async(for_tasks=self._room > 0) and self._is_over()):
                raise StopAsyncIteration

    # -- the end

    def close(self) -> None:
        """Take no more inputs, and stop what runs: there are no further results."""
        self._exhausted, self._mailbox.coming = True, 0.0
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
        if not self._exhausted and not self._asking:
            self._feed()
            return False
        if not self._asking:
            self._over = True
            if self._finalizer.detach() is not None:
                self._when_over(self._mailbox)
        return True

    # -- inputs

    @property
    def _room(self) -> int:
        """How many inputs may be taken now."""
        if self._exhausted or self._asking:
            return 0
        return self._ahead - (self._taken - self._given) if self._bounded else 1 << 60

    def _feed(self) -> None:
        """Take as many inputs as are wanted.  Raises what their iterable raises, which is not asked again then."""
        if self._left_at:
            self._away = max(time.monotonic() - self._left_at, 0.9 * self._away)
            self._left_at = 0.0
        began = time.monotonic()
        if self._taken or self._mailbox.recorder is not None:
            wanted = self._mailbox.wanted(min(_LONGEST_AHEAD, 2 * self._away))
        else:  # a short map is over before the dispatcher is asked anything
            wanted = self._mailbox.wanted_at_first()
            self._mailbox.wants_tasks = True
        self._asking = True
        try:
            if self._bounded:
                wanted = min(wanted, self._ahead - (self._taken - self._given))
            while wanted > 0 and self._at_hand and self._mailbox.recorder is None and self._item is _NOTHING:
                wanted -= self._add_some(wanted)
            if wanted > 0:
                self._take_inputs(wanted)
        finally:
            self._asking = False
            self._mailbox.coming = 0.0 if self._exhausted else still_in(self._inputs)
            now = time.monotonic()
            self._rests_until = now + (now - began)

    def _add_some(self, count: int) -> int:
        """Add up to ``count`` inputs that are at hand; returns how many."""
        before, taken = copy.copy(self._inputs), self._taken
        try:
            payloads = at_hand.pickled(self._inputs, count)
            if payloads:
                self._mailbox.add_inputs(self.stream, payloads)
                self._taken += len(payloads)
            else:
                self._at_hand = False
            return len(payloads)
        except BaseException:  # of a signal's handler: have they been added?
            self._taken = self._mailbox.added - self._before
            if self._taken == taken:
                self._inputs = before
            raise

    def _take_inputs(self, count: int) -> None:
        """Add so many inputs, one by one."""
        inputs = self._inputs if self._item is _NOTHING else itertools.chain((self._item,), self._inputs)
        self._item, adding = _NOTHING, False
        try:
            for item in inputs:
                adding = True
                self._add(item)
                adding = False
                count -= 1
                if count == 0:
                    return
        except BaseException as error:
            if adding:
                self._keep(item)
            elif not isinstance(error, KeyboardInterrupt) and not came_from_handler(error):
                self._exhausted = True
                self._mailbox.no_more_tasks()
            raise
        self._exhausted = True
        self._mailbox.no_more_tasks()

    def _keep(self, item: Any) -> None:
        """An input whose adding was interrupted, by a signal's handler, is the next one unless it was added."""
        if self.record is not None or self.record_input is not None:
            return
        if self._mailbox.added > self._before + self._taken:
            self._taken += 1
        else:
            self._item = item

    def _add(self, item: Any) -> None:
        try:
            plain = type(item) in at_hand.ATOMS
            payload = pickle.dumps(item, 5) if plain else self._dumps(item)
            if self.record_input is not None:
                self.record_input(payload, self._taken, plain)
            elif self.record is None:
                self._mailbox.add_input(self.stream, payload)
            else:
                self.record(payload, self._limit, self._retries, self._taken, item)
        except (InputError, CheckpointError) as error:  # it cannot be pickled, or has no key
            index = self._taken
            self._early[index if self._ordered else -1 - index] = True, error
            if self.record is None:
                self._mailbox.add_input(self.stream, None)
        self._taken += 1

    # -- results

    def _look(self) -> int | None:
        """Which of `_early` comes next; None if it has to be waited for."""
        mailbox, early = self._mailbox, self._early
        while True:
            if mailbox.wants_tasks and self._room > 0 and not self._over:
                waiting = mailbox.ready or early or self._block is not None
                if not waiting or time.monotonic() >= self._rests_until:
                    self._feed()
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
        self._early[index] = is_error, self._error(index, value) if is_error else value
        try:
            self._mailbox.took(first)
        except BaseException:
            if self._is_first(first):
                del self._early[index]
            raise

    def _is_first(self, outcome: object) -> bool:
        return bool(self._mailbox.ready) and self._mailbox.ready[0] is outcome

    def _feeds_first(self) -> bool:
        """Whether inputs are to be taken before the next value is given, which is at hand."""
        if self._exhausted:
            return False
        now = time.monotonic()
        if self._mailbox.wants_tasks and now >= self._rests_until:
            return True
        self._left_at = now
        return False

    def _slow_down(self) -> None:
        """Take what is left of the block one by one again."""
        quick = self._quick
        if quick is not NO_VALUES:
            at = quick.stop()
            is_over = at == len(quick.block.data)
            self._at, self._quick = at, NO_VALUES
            if is_over:
                self._block = None

    def _give_again(self) -> Result:
        """A value that could not be rebuilt: the error in its place, if that is still so."""
        is_error, value = self._rebuilt(*self._again[-1])
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
            self._early[block.indices[self._at]] = self._rebuilt(block, self._at)
            self._at += 1
            if not self._ordered:
                break
        if self._at == end:
            self._block = None

    def _rebuilt(self, block: Values, at: int) -> tuple[bool, Any]:
        """One value of a block, or the error in its place."""
        data = block.data[at]
        try:
            if not self._program.main_is_hidden:
                return False, pickle.loads(data)
            return False, self._program.loads(lambda: pickle.loads(data))
        except BaseException as error:  # see `rebuild`
            if came_from_handler(error):
                raise
            outcome = Outcome(block.tasks[at], VALUE, block.slave, data, ())
            if self._mailbox.recorder is not None:
                self._mailbox.recorder.input_cannot_be_rebuilt(block.indices[at])
            return True, self._error(block.indices[at], cannot_be_rebuilt(outcome, error))

    def _error(self, index: int, error: RemoteError) -> BaseException:
        error.index, error.label = index, error.label or self._mailbox.label
        return original(error) if self._originals else error

    def _note_given(self) -> None:
        if not self._exhausted:
            self._left_at = time.monotonic()
        self._given += 1

    def _give(self, key: int) -> Result:
        is_error, value = self._early[key]
        self._note_given()
        del self._early[key]
        if is_error:
            raise value
        result: Result = value
        return result


def inputs_of(function: object, iterables: tuple[Iterable[Any], ...]) -> Iterator[Any]:
    """The inputs of a map; where there are several iterables, tuples of arguments.  Raises `InputTypeError`."""
    if not callable(function):
        raise InputTypeError(f"map takes a callable first, and {function!r} is none")
    if not iterables:
        raise InputTypeError("map takes a callable and at least one iterable of inputs")
    try:
        return iter(iterables[0]) if len(iterables) == 1 else zip(*iterables)
    except TypeError as error:
        raise InputTypeError(f"map takes iterables of inputs: {error}") from None

"""MapInputs: what a map's inputs are taken from, and how they become tasks.

They are taken in the thread that asks for results, as many as the slaves need, so that iterables may be endless.  What
interrupts that, a signal's handler or the iterable itself, loses no input and adds none twice.
"""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable

from slave.protocol import Payload
from slave.signals import came_from_handler

from . import at_hand
from .checks import check_count, check_key
from .core.chunk import NO_TASK
from .core.users import MOST_AT_HAND, MOST_EACH
from .errors import CheckpointError, InputError, InputTypeError
from .service.mailbox import Mailbox, still_in

if TYPE_CHECKING:
    from .checkpoint.recorder import Recorder

Refuse = Callable[[int, Exception], None]  # an input's index, and why it cannot be a task

_NOTHING = object()
_LONGEST_AHEAD = 60.0  # seconds of work that are fetched ahead at the most


class MapInputs:
    """The inputs of one map.  Used by one thread at a time, but for `come_first`.

    ``dumps`` pickles one; ``limit``, ``retries``: of each; ``ahead``: so many are taken ahead of the results that were
    given, at the most, or None: as many as the slaves need.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        inputs: Iterator[Any],
        dumps: Callable[[Any], Payload],
        *,
        limit: float | None,
        retries: int,
        ahead: int | None,
    ) -> None:
        self._mailbox, self._inputs, self._dumps = mailbox, inputs, dumps
        self._limit, self._retries, self._ahead = limit, retries, ahead
        mailbox.coming = still_in(inputs)
        self._stream = mailbox.inputs(limit, retries)  # how they are added, if there is no `_record`
        self._record: Callable[[Any, float | None, int, int, Any], object] | None = None  # how they are added, if so
        self._record_input: Callable[[Any, int, bool], object] | None = None  # or so
        self._at_hand = at_hand.may_be(inputs)
        self.asking = self.exhausted = False  # the iterable is being asked; it has no more, or is asked no more
        self._taken = 0
        self._item: object = _NOTHING  # the next input, if one has left the iterable and was not added
        self._before = mailbox.added  # by earlier maps
        self._rests_until = 0.0  # as of `Feeder`: until then results have precedence over further inputs
        self._left_at, self._away = 0.0, 0.0  # when the last result was given; for how long the caller was away lately
        self._quickly = 0  # results that were given since then, without a look at the clock

    @property
    def bounded(self) -> bool:
        """Whether it matters how many results were given."""
        return self._ahead is not None

    def record_by(self, recorder: Recorder, name: str, key: Callable[..., str] | None, starred: bool) -> None:
        """Add them by way of a recorder, by their keys if there is a ``key`` that makes these.

        ``name``: of the function; ``starred``: each is several arguments.
        """
        if key is None:
            self._record_input = recorder.begin_inputs(self._stream, name)
        else:
            self._record = functools.partial(_record_input, recorder, name, starred, key)

    def close(self) -> None:
        """Take no more."""
        self.exhausted, self._mailbox.coming = True, 0.0

    # -- when

    def room(self, given: int) -> int:
        """How many may be taken now, if so many results were given."""
        if self.exhausted or self.asking:
            return 0
        return 1 << 60 if self._ahead is None else self._ahead - (self._taken - given)

    def rested(self) -> bool:
        """Whether some may be taken although results wait."""
        return time.monotonic() >= self._rests_until

    def come_first(self) -> bool:
        """Whether some are to be taken before the next value is given, which is at hand; if not, it is given now."""
        if self.exhausted:
            return False
        now = time.monotonic()
        if self._mailbox.wants_tasks and now >= self._rests_until:
            return True
        self._left_at, self._quickly = now, 0
        return False

    def gave(self, count: int) -> None:
        """So many values were given since `come_first` was asked."""
        self._quickly += count

    def caller_leaves(self) -> None:
        """A result is given."""
        if not self.exhausted:
            self._left_at, self._quickly = time.monotonic(), 0

    # -- taking

    def feed(self, given: int, refuse: Refuse) -> None:
        """Take as many as are wanted, if so many results were given.

        ``refuse`` is told of each that cannot be pickled, or has no key.  Raises what the iterable raises, which is not
        asked again then, and what adding a task raises.
        """
        if self._left_at:
            away = (time.monotonic() - self._left_at) / (1 + self._quickly)
            self._away = max(away, 0.9 * self._away)
            self._left_at, self._quickly = 0.0, 0
        began = time.monotonic()
        if self._taken or self._mailbox.recorder is not None:
            quick = self._at_hand and self._mailbox.recorder is None
            most = MOST_AT_HAND if quick else MOST_EACH
            wanted = self._mailbox.wanted(min(_LONGEST_AHEAD, 2 * self._away), most)
        else:  # a short map is over before the dispatcher is asked anything
            wanted = self._mailbox.wanted_at_first()
            self._mailbox.wants_tasks = True
        self.asking = True
        try:
            if self._ahead is not None:
                wanted = min(wanted, self._ahead - (self._taken - given))
            while wanted > 0 and self._at_hand and self._mailbox.recorder is None and self._item is _NOTHING:
                wanted -= self._add_some(wanted)
            if wanted > 0:
                self._take(wanted, refuse)
        finally:
            self.asking = False
            self._mailbox.coming = 0.0 if self.exhausted else still_in(self._inputs)
            now = time.monotonic()
            self._rests_until = now + (now - began)

    def _add_some(self, count: int) -> int:
        """Add up to ``count`` inputs that are at hand; returns how many."""
        before, taken = copy.copy(self._inputs), self._taken
        try:
            payloads = at_hand.taken(self._inputs, count)
            if payloads:
                self._mailbox.add_inputs(self._stream, payloads)
                self._taken += len(payloads)
            else:
                self._at_hand = False
            return len(payloads)
        except BaseException:  # of a signal's handler: have they been added?
            self._taken = self._mailbox.added - self._before
            if self._taken == taken:
                self._inputs = before
            raise

    def _take(self, count: int, refuse: Refuse) -> None:
        """Add so many, one by one."""
        inputs = self._inputs if self._item is _NOTHING else itertools.chain((self._item,), self._inputs)
        self._item, adding = _NOTHING, False
        try:
            for item in inputs:
                adding = True
                self._add(item, refuse)
                adding = False
                count -= 1
                if count == 0:
                    return
        except BaseException as error:
            if adding:
                self._keep(item)
            elif not isinstance(error, KeyboardInterrupt) and not came_from_handler(error):
                self.exhausted = True
                self._mailbox.no_more_tasks()
            raise
        self.exhausted = True
        self._mailbox.no_more_tasks()

    def _keep(self, item: Any) -> None:
        """An input whose adding was interrupted, by a signal's handler, is the next one unless it was added."""
        if self._record is not None or self._record_input is not None:
            return
        if self._mailbox.added > self._before + self._taken:
            self._taken += 1
        else:
            self._item = item

    def _add(self, item: Any, refuse: Refuse) -> None:
        try:
            recorded = self._record_input is not None or self._record is not None
            if not recorded and at_hand.stands_for_itself(item):
                self._mailbox.add_input(self._stream, item)
                self._taken += 1
                return
            plain = type(item) in at_hand.PICKLED
            payload = pickle.dumps(item, 5) if plain else self._dumps(item)
            if self._record_input is not None:
                self._record_input(payload, self._taken, plain)
            elif self._record is None:
                self._mailbox.add_input(self._stream, payload)
            else:
                self._record(payload, self._limit, self._retries, self._taken, item)
        except (InputError, CheckpointError) as error:  # it cannot be pickled, or has no key
            refuse(self._taken, error)
            if self._record is None:
                self._mailbox.add_input(self._stream, NO_TASK)
        self._taken += 1


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


def check_options(buffersize: int | None, key: object) -> int | None:
    """The first.  Raises `InputError`, `InputTypeError` for what these cannot be in a map."""
    if key is not None and not callable(key):
        raise InputTypeError(f"a map's key must be callable: it makes each input's key, and {key!r} is not")
    return None if buffersize is None else check_count(buffersize, "buffersize")


def _record_input(
    recorder: Recorder,
    name: str,
    starred: bool,
    key: Callable[..., str],
    payload: bytes,
    timeout: float | None,
    retries: int,
    index: int,
    item: Any,
) -> None:
    """Add an input of a map, by way of its recorder."""
    try:
        made = key(*item) if starred else key(item)
    except Exception as error:
        raise InputError(f"the key of input {index} cannot be made: {type(error).__name__}: {error}") from error
    recorder.add(payload, name, timeout, retries, key=check_key(made), tag=index)

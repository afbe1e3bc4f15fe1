"""The dispatcher: the one thread that calls the scheduler.

    who                              what it leaves here
    slaves' connections (server.py)  calls, read by this thread itself
    users' threads (mailbox.py)      calls by `call`, `ask` and `tell`; tasks in `State.incoming`
    launchers' threads               calls (launch_service.py)
    the acceptor's thread            connections that proved that they hold the key
    the expiry timer                 ticks, in this thread

Each turn of its loop: wait; read what came; call the scheduler; carry out its effects in their order; hand its events
to the publisher.  While outcomes of short tasks come one by one it rests between turns, and has several at once
(core/company.py).  There is no lock: nobody else touches the scheduler, so a user's signal handler or finalizer that
interrupts any line of any other thread finds nothing locked, and nothing half done.  Nothing here runs a user's or a
launcher's code, opens a file, writes a log or waits for one peer: what may block goes to `side_threads`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable, Protocol

from ..core.company import ASKED, Company
from ..core.effects import Answer, Deliver, Forsaken, HangUp, Pause, Refuse, WantTasks
from ..core.pacing import LEASE_SECONDS
from ..core.scheduler import Scheduler
from ..errors import Error, InternalError, ManagerClosed
from .courier import Courier
from .lock_free import drained
from .poller import new_poller
from .publisher import Publisher
from .side_threads import SideThreads
from .ticket import Ticket
from .timer import ExpiryTimer

_LONG_TURN = 0.002  # seconds: others of this program have kept the interpreter meanwhile
_LOOK_AGAIN = 1.0  # seconds; whoever waits for this thread looks whether it lives

Method = Callable[..., Any]


class Connections(Protocol):
    """What serves the slaves' connections in this thread."""

    def carry_out(self, now: float) -> None:
        """Call the scheduler with what was read in this turn."""

    def hang_up(self, whose: HangUp) -> None:
        """Hang up on one."""

    def shut(self) -> None:
        """Hang up on all."""


class Box(Protocol):
    """Where outcomes are put for the user's threads: see mailbox.py."""

    ready: deque[Any]
    wants_tasks: bool
    paused: bool
    added: int
    all_known: int
    coming: float

    @property
    def never_read(self) -> bool:
        """Whether there are results and nobody has asked for one."""

    def deliver(self, outcomes: Sequence[Any]) -> None:
        """Outcomes, in the order of their coming."""

    def forsake(self, forsaken: Forsaken) -> None:
        """Nobody can run these tasks, and they are dropped."""

    def fail(self, error: BaseException) -> None:
        """A thread of the master has died: nothing more comes."""


class Waiter(Protocol):
    """What a question of a user's thread is answered by: a `Ticket`, where no other thread than that one waits."""

    def answer(self, value: object) -> None:
        """Here it is.  Called in this thread: what it does is done at once, and waits for nothing."""

    def refuse(self, error: BaseException) -> None:
        """Raise this in its place."""


class Dispatcher(threading.Thread):
    """See the module's text."""

    def __init__(self, scheduler: Scheduler, publisher: Publisher) -> None:
        super().__init__(name="parallel dispatcher", daemon=True)
        self.scheduler, self.publisher = scheduler, publisher
        self.side_threads = SideThreads()
        self.courier = Courier()
        self.began, self.pid = time.monotonic(), os.getpid()
        self.connections: Connections | None = None
        self.mailboxes: dict[int, Box] = {}
        self.never_read = 0  # contexts that are gone, and nobody asked for their results
        self.failure: BaseException | None = None  # why it, or another thread of the master, died
        self.company = Company(scheduler.state)
        self._timer = ExpiryTimer(scheduler)
        self._inbox: deque[tuple[Ticket | None, Method, tuple[Any, ...]]] = deque()
        self._questions: deque[tuple[Waiter, Method, tuple[Any, ...]]] = deque()  # those that could wait
        self._waiting: dict[Waiter, None] = {}  # those for users' threads that the scheduler has
        self._poller = new_poller()
        self._waker, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._poller.watch(self._waker, self._woken)
        self._asleep = self._ending = self._over = False

    # -- for other threads

    def tell(self, method: Method, *args: object) -> None:
        """Have this thread call ``method(*args, now)`` soon.  Never waits; for finalizers and signal handlers too."""
        self._inbox.append((None, method, args))
        self.wake()

    def call(self, method: Method, *args: object) -> Any:
        """What ``method(*args, now)`` returns, called by this thread.  Raises what it raises, and `InternalError`."""
        if self._over or threading.current_thread() is self:  # a finalizer may run in the middle of whatever we do
            return method(*args, time.monotonic())
        ticket = Ticket()
        self._inbox.append((ticket, method, args))
        self.wake()
        self.wait_for(ticket)
        return ticket.result()

    def wait_for(self, ticket: Ticket, seconds: float | None = None) -> bool:
        """Wait until the ticket is answered, within ``seconds`` if given; False if it was not."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _LOOK_AGAIN if deadline is None else min(_LOOK_AGAIN, deadline - time.monotonic())
            if ticket.wait(left):
                return True
            if self._over and not ticket.answered:  # it had just ended when this was left for it
                self._finish()
            if deadline is not None and time.monotonic() >= deadline:
                return ticket.answered

    def ask(self, ticket: Waiter, method: Method, *args: object) -> None:
        """Have ``method(ticket, *args, now)`` called, which will answer the ticket at some time."""
        self.tell(self._ask, ticket, method, args)

    def see_to_what_is_left(self) -> None:
        """Carry it out here if this thread has ended: for who has asked, and does not wait by `wait_for`."""
        if self._over:
            self._finish()

    def leave(self, ticket: Waiter, method: Method, *args: object) -> None:
        """The same first of all when this thread wakes the next time, for whatever reason."""
        self._questions.append((ticket, method, args))

    def _ask(self, ticket: Waiter, method: Method, args: tuple[object, ...], now: float) -> None:
        self._waiting[ticket] = None
        if self.failure is not None:
            ticket.refuse(self._broken())
        else:
            self._apply()  # what came in this turn is to be seen by who asks for it
            method(ticket, *args, now)

    def wake(self) -> None:
        """Have this thread look at what was left for it."""
        if self._asleep:
            self._asleep = False
            try:
                self._wake.send(b"!")
            except OSError:
                pass  # there is a byte already; or it has ended

    def fail(self, error: BaseException) -> None:
        """A thread of the master has died: whoever waits, or asks for results from now on, is told so."""
        if self.failure is None:
            self.failure = error
            self.publisher.bug(error)
        self.wake()

    def check_alive(self) -> None:
        """Raises `InternalError` if a thread of the master has died, `ManagerClosed` in a fork of its process."""
        if self.failure is not None:
            raise self._broken()

    def stop(self) -> None:
        """End this thread, and wait for that.  May be called twice."""
        self._ending = True
        self._inbox.append((None, lambda now: None, ()))
        self.wake()
        while self.is_alive() and threading.current_thread() is not self:
            self.join(_LOOK_AGAIN)
            self.wake()

    # -- for this thread

    def watch(self, fileobj: Any, on_readable: Callable[[float], None]) -> None:
        """Call ``on_readable(now)`` whenever something can be read there."""
        self._poller.watch(fileobj, on_readable)

    def unwatch(self, fileobj: Any) -> None:
        """Watch it no more."""
        self._poller.unwatch(fileobj)

    def run(self) -> None:
        """The thread's body."""
        try:
            while not self._ending:
                self._turn()
        except BaseException as error:  # a bug of ours, or no memory: nobody may wait for us in vain
            self.fail(error)
        finally:
            self._end()

    def _turn(self) -> None:
        state = self.scheduler.state
        self._asleep = True
        if self._inbox or self._questions or self.failure is not None or (state.incoming and state.idle):
            patience = 0.0
        else:
            patience = max(0.0, state.due - time.monotonic())
        ready = self._poller.wait(patience)
        self._asleep = False
        now = time.monotonic()
        while self._questions:  # whoever asks is answered by what is about to be read, before all else
            self._ask(*self._questions.popleft(), now)
        for on_readable in ready:
            on_readable(now)
        if self.connections is not None:
            self.connections.carry_out(now)
        if state.incoming and state.idle:
            self._apply()  # the slave works while we look at what else there is
        while self._inbox:
            self._carry_out(*self._inbox.popleft(), now)
        if now >= state.due:
            self._timer.ring(now)
        self._apply()
        took, pace = time.monotonic() - now, state.pace
        if ready and (took > _LONG_TURN or pace.lease_seconds > LEASE_SECONDS):
            pace.took_turn(took)
        if self.failure is not None:
            raise self.failure
        if not state.idle:
            rest = self.company.rest(now)
            if rest:
                time.sleep(rest)  # whoever leaves something here meanwhile need not wake us

    def _woken(self, now: float) -> None:
        self._waker.recv(4096)

    def _carry_out(self, ticket: Ticket | None, method: Method, args: tuple[Any, ...], now: float) -> None:
        try:
            value = method(*args, now)
        except Exception as error:
            if ticket is None:
                raise
            ticket.refuse(error)
        else:
            if ticket is not None:
                self.company.disturb(now, ASKED)
                self._apply()  # it may look at what this has done
                ticket.answer(value)

    def hand_over(self) -> None:
        """Carry out what the scheduler has decided so far, although the turn goes on."""
        self._apply()

    def _apply(self) -> None:
        """Carry out the effects in their order, and hand the events on."""
        effects, events = self.scheduler.take(time.monotonic())
        for effect in effects:
            kind = type(effect)
            if kind is Answer:
                effect.call.answer(effect.value)  # type: ignore[union-attr]
                self._waiting.pop(effect.call, None)  # type: ignore[union-attr]
            elif kind is Deliver:
                box = self.mailboxes.get(effect.context)  # type: ignore[union-attr]
                if box is not None:
                    self._deliver(effect, box)  # type: ignore[arg-type]
            else:
                self._apply_rare(effect)
        if events:
            self.publisher.publish(events)

    def _deliver(self, effect: Deliver, box: Box) -> None:
        """Hand outcomes over.  If they are the last ones, and no task is on its way, readers need not ask whether."""
        added = box.added  # before the look at the tasks on their way: see Mailbox.add
        box.deliver(effect.outcomes)
        if effect.last and not self.scheduler.state.incoming:
            box.all_known = added

    def _apply_rare(self, effect: object) -> None:
        if isinstance(effect, Refuse):
            effect.call.refuse(effect.reason)
        elif isinstance(effect, HangUp) and self.connections is not None:
            self.connections.hang_up(effect)
        elif isinstance(effect, (WantTasks, Pause, Forsaken)):
            box = self.mailboxes.get(effect.context)
            if box is None:
                return
            if isinstance(effect, WantTasks):
                box.wants_tasks = True
            elif isinstance(effect, Forsaken):
                box.forsake(effect)
            else:
                box.paused = effect.on

    def _broken(self) -> Error:
        error = self.failure
        if isinstance(error, ManagerClosed):
            return ManagerClosed(str(error))
        return InternalError(
            f"a thread of this manager has died of {type(error).__name__}: {error}. This is a bug in parallel, please "
            f"report it with the traceback that was logged. Results that are known can still be read; for the rest "
            f"start the program again"
        )

    def _end(self) -> None:
        """Leave nobody waiting."""
        self._over = True
        if self.failure is not None and self.connections is not None:
            self.connections.shut()
        self._finish()
        if self.failure is not None:
            for box in list(self.mailboxes.values()):
                box.fail(self._broken())
        self.side_threads.end()
        self.courier.stop()
        self._poller.close()
        self._waker.close()
        self._wake.close()

    def _finish(self) -> None:
        """Carry out what is left: the loop runs no more, and only what a closed manager answers can come."""
        for ticket in list(self._waiting) if self.failure is not None else ():
            ticket.refuse(self._broken())
        for question in drained(self._questions):
            self._ask(*question, time.monotonic())
        for ticket_or_none, method, args in drained(self._inbox):
            if self.failure is None or method == self._ask:  # which refuses then
                self._carry_out(ticket_or_none, method, args, time.monotonic())
            elif ticket_or_none is not None:
                ticket_or_none.refuse(self._broken())
        if self.failure is None:
            self._apply()

    def forsake(self) -> None:
        """In a forked process, which has no such thread: close its copies of the descriptors."""
        self._over = True
        if os.getpid() != self.pid:
            self.failure = ManagerClosed(f"this manager belongs to process {self.pid}, of which this one is a fork")
        self._poller.close()
        self._waker.close()
        self._wake.close()

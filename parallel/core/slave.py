"""The states of a slave and the tables of its moves; and what the master knows of slaves and agents.

A slave is a number with an output file; the process behind it, its runner, may die and be replaced.  Two things change
independently, so there are two machines, as h11 has one for each side of a connection.

What becomes of it:

    EXPECTED   launched, or its agent has enlisted, and no runner has joined since
    READY      its runner has joined and may be given tasks
    DRAINING   its agent was asked to end: it gets no more tasks, and ends when the running one is done
    DISMISSED  the user had it removed: as DRAINING, and also if its engine starts it again
    PARTED     it left; its launcher has the last word, since its engine may start it again
    ENDED      for good; `Scheduler.ended` holds it, and nothing walks it any more

               +---- replace ----+
               v                 |
    launch -> EXPECTED - join -> READY - drain -> DRAINING       any of them - dismiss -> DISMISSED
               ^ ^               |                  |                          - part ---> PARTED
               | +-- start over -+------------------+                          - end ----> ENDED
               +---- start over -- PARTED

What we hear of it:

    UNHEARD    nothing yet: it cannot be missed
    HEARD      it is heard, and missed from `due` on
    CUT_OFF    its agent's connection has ended: missed from an earlier `due` on, unless that comes back
    LOST       it was missed, and its tasks went elsewhere; it may come back
"""

from __future__ import annotations

import enum
import math
from typing import Any

from .moves import next_state


class Life(enum.Enum):
    """What becomes of a slave."""

    EXPECTED = "expected"
    READY = "ready"
    DRAINING = "draining"
    DISMISSED = "dismissed"
    PARTED = "parted"
    ENDED = "ended"


class Contact(enum.Enum):
    """What is heard of a slave."""

    UNHEARD = "unheard"
    HEARD = "heard"
    CUT_OFF = "cut off"
    LOST = "lost"


class Move(enum.Enum):
    """What can happen to a slave."""

    JOIN = "join"  # a runner says that it is this slave
    REPLACE = "replace"  # the runner has ended, and its agent starts another one
    DRAIN = "drain"  # its agent was asked to end it
    DISMISS = "dismiss"  # the user removed it
    PART = "part"  # its agent has ended, and its launcher is to say what that means
    START_OVER = "start over"  # its agent's processes are gone, and others are on their way
    END = "end"


class Sign(enum.Enum):
    """What can change in what is heard of a slave."""

    HEAR = "hear"
    CUT = "cut"
    MISS = "miss"
    FORGET = "forget"  # its processes are gone: nothing can be heard until the next ones come


_L, _C = Life, Contact
MOVES: dict[tuple[Life, Move], Life] = {
    **{(state, Move.END): _L.ENDED for state in Life if state is not _L.ENDED},
    **{(state, Move.DISMISS): _L.DISMISSED for state in Life if state is not _L.ENDED},
    **{(state, Move.START_OVER): _L.EXPECTED for state in (_L.EXPECTED, _L.READY, _L.DRAINING, _L.PARTED)},
    **{(state, Move.PART): _L.PARTED for state in (_L.EXPECTED, _L.READY, _L.DRAINING, _L.PARTED)},
    **{(state, Move.JOIN): _L.READY for state in (_L.EXPECTED, _L.READY, _L.PARTED)},
    **{(state, Move.REPLACE): _L.EXPECTED for state in (_L.EXPECTED, _L.READY, _L.PARTED)},
    **{(state, Move.DRAIN): _L.DRAINING for state in (_L.EXPECTED, _L.READY, _L.DRAINING, _L.PARTED)},
    **{(_L.DRAINING, move): _L.DRAINING for move in (Move.JOIN, Move.REPLACE)},
    **{(_L.DISMISSED, move): _L.DISMISSED for move in (Move.JOIN, Move.REPLACE, Move.DRAIN, Move.START_OVER)},
}
SIGNS: dict[tuple[Contact, Sign], Contact] = {
    **{(state, Sign.HEAR): _C.HEARD for state in Contact},
    **{(state, Sign.FORGET): _C.UNHEARD for state in Contact},
    **{(state, Sign.CUT): _C.CUT_OFF for state in (_C.HEARD, _C.CUT_OFF)},
    **{(state, Sign.MISS): _C.LOST for state in (_C.HEARD, _C.CUT_OFF)},
}
LEAVING = (Life.DRAINING, Life.DISMISSED)


class SlaveRecord:
    """What the master knows of one slave.  Only the scheduler writes here."""

    __slots__ = (
        "_named", "_text", "agent", "came", "connection", "contact", "doing", "done", "due", "end", "first",
        "has_launcher", "heard", "host", "knows", "label", "lacks", "life", "losses", "lost_answers", "memory", "name",
        "number", "open_ended", "output", "parting", "picky", "pid", "running", "setup_failed", "since", "speaks",
        "stopped", "to_forget", "told_to_forget", "unfit_for", "worked",
    )  # fmt: skip

    def __init__(self, number: int, name: str, agent: str, output: str | None = None) -> None:
        self.number, self.name, self.agent, self.output = number, name, agent, output
        self.life, self.contact = Life.EXPECTED, Contact.UNHEARD
        self.host, self.pid = "", 0  # of its runner; pid 0: there is none that we know
        self.connection = 0  # which of its runner's connections is the current one
        self.speaks = False  # that one was not read to its end yet
        self.heard, self.due = 0.0, math.inf  # when the last sign of life came; from when on it is missed
        self.running = 0  # the task that its last heartbeat named
        self.since = 0.0  # when that was first said
        self.has_launcher = False  # a launcher will say when it has ended for good
        self.open_ended = False  # its agent brings as many more as its machine has processors
        self.doing = ""  # what its launcher says that it does, while it is not connected
        self.parting = ""  # PARTED: why it left
        self.end = ""  # how it ended, or how its last runner did
        self.lost_answers = 0, 0  # leases in a row that did not arrive; what `done` was then
        self.done = 0  # tasks settled by it
        self.came: float | None = None  # when a runner first joined as this slave
        self.worked = 0.0  # seconds for which its runners ran tasks, as far as they have told
        self.first, self.label = 0, ""  # the first task of its last lease; the label of that, if it has one
        self.memory = 0  # bytes that its runner uses, as its last heartbeat said
        self.stopped = False  # its runner's process is, as that said
        self.losses = 0  # how often its runner ended or was not heard of, against our will
        self.setup_failed: set[int] = set()  # contexts whose setup failed here: it gets none of their tasks
        self.unfit_for: set[int] = set()  # contexts of which it could rebuild no task: it gets none of them either
        self.lacks: set[int] = set()  # contexts that need what its machine does not have
        self.picky = False  # it could not rebuild some task
        self.knows: set[int] = set()  # contexts that its runner may have set up
        self.to_forget: list[int] = []  # contexts that are gone and that its runner has not been told of
        self.told_to_forget: list[int] = []  # of which it was told, in an answer that may be lost
        self._text, self._named = "", ("", "", 0)

    def __str__(self) -> str:
        named = self.name, self.host, self.pid
        if self._named != named:  # made once for each runner: every result names its slave
            pid = f", pid {self.pid}" if self.pid else ""
            where = f" on {self.host}{pid}" if self.host else ""
            self._text, self._named = f"slave {self.number} ({self.name}{where})", named
        return self._text

    def move(self, move: Move) -> None:
        """Change what becomes of it.  Raises `IllegalMove` and changes nothing if the table does not have it."""
        self.life = next_state(MOVES, self.life, move, self)

    def sign(self, sign: Sign) -> None:
        """Change what is heard of it.  Raises `IllegalMove` and changes nothing if the table does not have it."""
        self.contact = next_state(SIGNS, self.contact, sign, self)

    @property
    def leaving(self) -> bool:
        """Whether it was asked to end, and gets no more tasks."""
        return self.life in LEAVING

    @property
    def connected(self) -> bool:
        """Whether it may be given tasks: joined, not asked to end, not lost."""
        return self.life is Life.READY and self.contact is not Contact.LOST

    @property
    def joined(self) -> bool:
        """Whether a runner has joined and is not known to have ended."""
        return self.pid != 0 and self.life in (Life.READY, Life.DRAINING, Life.DISMISSED)

    @property
    def alive(self) -> bool:
        """Whether it works or may be about to."""
        return self.life is not Life.ENDED and self.contact is not Contact.LOST

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold.  For tests."""
        assert (self.due < math.inf) == (self.contact is not Contact.UNHEARD) or self.life is Life.ENDED, str(self)
        assert self.life is not Life.READY or self.pid, f"{self} is ready without a runner"
        assert bool(self.parting) <= (self.life is not Life.READY), f"{self} is ready and has parted"


class AgentRecord:
    """What the master knows of one agent.  Only the scheduler writes here."""

    __slots__ = (
        "accepted", "call", "commands", "connection", "ended", "enlisted", "host", "id", "is_local", "last_command",
        "numbers", "pid", "slaves", "tags", "version", "waits_until",
    )  # fmt: skip

    def __init__(self, id: str) -> None:
        self.id = id
        self.host, self.pid, self.version = "", 0, ""
        self.tags: frozenset[str] = frozenset()  # what its machine has, as whoever started it says
        self.enlisted = False
        self.is_local = False  # a child of this process, started for its LocalSlaves
        self.numbers: list[int] = []  # its slaves when it enlisted first, in the order in which it asked for them
        self.slaves: dict[int, SlaveRecord] = {}  # those that have not ended
        self.ended: dict[int, SlaveRecord] = {}  # the others
        self.connection = 0  # which of its reports connections is the current one
        self.accepted = 0  # which of all connections that were accepted that one is
        self.commands: list[tuple[int, Any]] = []  # numbered, given and not yet acknowledged
        self.last_command = 0
        self.call: Any = None  # its call for commands, while that waits for one
        self.waits_until = 0.0  # when that call is answered with none

"""The four calls by which launchers see the rest of the master: expect, describe, started, ended.

What stands behind them (parallel/service/launch_service.py) has its own thread; each call returns in well under a
millisecond, whatever the caller holds, and may be made from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from slave.named import NamedTuple


class ExpectedSlave(NamedTuple):
    """A slave that is to come.

    ``open_ended``: its agent brings as many more as its machine has CPUs to use.  ``has_launcher``: a launcher will say
    when it has ended for good, since its engine may start it again; else its agent's end is its end.
    """

    name: str
    open_ended: bool = False
    has_launcher: bool = True


class SlaveView(NamedTuple):
    """A slave as it is now.

    ``text``: as messages name it.  ``came``: its agent is or was connected since it was started last.  ``lost``: it was
    connected, and is not heard of or has left.  ``ended``: for good.  ``done``: how many tasks it has
    run.
    """

    number: int
    text: str
    output: str | None
    came: bool
    lost: bool
    ended: bool
    done: int = 0


class SlaveService(Protocol):
    """See the module's text.  An agent is named by a random text that the launcher chose for one slave program."""

    def expect(self, agent: str, slaves: Sequence[ExpectedSlave]) -> list[int]:
        """Agent ``agent`` is to bring these slaves; returns their numbers.  The agent need not have been started."""
        ...

    def describe(self, agent: str) -> list[SlaveView]:
        """All slaves of an agent, those that it brought of itself among them; [] for an agent that is not known."""
        ...

    def started(
        self,
        agent: str,
        numbers: Sequence[int],
        *,
        names: Mapping[int, str] | None = None,
        doing: str | None = None,
        by_agent: bool = False,
    ) -> None:
        """What the launcher says of slaves when it has started them, and as often as it knows more.

        ``names``: better names than before, by number.  ``doing``: what they do as long as they are not connected.
        ``by_agent``: their agent runs already, and is to start them: it is commanded to, with the output files that
        the manager's pattern gives.
        """
        ...

    def ended(
        self,
        agent: str,
        why: str,
        *,
        numbers: Sequence[int] | None = None,
        last_words: Mapping[int, str] | None = None,
        successor: str | None = None,
    ) -> list[int]:
        """The slave program has ended: its slaves (default: all of its) are no more, their tasks go elsewhere.

        ``last_words``: by number, the end of its output, to be told with ``why``.  ``successor``: another agent that is
        about to be started in its place; if the ended one had come, its slaves move to that one, but for those that
        were asked to end; returns the numbers of these.
        """
        ...

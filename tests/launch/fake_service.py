"""A strict fake of the service that launchers see: a test takes each call that tells it something, and none is left."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TypeVar

from parallel.launch.slave_service import ExpectedSlave, SlaveView
from tests.support.waiting import eventually


@dataclasses.dataclass
class Expected:
    """A call of expect, and the numbers that were given."""

    agent: str
    slaves: list[ExpectedSlave]
    numbers: list[int]


@dataclasses.dataclass
class Started:
    """A call of started."""

    agent: str
    numbers: list[int]
    names: dict[int, str]
    doing: str | None
    by_agent: bool


@dataclasses.dataclass
class Ended:
    """A call of ended; ``numbers`` None: all slaves of the agent.  ``moved`` is what it returned."""

    agent: str
    why: str
    numbers: list[int] | None
    last_words: dict[int, str]
    successor: str | None
    moved: list[int]


Call = TypeVar("Call", Expected, Started, Ended)


class _Slave:
    def __init__(self, agent: str, name: str, output: str | None) -> None:
        self.agent, self.name, self.output = agent, name, output
        self.came = self.lost = self.ended = False
        self.done = 0


class FakeService:
    """See the module's text; ``output``: pattern for the names of output files, as the manager's."""

    def __init__(self, output: str | None = None) -> None:
        self._output = output
        self._lock = threading.Lock()  # guards what follows
        self._slaves: dict[int, _Slave] = {}
        self._calls: list[Expected | Started | Ended] = []
        self._wrong: list[str] = []

    # -- what the test does

    def take(self, kind: type[Call], *numbers: int, seconds: float = 60.0) -> Call:
        """Wait for a call about these slaves, and remove the first such one from those that were made."""
        call = eventually(lambda: self._find(kind, numbers), seconds, f"{kind.__name__}{numbers}")
        assert call is not None
        return call

    def take_all(self) -> None:
        """Remove all calls that were made: of which nobody can say how many they are."""
        with self._lock:
            self._calls.clear()

    def nothing_left(self) -> None:
        """Fails if a call was not taken, or one could not be."""
        with self._lock:
            assert self._wrong == []
            assert self._calls == [], "nobody took these calls"

    def come(self, *numbers: int) -> None:
        """These slaves connect."""
        with self._lock:
            for number in numbers:
                self._slaves[number].came, self._slaves[number].lost = True, False

    def work(self, tasks: int) -> None:
        """All slaves have done so many tasks more."""
        with self._lock:
            for one in self._slaves.values():
                one.done += tasks

    def lose(self, number: int) -> None:
        """A slave that had come is not heard any more."""
        with self._lock:
            self._slaves[number].lost = True

    def bring(self, number: int) -> int:
        """The agent of that slave brings another one; returns its number."""
        with self._lock:
            one = self._slaves[number]
            return self._add(one.agent, one.name, came=True)

    def agent_of(self, number: int) -> str:
        """The agent that has that slave now."""
        with self._lock:
            return self._slaves[number].agent

    def states(self) -> list[str]:
        """Of each slave whether it 'came', 'ended', or is 'expected'."""
        with self._lock:
            return ["ended" if one.ended else "came" if one.came else "expected" for one in self._slaves.values()]

    def _find(self, kind: type[Call], numbers: Sequence[int]) -> Call | None:
        with self._lock:
            for call in self._calls:
                if isinstance(call, kind) and set(numbers) <= set(self._about(call)):
                    self._calls.remove(call)
                    return call
        return None

    def _about(self, call: Expected | Started | Ended) -> list[int]:
        if isinstance(call, Ended) and call.numbers is None:
            return [*(number for number, one in self._slaves.items() if one.agent == call.agent), *call.moved]
        return call.numbers or []

    # -- what the launcher does

    def expect(self, agent: str, slaves: Sequence[ExpectedSlave]) -> list[int]:
        with self._lock:
            numbers = [self._add(agent, one.name) for one in slaves]
            self._calls.append(Expected(agent, list(slaves), numbers))
            return numbers

    def describe(self, agent: str) -> list[SlaveView]:
        with self._lock:
            return [
                SlaveView(number, f"slave {number} ({one.name})", one.output, one.came, one.lost, one.ended, one.done)
                for number, one in self._slaves.items()
                if one.agent == agent
            ]

    def started(
        self,
        agent: str,
        numbers: Sequence[int],
        *,
        names: Mapping[int, str] | None = None,
        doing: str | None = None,
        by_agent: bool = False,
    ) -> None:
        with self._lock:
            self._check("started", agent, numbers)
            self._calls.append(Started(agent, list(numbers), dict(names or {}), doing, by_agent))
            for number, name in (names or {}).items():
                self._slaves[number].name = name

    def ended(
        self,
        agent: str,
        why: str,
        *,
        numbers: Sequence[int] | None = None,
        last_words: Mapping[int, str] | None = None,
        successor: str | None = None,
    ) -> list[int]:
        with self._lock:
            of_agent = [number for number, one in self._slaves.items() if one.agent == agent and not one.ended]
            self._check("ended", agent, of_agent if numbers is None else numbers)
            came = any(self._slaves[number].came for number in of_agent)
            moved: list[int] = []
            for number in of_agent if numbers is None else numbers:
                one = self._slaves[number]
                if successor is not None and came:
                    one.agent, one.came, one.lost = successor, False, False
                    moved.append(number)
                else:
                    one.ended, one.came = True, False
            given = None if numbers is None else list(numbers)
            self._calls.append(Ended(agent, why, given, dict(last_words or {}), successor, moved))
            return list(moved)

    def _add(self, agent: str, name: str, came: bool = False) -> int:
        number = len(self._slaves)
        output = None if self._output is None else self._output % number
        self._slaves[number] = _Slave(agent, name, output)
        self._slaves[number].came = came
        return number

    def _check(self, call: str, agent: str, numbers: Sequence[int]) -> None:
        """A slave belongs to the agent and has not ended.  Else the call fails, and the test does at its end."""
        wrong = [number for number in numbers if self._slaves[number].agent != agent or self._slaves[number].ended]
        if wrong or not numbers:
            self._wrong.append(f"{call}({agent!r}, {numbers!r}): ended, or of another agent: {wrong}")
            raise AssertionError(self._wrong[-1])

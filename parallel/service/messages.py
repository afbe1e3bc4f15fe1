"""Events and verdicts as lines of text: what the log and the user's errors say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from slave.missing import master_has
from slave.protocol import RELEASE

from ..core import events as ev
from ..core.effects import NoSlaves

Line = tuple[int, str]  # level, text
_FEW = 3  # slaves that have a line each
_MOST_TOLD = 500  # characters of a message in the log


def log_lines(events: Sequence[ev.Event]) -> list[tuple[ev.Event, Line]]:
    """What the log says of events that came together: slaves of which the same is to be told share a line."""
    groups: dict[object, list[ev.Event]] = {}
    for event in events:
        groups.setdefault(_shared(event), []).append(event)
    lines: list[tuple[ev.Event, Line | None]] = []
    for group in groups.values():
        if len(group) > _FEW:
            lines.append((group[0], _line_of_many(group)))
        else:
            lines += [(event, log_line(event)) for event in group]
    return [(event, line) for event, line in lines if line is not None]


def _shared(event: ev.Event) -> object:
    """Equal for events of several slaves that can be told in one line."""
    if isinstance(event, ev.SlaveLost) and not event.given_up:
        return type(event), event.end, event.wanted
    return type(event) if isinstance(event, ev.SlaveLeaving) else id(event)


def _line_of_many(group: Sequence[ev.Event]) -> Line:
    names = ", ".join(some([event.name for event in group if isinstance(event, ev.SlaveEvent)]))
    first = group[0]
    if isinstance(first, ev.SlaveLost):
        fate = _fate(sum(event.tasks for event in group if isinstance(event, ev.SlaveLost)), 0)
        level = logging.INFO if first.wanted else logging.WARNING
        return level, f"parallel: lost {len(group)} slaves: {names}: {first.end}{fate}"
    return logging.WARNING, f"parallel: {len(group)} slaves leave, since their slave program was asked to end: {names}"


def log_line(event: ev.Event) -> Line | None:
    """What the log says of an event; None for nothing."""
    if isinstance(event, ev.SlaveLost):
        level = logging.INFO if event.wanted else logging.WARNING
        fate = _fate(event.tasks, event.given_up)
        return level, f"parallel: lost {event.name}: {event.end}{fate}"
    if isinstance(event, ev.SlaveEnded) and event.given_up:
        return logging.WARNING, f"parallel: {event.name} is given up: {event.end}"
    if isinstance(event, ev.Waiting):
        return logging.WARNING, f"parallel: waiting{_for_what(event)} {what_slaves_do(event)}"
    if isinstance(event, ev.SetupRaised):
        first = event.message.splitlines()[0][:_MOST_TOLD] if event.message else ""
        kind = event.type_name[:_MOST_TOLD]
        text = f"setup raised {kind} on {event.name}, which is out for this context: {first}"
        return logging.WARNING, f"parallel: {text}"
    if isinstance(event, ev.LeaseNotArrived):
        large = "perhaps large packets are lost on the way (the MTU of a tunnel or a VPN)"
        text = f"what is sent to {event.name} has not arrived {event.times} times, though it is heard: {large}"
        return logging.WARNING, f"parallel: {text}; slaves that idle get its tasks"
    if isinstance(event, ev.TaskNotRebuilt):
        return _not_rebuilt(event)
    if isinstance(event, ev.SlaveBack):
        return logging.WARNING, f"parallel: {event.name} is back"
    if isinstance(event, ev.SlaveLeaving):
        return logging.WARNING, f"parallel: {event.name} leaves, since its slave program was asked to end"
    if isinstance(event, ev.ConnectionCut):
        level = logging.INFO if event.again else logging.WARNING
        return level, f"parallel: the connection of {event.peer} {event.why}"
    if isinstance(event, ev.ConnectionRefused) and event.ours:
        return logging.WARNING, f"parallel: a slave program at {event.peer} was refused: {event.why}"
    if isinstance(event, ev.AgentCame) and event.release != RELEASE:
        return logging.WARNING, (
            f"parallel: the slave program on {event.host} is of release {event.release}, this master of {RELEASE}; "
            f"they speak the same protocol and work together"
        )
    if isinstance(event, ev.NeedsUnmet):
        return logging.WARNING, f"parallel: {_unmet(event)}"
    if isinstance(event, ev.CannotAccept):
        return logging.WARNING, f"parallel: {event.why}"
    return _quiet_line(event)


def code_edited(path: str, joined: ev.SlaveJoined) -> Line:
    """A file of the user's was edited while the program runs, and a slave has come that may import it."""
    return logging.WARNING, (
        f"parallel: {path} was edited after this program had read it: slaves that come from now on, as {joined.name}, "
        f"run what it says now, and others what it said before; if that is not meant, end the program and start it anew"
    )


def _not_rebuilt(event: ev.TaskNotRebuilt) -> Line:
    lines = event.message.splitlines() or [""]
    help_ = "; ".join(text for text in (event.remedy, master_has(event.module)) if text)
    why = f"{event.type_name}: {lines[0][:_MOST_TOLD]}" + (f" ({help_})" if help_ else "")
    if event.out:
        text = f"{event.name} is out for context {event.context}, of which it could rebuild no task; last {why}"
    else:
        text = f"{event.name} cannot do task {event.task}, which others may: {why}"
    return logging.WARNING if event.first or event.out else logging.INFO, f"parallel: {text}"


def _quiet_line(event: ev.Event) -> Line | None:
    if isinstance(event, ev.SlaveJoined):
        text = f"{event.name} has joined"
    elif isinstance(event, ev.SlaveEnded):
        text = f"{event.name} has ended: {event.end}"
    elif isinstance(event, ev.AgentCame):
        text = f"the slave program on {event.host} (pid {event.pid}, Python {event.version}) has come"
    elif isinstance(event, ev.ConnectionRefused):
        text = f"a connection from {event.peer} was refused: {event.why}"
    elif isinstance(event, ev.CannotAnnounce):
        text = event.why
    elif isinstance(event, ev.SlaveFileGiven):
        text = f"the slave program was given to {event.peer}"
    elif isinstance(event, ev.CallFailed):
        text = f"a call of {event.method} by {event.peer} failed:\n{event.traceback}"
    elif isinstance(event, ev.ResultsWait):
        text = f"{event.size / 1e6:.0f} MB of results wait to be read; slaves pause meanwhile"
    elif isinstance(event, ev.TaskCopied):
        text = f"task {event.task} runs for long on slave {event.other}; slave {event.slave} runs it too"
    elif isinstance(event, ev.MasterWasStopped):
        text = f"this process was stopped or busy for {event.seconds:.1f} s; no slave is taken for dead because of that"
    else:
        return None
    return logging.INFO, f"parallel: {text}"


def _unmet(event: ev.NeedsUnmet) -> str:
    have = "what is connected has " + (", ".join(event.tags) or "no tags") if event.slaves else "none is connected"
    options = " ".join(f"--tag {tag}" for tag in event.needs)
    remedy = f"; start one with {options}" if event.may_join else ""
    return f"no slave has what this context needs ({', '.join(event.needs)}): {have}{remedy}"


def _fate(back: int, given_up: int) -> str:
    """What becomes of the ``back`` tasks that a lost slave held, of which one may be given up."""
    if not back:
        return ""
    tasks = "; its task goes to another slave" if back == 1 else f"; its {back} tasks go to other slaves"
    if not given_up:
        return tasks
    reason = "given up: it ended its slave too often"
    return f"; its task is {reason}" if back == 1 else f"{tasks}, but for one that is {reason}"


def _for_what(event: ev.Waiting) -> str:
    if event.wanted:
        return f" for {event.wanted} slaves:"
    return f": {event.left} task{'' if event.left == 1 else 's'} left;"


def what_slaves_do(event: ev.Waiting) -> str:
    """Who is connected, who has not come, who is not heard of."""
    parts: list[str] = []
    if event.connected:
        busy = f"{event.busy} busy" + (f", the longest for {event.longest:.0f} s" if event.busy else "")
        parts.append(f"{event.connected} slave{'' if event.connected == 1 else 's'} connected, {busy}")
    if event.expected:
        parts.append("not connected yet: " + "; ".join(grouped(event.expected)))
    if event.lost:
        parts.append("not heard of: " + ", ".join(some(event.lost)))
    if not event.connected and event.may_join:
        parts.append("no slave is connected; slaves may join by hand")
    return "; ".join(parts or ["no slave"])


def grouped(told: Iterable[tuple[str, str]], most: int = 4) -> list[str]:
    """What is told of slaves: those of whom the same is told together, not too many."""
    groups: dict[str, list[str]] = {}
    for slave, text in told:
        groups.setdefault(text, []).append(slave)
    texts = [", ".join(some(who)) + (f": {text}" if text else "") for text, who in list(groups.items())[:most]]
    left = sum(len(who) for who in list(groups.values())[most:])
    return [*texts, f"{left} more"] if left else texts


def some(slaves: Sequence[str], most: int = 4) -> list[str]:
    """The slaves, not too many."""
    return [*slaves[:most], f"{len(slaves) - most} more"] if len(slaves) > most else list(slaves)


def how_all_ended(verdict: NoSlaves) -> str:
    """For `NoMoreSlavesError`: how each slave ended, or what it does if there are too few."""
    count = len(verdict.ends)
    if verdict.needs:
        wanted = ", ".join(verdict.needs)
        summary = f"no slave has what this context needs ({wanted}): give the manager a port and start one with --tag:"
        return "\n  ".join([summary, *grouped(verdict.ends, most=20)])
    if not count:
        return "no slave was added: call add_slave, or give Manager a port and start slaves by hand"
    if not verdict.all_ended:
        summary = f"there are only {count}:" if count > 1 else "there is only one:"
    elif count > 1:
        summary = f"all {count} slaves have ended, and none is to come:"
    else:
        summary = "the only slave has ended:"
    return "\n  ".join([summary, *grouped(verdict.ends, most=20)])

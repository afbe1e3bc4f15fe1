"""What is told of a run in one line: while it goes on, at its end, on terminals of any width."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .status import ContextStatus

_SLOW = 0.1  # seconds of a task from which on it is named
_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


@dataclass(frozen=True)
class Course:
    """How far a run is."""

    tasks: ContextStatus  # all contexts as one
    working: int  # slaves that run a task
    connected: int  # slaves
    trouble: Sequence[str] = ()  # what is wrong, in words


@dataclass(frozen=True)
class Summary:
    """What became of a run."""

    tasks: ContextStatus
    seconds: float  # for which there were tasks
    busy: float  # the share of the slaves' time meanwhile for which they ran tasks, from 0.0 to 1.0
    slaves: int  # that did tasks
    losses: int  # slaves that were lost; one that was lost twice counts twice
    slowest: str = ""  # the label of the task that took longest, of those that a slave ran alone
    slowest_seconds: float = 0.0
    copies: int = 0  # tasks that were started twice
    copies_first: int = 0  # of these, whose second copy was done first


def duration(seconds: float) -> str:
    """'8 s', '1 min 20 s', '2 h 05 min', '3 d 4 h'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds < 0.95 or seconds % 1 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    whole = round(seconds / 60)
    if whole < 24 * 60:
        return f"{whole // 60} h {whole % 60:02d} min"
    return f"{whole // (24 * 60)} d {whole // 60 % 24} h"


def rate(per_second: float) -> str:
    """'45/s', '3.2/min', '0.8/h'."""
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        each = per_second * seconds
        if each >= 0.95 or unit == "h":
            return f"{each:,.0f}/{unit}" if each >= 9.95 else f"{each:.1f}/{unit}"
    raise AssertionError("an hour is the longest")


def width_of(text: str) -> int:
    """The columns that a text takes on a terminal."""
    return sum(_width(one) for one in text)


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text, or its beginning and '...', in so many columns."""
    if width_of(text) <= width:
        return text
    kept, used = "", 0
    for one in text:
        used += _width(one)
        if used > width - 3:
            break
        kept += one
    return (kept.rstrip() + "...")[: max(0, width)]


def clean(text: str) -> str:
    """The text without what a terminal would take for a command, in one line."""
    return "".join(one if one.isprintable() else " " for one in text)


def line(course: Course, width: int = 1000, color: bool = False) -> str:
    """The line while a run goes on, in at most ``width`` columns: what is wrong comes last, and is cut first."""
    for parts in (_long(course), _short(course), _shortest(course)):
        text = ", ".join(parts)
        if width_of(text) <= width:
            break
    else:
        return cut(parts[0], width)
    trouble = clean("; ".join(course.trouble))
    room = width - width_of(text) - 2
    told = cut(trouble, room) if trouble and room >= 8 else ""
    if color:
        failed = next((part for part in parts if part.endswith(("failed", "!"))), "")
        text = text.replace(failed, f"{_RED}{failed}{_PLAIN}") if failed else text
        told = f"{_YELLOW}{told}{_PLAIN}" if told else ""
    return f"{text}: {told}" if told else text


def _of(tasks: ContextStatus) -> str:
    return f"{tasks.known:,}{'' if tasks.complete else '+'}"


def _long(course: Course) -> list[str]:
    tasks = course.tasks
    percent = f" ({100 * tasks.done // tasks.known}%)" if tasks.complete and tasks.known else ""
    parts = [f"{tasks.done:,} of {_of(tasks)} tasks done{percent}"]
    parts += [f"{tasks.failed:,} failed"] if tasks.failed else []
    parts += [rate(tasks.rate)] if tasks.rate else []
    parts += [f"{duration(tasks.time_left)} left"] if tasks.time_left is not None and tasks.complete else []
    return [*parts, f"{course.working} of {course.connected} slave{'' if course.connected == 1 else 's'} busy"]


def _short(course: Course) -> list[str]:
    tasks = course.tasks
    parts = [f"{tasks.done:,}/{_of(tasks)}"]
    parts += [f"{tasks.failed:,} failed"] if tasks.failed else []
    parts += [f"{duration(tasks.time_left)} left"] if tasks.time_left is not None and tasks.complete else []
    return [*parts, f"{course.working}/{course.connected} busy"]


def _shortest(course: Course) -> list[str]:
    tasks = course.tasks
    return [f"{tasks.done:,}/{_of(tasks)}", *([f"{tasks.failed:,}!"] if tasks.failed else [])]


def copies_in_words(copies: int, first: int) -> str:
    """How many tasks were started twice, and how many of their second copies were done first."""
    if copies == 1:
        return f"1 task was started twice, and its copy was {'' if first else 'not '}first"
    return f"{copies:,} tasks were started twice, {first:,} of those copies {'was' if first == 1 else 'were'} first"


def summary_line(summary: Summary, width: int = 1000) -> str:
    """The line at the end of a run that was watched: as much of it as there is room for."""
    tasks = summary.tasks
    count = f"{tasks.done:,}" if not tasks.left and tasks.complete else f"{tasks.done:,} of {_of(tasks)}"
    parts = [f"{count} task{'' if count == '1' else 's'} done in {duration(summary.seconds)}"]
    parts += [f"{tasks.failed:,} failed"] if tasks.failed else []
    if summary.losses:
        parts.append(f"{summary.losses} slave{' was' if summary.losses == 1 else 's were'} lost")
    parts += [copies_in_words(summary.copies, summary.copies_first)] if summary.copies else []
    if summary.slaves:
        parts.append(f"{summary.slaves} slave{'' if summary.slaves == 1 else 's'} busy {100 * summary.busy:.0f}% of it")
    if summary.slowest_seconds >= _SLOW:
        parts.append(f"the slowest task took {duration(summary.slowest_seconds)}: {clean(summary.slowest)}")
    while len(parts) > 1 and width_of("; ".join(parts)) > width:
        parts.pop()
    return "; ".join(parts)

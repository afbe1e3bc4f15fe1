"""What is told in one line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.monitor.status import ContextStatus
from parallel.monitor.words import Course, Summary, cut, duration, line, rate, summary_line, width_of


def tasks(
    done: int = 0,
    left: int = 0,
    failed: int = 0,
    *,
    complete: bool = True,
    each: float = 0.0,
    time: float | None = None,
) -> ContextStatus:
    return ContextStatus(0, "", left, 0, done, failed, 0, complete, each, time)


BUSY = Course(tasks(1234, 3766, 3, each=45, time=83.2), 7, 8, ["slave 3 (SSHSlave('b') on b) is not heard of"])


def test_all_is_told_where_there_is_room() -> None:
    assert line(BUSY) == (
        "1,234 of 5,000 tasks done (24%), 3 failed, 45/s, 1 min 23 s left, 7 of 8 slaves busy: "
        "slave 3 (SSHSlave('b') on b) is not heard of"
    )
    assert line(Course(tasks(1, 8, complete=False), 0, 1)) == "1 of 9+ tasks done, 0 of 1 slave busy"


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (100, "1,234 of 5,000 tasks done (24%), 3 failed, 45/s, 1 min 23 s left, 7 of 8 slaves busy: slave 3 (SS..."),
        (85, "1,234 of 5,000 tasks done (24%), 3 failed, 45/s, 1 min 23 s left, 7 of 8 slaves busy"),
        (60, "1,234/5,000, 3 failed, 1 min 23 s left, 7/8 busy: slave 3..."),
        (48, "1,234/5,000, 3 failed, 1 min 23 s left, 7/8 busy"),
        (47, "1,234/5,000, 3!: slave 3 (SSHSlave('b') on b..."),
        (22, "1,234/5,000, 3!"),
        (14, "1,234/5,000"),
        (7, "1,23..."),
    ],
)  # fmt: skip
def test_what_is_told_where_there_is_less(width: int, text: str) -> None:
    assert line(BUSY, width) == text


numbers = st.integers(0, 10**9)
courses = st.builds(
    Course,
    st.builds(tasks, numbers, numbers, numbers, complete=st.booleans(), each=st.floats(0, 1e7), time=st.floats(0, 1e9)),
    numbers,
    numbers,
    st.lists(st.text(max_size=200), max_size=2),
)


@given(courses, st.integers(7, 200), st.booleans())
def test_it_never_takes_more_room_nor_commands_the_terminal(course: Course, width: int, color: bool) -> None:
    text = re.sub(r"\x1b\[3[13]m|\x1b\[0m", "", line(course, width, color))
    assert width_of(text) <= width and text.isprintable()


@given(st.text(), st.integers(3, 50))
def test_what_is_cut_is_short_enough(text: str, width: int) -> None:
    assert width_of(cut(text, width)) <= max(width, 3)


def test_wide_characters_take_two_columns() -> None:
    assert width_of("日本e\u0301") == 5 and cut("日本語の名前", 8) == "日本..."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (1, "1 s"), (2.55, "2.5 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (83, "1 min 23 s"),
        (3599.7, "1 h 00 min"), (7260, "2 h 01 min"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("each", "text"), [(1234.5, "1,234/s"), (3.21, "3.2/s"), (0.05, "3.0/min"), (0.0002, "0.7/h")])
def test_rates(each: float, text: str) -> None:
    assert rate(each) == text


def test_colors_are_for_what_is_wrong() -> None:
    assert "\x1b[31m3 failed\x1b[0m" in line(BUSY, color=True) and "\x1b[33mslave 3 (" in line(BUSY, color=True)
    assert "\x1b" not in line(Course(tasks(3, 2, each=1.0, time=2.0), 2, 2), color=True)


def test_the_end_of_a_run() -> None:
    summary = Summary(tasks(1234, 0, 2), 83.0, 0.934, 8, 1, "fit of 'run 7'", 12.34)
    assert summary_line(summary) == (
        "1,234 tasks done in 1 min 23 s; 2 failed; 1 slave was lost; 8 slaves busy 93% of it; "
        "the slowest task took 12 s: fit of 'run 7'"
    )
    assert summary_line(summary, 60) == "1,234 tasks done in 1 min 23 s; 2 failed; 1 slave was lost"
    assert summary_line(Summary(tasks(1, 2), 2.0, 0.0, 0, 0)) == "1 of 3 tasks done in 2 s"


@pytest.mark.parametrize(
    "copies, first, told",
    [
        (1, 1, "1 task was started twice, and its copy was first"),
        (1, 0, "1 task was started twice, and its copy was not first"),
        (3, 1, "3 tasks were started twice, 1 of those copies was first"),
        (3, 0, "3 tasks were started twice, 0 of those copies were first"),
    ],
)
def test_the_summary_tells_how_many_tasks_were_started_twice(copies: int, first: int, told: str) -> None:
    summary = Summary(tasks(10), 2.0, 0.0, 0, 0, copies=copies, copies_first=first)
    assert summary_line(summary) == f"10 tasks done in 2 s; {told}"

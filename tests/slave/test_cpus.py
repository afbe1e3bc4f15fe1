"""How many processors a slave may use, and the threads that its libraries start."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from slave import cpus
from slave.cpus import share_threads, usable_cpus


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"self__cgroup": "0::/a/b\n", "b__cpu.max": "max 100000\n", "a__cpu.max": "150000 100000\n"}, 1.5),
        ({"self__cgroup": "0::/a/b\n", "b__cpu.max": "50000 100000\n", "a__cpu.max": "150000 100000\n"}, 0.5),
        ({"self__cgroup": "0::/../../elsewhere\n", "root__cpu.max": "200000 100000\n"}, 2.0),
        ({"self__cgroup": "0::/a/b\n"}, math.inf),
        ({"self__cgroup": "nonsense\n"}, math.inf),
    ],
)
def test_a_quota_of_processor_time_is_that_of_the_group_and_those_above(
    own_folder: Path, files: dict[str, str], quota: float
) -> None:
    places = {"self__cgroup": "proc__self__cgroup", "a__cpu.max": "sys__fs__cgroup__a__cpu.max"}
    places |= {"b__cpu.max": "sys__fs__cgroup__a__b__cpu.max", "root__cpu.max": "sys__fs__cgroup__cpu.max"}
    put(own_folder, **{places[name]: text for name, text in files.items()})
    assert cpus._quota(str(own_folder)) == quota


@pytest.mark.parametrize(("quota", "found"), [("300000", 3.0), ("-1", math.inf)])
def test_a_quota_of_the_first_version(own_folder: Path, quota: str, found: float) -> None:
    group = "sys__fs__cgroup__cpu,cpuacct__job__cpu.cfs_"
    put(own_folder, proc__self__cgroup="4:cpu,cpuacct:/job\n2:memory:/\n")
    put(own_folder, **{f"{group}quota_us": quota, f"{group}period_us": "100000"})
    assert cpus._quota(str(own_folder)) == found


def test_usable_cpus_follow_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for quota, count in ((math.inf, 8), (2.5, 3), (0.1, 1), (100.0, 8)):
        monkeypatch.setattr(cpus, "_quota", lambda quota=quota: quota)
        assert usable_cpus() == count


def test_threads_are_shared_among_the_runners_unless_the_user_has_said_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpus, "usable_cpus", lambda: 8)
    for runners, share in ((1, "8"), (3, "2"), (8, "1"), (20, "1")):
        found: dict[str, str] = {}
        share_threads(runners, found)
        assert set(found.values()) == {share} and {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= set(found)
    mine = {"OMP_NUM_THREADS": "5"}  # which the others follow
    share_threads(4, mine)
    assert mine == {"OMP_NUM_THREADS": "5"}
    mine = {"MKL_NUM_THREADS": "5"}
    share_threads(4, mine)
    assert mine["MKL_NUM_THREADS"] == "5" and mine["OMP_NUM_THREADS"] == "2"

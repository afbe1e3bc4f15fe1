"""What this machine is asked and told, and what differs from system to system: memory, processors, priority, its owner.

Each function says in its docstring what it does where a system does not tell; nothing here is called at import.
Tried on Linux; what is for macOS and Windows was written from their documentation and not tried.
"""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Callable, Union

from .errors import BadRequest
from .plain_numbers import real
from .process_tree import stat_of

Number = Union[int, float]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def is_tag(text: object) -> bool:
    """Whether it is a word that says what a machine has, 'gpu' say."""
    return isinstance(text, str) and re.fullmatch(r"[\w.-]{1,64}", text) is not None


# -- memory


def parse_size(text: str | Number) -> int:
    """Bytes: a number, or a text such as '500M', '2G' or '1.5 GiB'.  Raises ValueError."""
    size = real(text)
    if size != size:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", str(text), re.IGNORECASE)
        if match is None:
            raise ValueError(f"{text!r} is no size: a number of bytes, or one with a unit, such as '500M' or '2G'")
        size = float(match.group(1)) * _UNITS[match.group(2).upper()]
    if not 1 <= size < 1 << 60:
        raise ValueError(f"{text!r} is no size that a process can have")
    return int(size)


def show_size(size: Number) -> str:
    """The same for people."""
    for unit in "TGMK":
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.3g} {unit}iB"
    return f"{size:.0f} bytes"


def memory_of(pid: int) -> int | None:
    """Bytes of memory that a process and what it has started use; None where the system does not tell, or it is gone.

    Of those that it started only what is theirs alone is counted: forks share pages with it.
    """
    own = _resident(pid, shared_too=True)
    if own is None:
        return None
    return own + sum(_resident(child, shared_too=False) or 0 for child in _descendants(pid))


def look_at(pid: int) -> tuple[int, int]:
    """What can be had without a program of the system's: bytes of memory (0: not known), and 1 if it is stopped."""
    if sys.platform != "linux":
        return 0, 0
    return memory_of(pid) or 0, int(is_stopped(pid))


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped a process (SIGSTOP, Ctrl-Z, a debugger); False where the system does not tell."""
    return stat_of(pid)[:1] in ([b"T"], [b"t"])


def tells_memory() -> bool:
    """Whether `memory_of` has an answer on this system."""
    return memory_of(os.getpid()) is not None


def _resident(pid: int, shared_too: bool) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared = (int(word) for word in file.read().split()[:3])
    except (OSError, ValueError):
        return _resident_by_ps(pid) if sys.platform == "darwin" and shared_too else None
    return (resident if shared_too else resident - shared) * mmap.PAGESIZE


def _resident_by_ps(pid: int) -> int | None:
    done = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return int(done.stdout) << 10 if done.stdout.strip().isdigit() else None


def _descendants(pid: int) -> Iterator[int]:
    """What a process has started, as far as the system tells."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue  # it has just ended, or the kernel was built without
        for child in children:
            yield child
            yield from _descendants(child)


# -- processors and priority


def be_nice(by: int) -> None:
    """Let other programs go first, and those that are started here.  Raises `BadRequest` where that cannot be."""
    if not hasattr(os, "nice"):
        raise BadRequest("--nice: this system has no such priorities")
    try:
        os.nice(by)
    except OSError as error:
        raise BadRequest(f"--nice {by}: {error.strerror}") from None


def let_others_go_first(pid: int) -> None:
    """The same for another process, its threads and what it started in its group; where the system can."""
    if hasattr(os, "setpriority"):
        for which in (os.PRIO_PGRP, os.PRIO_PROCESS):
            try:
                os.setpriority(which, pid, 19)
            except OSError:
                continue  # it has ended


def use_cpus(wanted: str) -> int:
    """Use so many processors ('2'), or these ('0-3,8'), and what is started here too; returns how many they are.

    Where a system cannot keep a process on certain processors a number is just what it says.  Raises `BadRequest`.
    """
    ranges = _cpus_of(wanted)
    if not hasattr(os, "sched_setaffinity"):
        if not wanted.isdigit():
            raise BadRequest(f"--cpus {wanted}: this system cannot keep a program on certain processors")
        return min(int(wanted), os.cpu_count() or 1)
    usable = sorted(os.sched_getaffinity(0))
    chosen = (
        usable[: int(wanted)] if wanted.isdigit() else [one for one in usable if any(one in some for some in ranges)]
    )
    if not chosen:
        raise BadRequest(f"--cpus {wanted}: none of these may be used here; these may: {', '.join(map(str, usable))}")
    os.sched_setaffinity(0, chosen)
    return len(chosen)


def _cpus_of(wanted: str) -> list[range]:
    found = []
    for part in wanted.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None or (wanted.isdigit() and int(wanted) < 1):
            raise BadRequest(f"--cpus {wanted}: a number of processors is needed, such as 2, or a list, such as 0-3,8")
        first = int(match.group(1))
        found.append(range(first, int(match.group(2) or first) + 1))
    return found


# -- the owner of the machine


class Owner:
    """Whether somebody else uses this machine: other programs keep processors busy, or keyboard or mouse are used.

    ``ours``: the processes whose work, and that of what they started, is not somebody else's.  ``busy``: how many
    processors others may keep busy.  Keyboard and mouse are known of terminals, of the interrupts of those that are not
    USB ones, and on macOS and Windows.
    """

    def __init__(
        self, ours: Callable[[], Iterable[int]], busy: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ours, self._busy, self._clock = ours, busy, clock
        self._before: tuple[float, float, dict[int, float]] | None = None
        self._interrupts = _input_interrupts()
        self.last_seen = -1e9  # when there was a sign of somebody, by the clock
        self.sign = ""  # what it was

    def look(self) -> None:
        """See whether there is a sign of somebody.  To be called every few seconds."""
        sign = self._by_load() or self._by_input()
        if sign:
            self.last_seen, self.sign = self._clock(), sign

    def away_for(self) -> float:
        """The seconds since there was a sign."""
        return self._clock() - self.last_seen

    def _by_load(self) -> str:
        now, total, ours = self._clock(), _busy_seconds(), _seconds_of(self._ours())
        before, self._before = self._before, (now, total, ours)
        if total < 0:
            return self._by_load_average()
        if before is None or now - before[0] < 0.2:
            self._before = before or self._before
            return ""
        mine = sum(max(0.0, seconds - before[2].get(pid, 0.0)) for pid, seconds in ours.items())
        others = (total - before[1] - mine) / (now - before[0])
        return f"other programs keep {others:.1f} processors busy" if others > self._busy else ""

    def _by_load_average(self) -> str:
        if not hasattr(os, "getloadavg"):
            return ""
        others = os.getloadavg()[0] - sum(1 for _ in self._ours())
        return f"the load of other programs is {others:.1f}" if others > self._busy else ""

    def _by_input(self) -> str:
        interrupts, self._interrupts = self._interrupts, _input_interrupts()
        if interrupts != self._interrupts:
            return "keyboard or mouse are used"
        idle = _seconds_without_input()
        return "keyboard or mouse are used" if idle is not None and idle < 10 else ""


def _busy_seconds() -> float:
    """Seconds of work of all processors together since the machine's start; -1 where the system does not tell."""
    try:
        with open("/proc/stat", "rb") as file:
            words = file.readline().split()
    except OSError:
        return -1.0
    user, nice, system, _, _, irq, softirq = (int(word) for word in words[1:8])
    return (user + nice + system + irq + softirq) / _ticks()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


def _seconds_of(pids: Iterable[int]) -> dict[int, float]:
    """Seconds of work of processes and what they started, ended ones included, by process."""
    found = {}
    for root in pids:
        for pid in [root, *_descendants(root)]:
            words = stat_of(pid)
            if words:
                found[pid] = sum(map(int, words[11:15])) / _ticks()  # utime, stime, cutime, cstime
    return found


def _input_interrupts() -> str:
    """The counters of the interrupts of keyboards and mice, as text."""
    try:
        with open("/proc/interrupts") as file:
            return "".join(line for line in file if re.search(r"i8042|keyboard|mouse", line, re.IGNORECASE))
    except OSError:
        return ""


def _seconds_without_input() -> float | None:
    """Seconds since somebody typed, or moved the mouse; None where the system does not tell."""
    if sys.platform == "win32":
        return _by_last_input_info()
    if sys.platform == "darwin":
        done = subprocess.run(["/usr/sbin/ioreg", "-c", "IOHIDSystem"], capture_output=True, text=True, check=False)
        match = re.search(r'"HIDIdleTime" = (\d+)', done.stdout)
        return int(match.group(1)) / 1e9 if match else None
    return _of_terminals()


def _of_terminals() -> float | None:
    """Terminals note when they were read; that of this program itself does not count."""
    own = set()
    for descriptor in range(3):
        try:
            own.add(os.ttyname(descriptor))
        except OSError:
            continue
    found = []
    for folder in ("/dev/pts", "/dev"):
        try:
            entries = [entry for entry in os.scandir(folder) if re.fullmatch(r"\d+|tty\d+", entry.name)]
        except OSError:
            continue
        for entry in entries:
            try:
                facts = entry.stat()
            except OSError:
                continue
            if entry.path not in own and facts.st_uid:  # root's are consoles at which nobody sits
                found.append(_age(facts.st_atime_ns))
    return min(found, default=None)


def _age(nanoseconds: int) -> float:
    """Seconds since a file's time, by the clock that such times are of."""
    return max(0.0, (time.clock_gettime_ns(time.CLOCK_REALTIME) - nanoseconds) / 1e9)


def _by_last_input_info() -> float | None:
    import ctypes

    class LastInputInfo(ctypes.Structure):
        _fields_ = [("cbSize", ctypes.c_uint), ("dwTime", ctypes.c_uint)]

    library = getattr(ctypes, "windll", None)
    if library is None:
        return None
    info = LastInputInfo(ctypes.sizeof(LastInputInfo), 0)
    if not library.user32.GetLastInputInfo(ctypes.byref(info)):
        return None
    return float((library.kernel32.GetTickCount() - info.dwTime) & 0xFFFFFFFF) / 1000

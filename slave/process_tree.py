"""What a runner's tasks have started, and how to end it: also what has a session of its own, or has lost its parents.

A process belongs to a runner if it is in its session or group, if its parent belongs to it, or if it has inherited the
variable `VARIABLE` with the runner's mark.  Linux's /proc tells; elsewhere only the runner's group is ended.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence

from .named import NamedTuple

VARIABLE = "PARALLEL_RUNNER"

_ROUNDS = 20  # looks for processes that others have started meanwhile
_SUBREAPER = 36  # prctl(2), PR_SET_CHILD_SUBREAPER
_PDEATHSIG = 1  # PR_SET_PDEATHSIG


class Process(NamedTuple):
    """A process as /proc tells of it."""

    parent: int
    group: int
    session: int


def family(leaders: Collection[int], processes: Mapping[int, Process], marked: Iterable[int] = ()) -> set[int]:
    """Those of the processes that belong to the leaders, which live, or have left a session; they themselves too."""
    found = {pid for pid in leaders if pid in processes} | set(marked)
    found |= {pid for pid, one in processes.items() if one.session in leaders or one.group in leaders}
    children: dict[int, list[int]] = {}
    for pid, one in processes.items():
        children.setdefault(one.parent, []).append(pid)
    new = list(found)
    while new:
        born = [child for child in children.get(new.pop(), ()) if child not in found]
        found.update(born)
        new += born
    return found


def end_family(leaders: Collection[int], marks: Iterable[str]) -> bool:
    """Kill the leaders and all that belongs to them or whose mark begins with one of these; whether there was any.

    They are stopped first, so that none can start another one that has no parent to be known by.
    """
    wanted = [f"\0{VARIABLE}={mark}".encode() for mark in marks]
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        processes = running()
        new = family(leaders, processes, _marked(processes, wanted)) - stopped - {os.getpid()}
        if not new:
            break
        for pid in new:
            send(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        send(pid, signal.SIGKILL)
    for leader in leaders:
        end_group(leader)
    return bool(stopped)


def strangers(pids: Collection[int], leaders: Collection[int], marks: Iterable[str]) -> set[int]:
    """Those of the processes that do not belong to these leaders, by session, group or mark."""
    if not pids:
        return set()
    processes = running()
    theirs = family([], processes, _marked(pids, [f"\0{VARIABLE}={mark}".encode() for mark in marks]))
    return {
        pid
        for pid in pids
        if pid in processes
        and pid not in theirs
        and processes[pid].session not in leaders
        and processes[pid].group not in leaders
    }


def end_group(leader: int) -> None:
    """Kill a leader's process group."""
    if hasattr(os, "killpg") and leader:
        try:
            os.killpg(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody left, which is the rule (macOS says EPERM for a group of zombies)


def send(pid: int, signum: int) -> None:
    """Send a signal, if there is still such a process and it is ours."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def exists(pid: int) -> bool:
    """Whether there is such a process, also another user's; True for 0, and where that cannot be told."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def stat_of(pid: int) -> list[bytes]:
    """What Linux tells of a process behind its name, from its state on, see proc(5); [] where it is not told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()  # the name may hold blanks and brackets
    except OSError:
        return []


def began(pid: int) -> int:
    """When a process began, in the system's units: tells it from a later one of its number; 0 if not told."""
    words = stat_of(pid)
    return int(words[19]) if len(words) > 19 else 0


def running() -> dict[int, Process]:
    """All processes that have not ended, by their ids; none where the system does not tell."""
    found: dict[int, Process] = {}
    for name in _names("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, *numbers = file.read().rsplit(b")", 1)[1].split()[:4]
            except (OSError, IndexError):
                continue  # it has just ended
            if state not in (b"Z", b"X"):
                found[int(name)] = Process(*map(int, numbers))
    return found


def _marked(pids: Iterable[int], wanted: Sequence[bytes]) -> set[int]:
    """Those that have inherited one of these."""
    found = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                inherited = b"\0" + file.read()
        except OSError:
            continue  # another user's, or it has just ended
        if any(one in inherited for one in wanted):
            found.add(pid)
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


# -- what Linux does for a process that asks for it


def adopt_orphans() -> bool:
    """Have descendants whose parents have ended become children of this process; whether that can be had."""
    global _adopting
    if os.path.exists(_CHILDREN.format(os.getpid())) and _prctl(_SUBREAPER, 1):
        _adopting = os.getpid()
    return adopts_orphans()


_adopting = 0  # the process that asked for it
_CHILDREN = "/proc/{0}/task/{0}/children"


def children() -> list[int]:
    """This process's children, zombies too; none where the system does not tell."""
    try:
        with open(_CHILDREN.format(os.getpid())) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def adopts_orphans() -> bool:
    """Whether `adopt_orphans` was called in this process."""
    return _adopting == os.getpid()


def die_with_parent() -> bool:
    """Have this process killed when its parent ends; whether that can be had."""
    return os.name == "posix" and _prctl(_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> bool:
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError, TypeError):
        return False  # a Python without ctypes, or another system

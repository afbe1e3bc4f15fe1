"""The staging folder, through which a batch job's slaves get what they need, and tell how they are.

    ~/.cache/parallel/                      this user's, and nobody else's
      HOST-PID-xxxxxxxx/                    one for each run; removed with it
        slave.pyz                           the slave program
        1/                                  one for each array
            script                          what the job runs: a POSIX shell script, the same for all slaves
            3.orders                        what slave program 3 of the array is told, the key among it
            3.output                        the name of its output file
            3.started, 3.ended              written by the script: host; exit code
            3.elsewhere                     its output file, if that name cannot be written on its machine
            3.words                         what the slave program says, if it has no output file

The slaves' machines must see the user's home, or what XDG_CACHE_HOME names, as clusters' machines do.  Where that is a
folder of many users, the first name is parallel-UID.  What others made beforehand, or could replace, is refused: they
would read the key, and have the slaves run what they like.

Beside it runs the clean-up watchdog, a shell that waits for the master's end: should the master be killed, it deletes
the batch jobs and the folder.  If slaves are to outlive the master (Manager(slaves_wait=...)) it deletes no jobs, and
the folder when that time is over and no slave program of it runs any more, or after a month.  Where a master ends and
somebody is still to write into the folder (HTCondor makes it anew for that), the watchdog clears away after it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Callable

from slave.private_files import PRIVATE_FILE, PRIVATE_FOLDER, Unsafe, make_folder, user_folder, write_new
from slave.signals import came_from_handler

from ..errors import InputError
from ..exits import describe_slave_exit, last_lines
from .bootstrap import archive_command
from .job import Job, as_line
from .run_command import environment
from .slave_file import slave_file

log = logging.getLogger("parallel")

_ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own that this machine and the slaves' machines share"

_SCRIPT = """\
#!/bin/sh
# Starts one slave; see parallel/launch/staging.py.
folder={folder}
{index}
if [ ! -r "$folder/$index.orders" ]; then
    if [ -d {parent} ]; then
        echo "slave: the master has finished (its folder $folder is gone)" >&2
        exit 0
    fi
    echo "slave: $(uname -n) does not see the folder {parent_shown}: the master's machine and this one must share" \\
        "it; if they share another one, set XDG_CACHE_HOME to that" >&2
    exit 4
fi
output=$(cat "$folder/$index.output")
ours() {{ # not somebody else's link, nor one to somebody else's file, nor a FIFO, at which we would hang
    [ ! -p "$1" ] || return 1
    [ -h "$1" ] || return 0
    [ -n "$(find "$1" -prune '(' -user "$(id -u)" -o -user 0 ')')" ] && {{ [ ! -e "$1" ] || [ -O "$1" ]; }}
}}
tell() {{ # name, text: so that nobody reads half of it
    (umask 077; echo "$2" >"$folder/$index.new" && mv "$folder/$index.new" "$folder/$index.$1") 2>/dev/null
}}
rm -f "$folder/$index.ended"
instead=
if [ -z "$output" ]; then # nobody is to have a file; should it fail, the master is to know why
    (umask 077; : >"$folder/$index.words") 2>/dev/null && exec >>"$folder/$index.words" 2>&1
elif {{ [ -c "$output" ] || ours "$output"; }} 2>/dev/null && (: >>"$output") 2>/dev/null; then
    exec >>"$output" 2>&1
elif instead=$(mktemp /tmp/parallel-output.XXXXXXXX 2>/dev/null) ||
    instead=$(mktemp "${{TMPDIR:-.}}/parallel-output.XXXXXXXX" 2>/dev/null)
then
    tell elsewhere "$(uname -n):$instead"
    exec >>"$instead" 2>&1
    echo "slave: $output cannot be written on $(uname -n); what is printed here goes to this file"
fi
tell started "$(uname -n)"
trap : TERM # a batch system sends it to all processes of a job: the slave program deals with it
{{ {command}
}} <"$folder/$index.orders"
code=$?
tell ended $code
exit $code
"""

# for launchers that start the same command several times and number nobody: each takes the first place that is free
CLAIM = """\
index=0
until mkdir "$folder/$index.taken" 2>/dev/null; do
    index=$((index + 1))
    if [ $index -ge {count} ]; then
        echo "slave: there is nothing to do here: all {count} slaves have been started, or the master has finished" >&2
        exit 0
    fi
done"""

_WATCHDOG = """
while IFS= read -r line; do
    case $line in
    done) exit 0 ;;
    late)
        (
            left=30
            while [ $left -gt 0 ]; do
                rm -rf -- "$0"
                sleep 1
                left=$((left - 1))
            done
        ) &
        exit 0
        ;;
    esac
    todo="$todo
$line"
done
eval "$todo"
runs() { # whether a slave program that was started has not ended
    for file in "$0"/*/*.started; do
        [ ! -e "$file" ] || [ -e "${file%started}ended" ] || return 0
    done
    return 1
}
if [ -n "$1" ]; then
    sleep "$1"
    left=43200
    while runs && [ $left -gt 0 ]; do
        sleep 60
        left=$((left - 1))
    done
fi
rm -rf -- "$0"
"""


def job_script(folder: str, command: str, index: str) -> str:
    """The text of an array's script.

    ``command`` starts the slave program, a shell command; ``index``, shell code, sets the variable of that name to the
    slave's place in the array, from 0 on.
    """
    parent = os.path.dirname(os.path.dirname(folder))
    shown = parent.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    quoted = {"folder": shlex.quote(folder), "parent": shlex.quote(parent), "parent_shown": shown}
    return _SCRIPT.format(command=command, index=index, **quoted)


class StagingFolder:
    """One run's folder, made when it is first needed.  ``slaves_wait``: seconds that slaves outlive the master."""

    def __init__(self) -> None:
        self.slaves_wait = 0.0
        self.written_late = False  # whether somebody may write into it, or make it anew, after its slaves have ended
        self._lock = threading.Lock()  # guards what follows while the folder is made; arrays may be started at once
        self._path: str | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._arrays = 0

    def array(self, jobs: Sequence[Job], index: str) -> ArrayFolder:
        """Make the folder of an array.  Raises `InputError` if it cannot be made."""

        def files(path: str) -> dict[str, bytes]:
            made = {f"{place}.orders": as_line(job.orders) for place, job in enumerate(jobs)}
            made.update((f"{place}.output", os.fsencode(job.output or "")) for place, job in enumerate(jobs))
            command = archive_command(jobs[0].python, self.program)
            return {**made, "script": os.fsencode(job_script(path, command, index))}

        return ArrayFolder(self.folder(files))

    @property
    def program(self) -> str:
        """The path of the slave program's file, as soon as there is a folder."""
        return os.path.join(self._path, "slave.pyz") if self._path is not None else ""

    def folder(self, files: Callable[[str], Mapping[str, bytes]]) -> str:
        """Make the folder of an array, with the files that ``files`` gives for its path; "script" can be run.

        Raises `InputError` if it cannot be made.
        """
        try:
            with self._lock:
                path = self._make()
                self._arrays += 1
                folder = os.path.join(path, str(self._arrays))
            make_folder(folder)
            for name, data in files(folder).items():
                mode = PRIVATE_FOLDER if name == "script" else PRIVATE_FILE
                write_new(os.path.join(folder, name), data, mode)
        except Unsafe as error:
            raise InputError(f"the folder for the slaves' orders, the key among them, is not safe: {error}") from None
        except OSError as error:
            if came_from_handler(error):
                raise
            raise InputError(
                f"the folder for the slaves' orders cannot be made: {error}; set XDG_CACHE_HOME to a folder that this "
                f"machine and the slaves' machines share, and where you may write"
            ) from None
        return folder

    def when_killed(self, command: str) -> None:
        """Have the watchdog run a shell command should this process be killed, unless slaves are to outlive it."""
        if not self.slaves_wait:
            self._tell_watchdog(command)

    def remove(self) -> None:
        """Remove it; its slaves have ended.  May be called again, by one thread at a time."""
        late = self.written_late
        if self._path is not None:
            import shutil  # slow to import, and of no use to local slaves

            shutil.rmtree(self._path, ignore_errors=True)  # a network's file system may keep what is still open
            late = late or os.path.lexists(self._path)
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._tell_watchdog("late" if late else "done")
            try:
                self._watchdog.stdin.close()
            except BrokenPipeError:
                pass
            self._watchdog.wait()
            self._watchdog = None
        self._path = None

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            try:
                self._watchdog.stdin.write(line.encode() + b"\n")
                self._watchdog.stdin.flush()
            except BrokenPipeError:
                pass  # somebody has killed the watchdog: then this process had better not be killed too

    def _make(self) -> str:
        if self._path is None:
            name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            self._path = os.path.join(user_folder(_cache(), _ELSEWHERE), name)
        if self._watchdog is None:  # else all that follows was done, and not interrupted
            make_folder(self._path)
            packed = os.path.join(self._path, "slave.pyz")
            if os.path.exists(packed):
                os.unlink(packed)
            write_new(packed, slave_file())
            # in a session of its own, so that Ctrl-C spares it
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, self._path, f"{self.slaves_wait:.0f}" if self.slaves_wait else ""],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
                cwd="/",
            )
        return self._path


class ArrayFolder:
    """One array's folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.script = os.path.join(path, "script")
        self._seen: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self._texts: dict[str, str] = {}  # of files that were read; they are written once for each start of a job

    def look(self) -> None:
        """See which slave programs have been started, and which have ended: so `host` and `exit_code` know."""
        try:
            self._seen = frozenset(os.listdir(self.path))
        except OSError:
            return  # a network's file system in trouble, which may pass
        self._texts = {name: text for name, text in self._texts.items() if name in self._seen}
        self._tell_elsewhere()

    def host(self, place: int) -> str | None:
        """Where that slave program was started; None if it was not yet."""
        return self._read(place, "started")

    def exit_code(self, place: int) -> int | None:
        """With which code that slave program ended; None if it did not, or was killed together with its job."""
        text = self._read(place, "ended")
        return int(text) if text else None

    def end(self, place: int) -> str | None:
        """How that slave program ended, in words; None as in `exit_code`."""
        code, elsewhere = self.exit_code(place), self._read(place, "elsewhere")
        if code is None:
            return None
        end = describe_slave_exit(128 - code if code > 128 else code, self.host(place))
        if elsewhere:
            return f"{end}; its output is in {elsewhere}"
        try:
            with open(os.path.join(self.path, f"{place}.words"), "rb") as file:
                return end + last_lines(file, "; its last words")
        except OSError:
            return end  # it has an output file, which the user is shown

    def _tell_elsewhere(self) -> None:
        """Warn of output that goes to another place than the user named; once, for many may do so."""
        for name in sorted(self._seen):
            place, _, what = name.partition(".")
            if what == "elsewhere" and name not in self._told and (where := self._read(int(place), what)):
                level = logging.INFO if self._told else logging.WARNING
                self._told.add(name)
                wanted = self._read_now(f"{place}.output")
                log.log(
                    level, "parallel: the output of a slave goes to %s, for %s cannot be written there", where, wanted
                )

    def accepted(self, piece: object) -> None:
        """See `Reports`: the script finds its place by itself."""

    def state(self, place: int) -> None:
        """See `Reports`: the folder knows no more than `host`."""

    def tells_end(self, place: int) -> bool:
        """See `Reports`: a job that is deleted before it is started tells nothing."""
        return False

    def await_end(self, job: str) -> list[str]:
        """See `Reports`: where the folder is gone, the script writes nothing."""
        return []

    def all_ended(self) -> bool:
        """See `Reports`."""
        return True

    def forget(self, place: int) -> None:
        """Its job is started again: what is told of the former one is out of date."""
        for what in ("started", "ended", "elsewhere"):
            self._texts.pop(f"{place}.{what}", None)
            self._seen -= {f"{place}.{what}"}
            try:
                os.unlink(os.path.join(self.path, f"{place}.{what}"))
            except FileNotFoundError:
                pass

    def withdraw(self, place: int) -> None:
        """Should that slave program still be started, it is to end at once."""
        try:
            os.unlink(os.path.join(self.path, f"{place}.orders"))
        except FileNotFoundError:
            pass

    def _read(self, place: int, what: str) -> str | None:
        name = f"{place}.{what}"
        if name in self._seen and name not in self._texts:
            text = self._read_now(name)
            if text is None:
                return None
            self._texts[name] = text
        return self._texts.get(name) or None

    def _read_now(self, name: str) -> str | None:
        try:
            with open(os.path.join(self.path, name), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None  # just gone, since its job is started again; or a file system in trouble, which may pass


def _cache() -> str:
    """Where this user's programs keep what they may lose.  Raises `InputError` if there is no such place."""
    named = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if named.startswith("~"):
        raise InputError(f"this user, uid {os.getuid()}, has no home folder for the slaves' orders; {_ELSEWHERE}")
    return os.path.abspath(named)

"""The staging folder of an array of HTCondor's, which the machines of the pool do not see: HTCondor carries it there.

    slave.pyz, N.orders       HTCondor's file transfer brings them to the machine of job N, for its user's eyes only
    script                    what the job runs there
    submit                    the submit description, see condor_submit(1)
    events                    HTCondor's event log, by which we know what the jobs do
    N.output                  what the job prints: live where the pool allows it, and at its end in any case

HTCondor begins N.output anew each time that the job starts.  So it is no user's file: what has come is added to that.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from slave.private_files import append_to

from ...exits import describe_slave_exit, last_lines
from ..job import Job, as_line, shell_python
from ..staging import StagingFolder
from .engine import Piece, TaskState
from .event_log import SUBMITTED, Progress, after, events

log = logging.getLogger("parallel")

PYTHON = "python3"  # on the machines of a pool, of which this one's path says nothing
_TO_BE_GONE = 20  # seconds for deleted jobs to leave the queue, when nobody waits for that
_EVENT_END = b"\n...\n"
_PIECE = 1 << 20  # bytes of a job's output that are copied at a time

_SCRIPT = """\
#!/bin/sh
# Starts one slave; see parallel/launch/batch/htcondor_folder.py.
exec 2>&1
PATH=${{PATH:-/usr/local/bin:/usr/bin:/bin}} # a job has none as a rule, and Python finds itself by it
export PATH
orders=$1.orders program=slave.pyz
[ -r "$orders" ] || orders={folder}/$1.orders program={program} # the pool shares a disk, and nothing is transferred
if [ ! -r "$orders" ]; then
    echo "slave: HTCondor did not transfer $1.orders to $(uname -n), and the folder {shown} is not there either"
    exit 4
fi
leave() {{ # HTCondor wants the machine back: it tells this process alone, and waits for a while
    trap : TERM
    kill -TERM "-$$" 2>/dev/null || kill -TERM $slave
}}
trap leave TERM
{{
trap : TERM
{python} "$program" --launched
}} <"$orders" &
slave=$!
while :; do # a signal ends a wait
    wait $slave
    code=$?
    kill -0 $slave 2>/dev/null || break
done
if [ $code -gt 128 ]; then
    wait $slave 2>/dev/null
    last=$?
    [ $last = 127 ] || code=$last
fi
exit $code
"""

# What is given twice in a submit description counts as it is given last.  The user's own text may change what stands
# before it; what stands behind it, nothing would work without.
_BEFORE = """\
# made by parallel/launch/batch/htcondor_folder.py
universe = vanilla
notification = never
should_transfer_files = YES
when_to_transfer_output = ON_EXIT
transfer_output_files = ""
stream_output = True
stream_error = True
transfer_input_files =
"""
LINES_BEFORE = _BEFORE.count("\n")
_BEHIND = """\
place = $(Process) + $(first_place)
executable = {script}
arguments = $INT(place)
transfer_executable = True
transfer_input_files = $(transfer_input_files), {program}, {folder}/$INT(place).orders
encrypt_input_files = *.orders
output = {folder}/$INT(place).output
error = {folder}/$INT(place).output
log = {folder}/events
leave_in_queue = False
"""


class HTCondorFolder:
    """See the module's text, and `Reports`.  ``text``: the user's part of the submit description."""

    def __init__(self, staging: StagingFolder, jobs: Sequence[Job], text: str) -> None:
        self._outputs = [job.output for job in jobs]
        path = staging.folder(lambda path: _files(path, staging.program, jobs, text))
        self.path = path
        self.script = os.path.join(path, "submit")
        self._pieces: list[Piece] = []
        self._progress: dict[tuple[str, int], Progress] = {}  # by cluster and process
        self._read_to = 0  # of the event log
        self._copied = [0] * len(jobs)  # bytes of each output file
        self._unwritable: set[int] = set()  # places whose user's file cannot be written

    def accepted(self, piece: Piece) -> None:
        """See `Reports`."""
        self._pieces.append(piece)

    def look(self) -> None:
        """See `Reports`."""
        try:
            with open(os.path.join(self.path, "events"), "rb") as file:
                file.seek(self._read_to)
                new = file.read()
        except OSError:
            new = b""  # nothing has been submitted yet
        self._read_to += new.rfind(_EVENT_END) + len(_EVENT_END) if _EVENT_END in new else 0
        for event in events(new.decode(errors="replace")):
            key = event.cluster, event.process
            self._progress[key] = after(self._progress.get(key, SUBMITTED), event)
        for place in range(len(self._outputs)):
            self._copy(place)

    def host(self, place: int) -> str | None:
        """See `Reports`."""
        return self._of(place).host

    def state(self, place: int) -> TaskState | None:
        """See `Reports`."""
        progress = self._of(place)
        return None if progress is SUBMITTED else progress.state

    def exit_code(self, place: int) -> int | None:
        """See `Reports`."""
        return self._of(place).exit_code

    def end(self, place: int) -> str | None:
        """See `Reports`."""
        code, host, removed = self.exit_code(place), self.host(place), self._of(place).removed
        if removed:
            piece = next(one for one in self._pieces if one.first <= place < one.first + one.tasks)
            where = f", while it ran on {host}" if host else ""
            return f"HTCondor job {piece.job}.{place - piece.first} {removed}{where}"
        if code is None:
            return None
        end = describe_slave_exit(128 - code if code > 128 else code, host)
        if self._outputs[place] is not None and place not in self._unwritable:
            return end  # the user is shown the end of that file
        try:
            with open(self._output(place), "rb") as file:
                return end + last_lines(file, "; its last words")
        except OSError:
            return end

    def forget(self, place: int) -> None:
        """See `Reports`.  The log itself says when a job waits again."""

    def tells_end(self, place: int) -> bool:
        """See `Reports`.  The pool may have been configured to write no log here: then nothing is told."""
        return any((one.job, place - one.first) in self._progress for one in self._pieces)

    def await_end(self, job: str) -> list[str]:
        """See `Reports`.  HTCondor makes the event log's folder anew where it is gone."""
        return ["condor_wait", "-wait", str(_TO_BE_GONE), os.path.join(self.path, "events"), job]

    def all_ended(self) -> bool:
        """See `Reports`."""
        keys = [(piece.job, task) for piece in self._pieces for task in range(piece.tasks)]
        last = [self._progress[key] for key in keys if key in self._progress]  # a factory's job may never be made
        return all(one.removed or one.exit_code is not None for one in last)

    def _of(self, place: int) -> Progress:
        for piece in self._pieces:
            if piece.first <= place < piece.first + piece.tasks:
                return self._progress.get((piece.job, place - piece.first), SUBMITTED)
        return SUBMITTED

    def _output(self, place: int) -> str:
        return os.path.join(self.path, f"{place}.output")

    def _copy(self, place: int) -> None:
        """Add what a job has printed since the last look to the user's file."""
        target = self._outputs[place]
        if target is None or place in self._unwritable:
            return
        new = self._read_on(place)
        if not new:
            return
        try:
            with append_to(target) as output:
                while new:
                    output.write(new)
                    self._copied[place] += len(new)
                    new = self._read_on(place)
        except OSError as error:
            self._unwritable.add(place)
            log.warning("parallel: the output of a slave cannot be written to %s any more: %s", target, error)

    def _read_on(self, place: int) -> bytes:
        """What a job has printed behind what was copied, or a part of it; b"" for nothing."""
        try:
            size = os.stat(self._output(place)).st_size
            if size < self._copied[place]:
                self._copied[place] = 0  # it was started again
            if size == self._copied[place]:
                return b""
            with open(self._output(place), "rb") as file:
                file.seek(self._copied[place])
                return file.read(_PIECE)
        except OSError:
            return b""  # the job has not been started yet


def _files(path: str, program: str, jobs: Sequence[Job], text: str) -> Mapping[str, bytes]:
    """The files of the folder ``path``, by name."""
    python = shell_python(jobs[0].python or PYTHON)
    quoted = {"folder": shlex.quote(path), "program": shlex.quote(program), "python": python}
    script = _SCRIPT.format(shown=path.translate(_PLAIN), **quoted)
    behind = _BEHIND.format(script=os.path.join(path, "script"), folder=path, program=program)
    files = {"script": os.fsencode(script), "submit": os.fsencode(f"{_BEFORE}{text}\n{behind}")}
    files.update((f"{place}.orders", as_line(_printing(job.orders))) for place, job in enumerate(jobs))
    return files


_PLAIN = str.maketrans({character: "\\" + character for character in '\\"$`'})


def _printing(orders: Mapping[str, Any]) -> Mapping[str, Any]:
    """The orders of a slave program that prints all to its own output, since there is no file of ours where it runs."""
    return {**orders, "slots": [(number, None) for number, _ in orders["slots"]]}

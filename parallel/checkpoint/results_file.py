"""ResultsFile: a checkpoint as a whole: opened and looked through, read, appended to, written anew."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

from ..errors import CheckpointError
from . import format as fmt
from .digests import Digests
from .disk import Disk, now
from .format import DROP, GROUP, ORIGIN, RESULT, Damage, Entry, Found, Record
from .index import Index

_AT_ONCE = 1 << 16  # bytes that are read to see one record
_JOINED = 1 << 18  # bytes that are copied into one piece to be written: many small ones take longer
_ITEM_BITS = 8  # of where a result is: which one of its group; the other ones are the record's offset
LARGE = 1 << 19  # bytes of a payload that is written while another thread makes its digest
_NOTHING_LOST = "No result is lost: they wait, and the next call for results goes on"


class Origin(NamedTuple):
    """What results come from: ``task`` names the callable, ``setup`` is the digest of the setup's pickle.

    ``modules``: of the user's own, whose classes and functions are in it: name, file, digest of what it contains.
    """

    task: str
    setup: str
    modules: tuple[tuple[str, str, str], ...]

    @property
    def code(self) -> tuple[tuple[str, str], ...]:
        """By which code is the same or not, wherever it stands."""
        return tuple((name, digest) for name, _, digest in self.modules)


class _Plan(NamedTuple):
    """What is to be written from ``begin`` to ``end``: offsets, and there pieces or the record of a large payload."""

    begin: int
    end: int
    made: int | None
    parts: list[tuple[int, list[Any], Record | None]]


class ResultsFile:
    """See the module's text.  One thread at a time appends; any may read.

    ``tell``: gets a line of text about what is damaged.  Raises `CheckpointError` for what is no checkpoint of this
    user's, and where the system refuses; then the file is as it was.
    """

    def __init__(self, disk: Disk, key: bytes, tell: Callable[[str], object]) -> None:
        self.disk, self._key, self._tell = disk, key, tell
        self.index = Index()
        self.origins: dict[int, Origin] = {}
        self._next_origin = 0
        self._gone = False  # it is not where it was
        self._plan: _Plan | None = None  # what is just being written
        self._digests = Digests()
        self._group: tuple[int, list[Found]] = -1, []  # the one that was read last: its offset, and what it holds
        try:
            self.seal = self._begin()
            self.end = self.disk.size()
            self._look_through()
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{disk.path} cannot be read: {error.strerror or error}") from None

    @property
    def path(self) -> str:
        """Where it is."""
        return self.disk.path

    # -- opening

    def _begin(self) -> fmt.Seal:
        path, disk = self.path, self.disk
        data = disk.read(0, fmt.HEADER_SIZE)
        if fmt.is_torn_header(data):
            if not disk.writes:
                raise CheckpointError(f"{path} is empty: there are no results yet")
            seal = fmt.Seal(self._key, secrets.token_bytes(16))
            disk.cut(0)
            disk.write(0, [fmt.header(seal, now())])
            return seal
        try:
            seal = fmt.read_header(data, self._key)
        except fmt.WrongKey:
            raise CheckpointError(
                f"{path} was sealed with another key than yours, or somebody has changed its beginning: its results "
                f"cannot be trusted. Bring back the key it was made with (python3 -m parallel key tells where yours "
                f"is), or name another file"
            ) from None
        except fmt.LaterVersion as error:
            raise CheckpointError(
                f"{path} was written by a later version of parallel (format {error.args[0]}, this one knows "
                f"{fmt.VERSION}): use that version, or name another file"
            ) from None
        except fmt.NoCheckpoint:
            raise CheckpointError(f"{path} is no checkpoint: it begins otherwise. Name another file") from None
        if disk.writes and seal.version < fmt.VERSION:  # from now on there are records that only this one knows
            disk.write(0, [fmt.header(seal, now())])
        elif len(data) < fmt.HEADER_SIZE and disk.writes:
            disk.write(0, [data[: fmt.HEADER_SIZE // 2] * 2])
        return seal

    def _look_through(self) -> None:
        add = self.index.add
        for fields in fmt.quick_scan(self.disk.read, fmt.HEADER_SIZE, self.end, self.seal):
            if len(fields) == 3:
                self._damaged(Damage(*fields))
                continue
            offset, _, window, at, head = fields
            if head[0] == RESULT:
                add(head[8], head[5], head[4], offset << _ITEM_BITS)
            elif head[0] == GROUP:
                self.index.add_group(window, at + fmt.FIXED, head[5], head[4], offset << _ITEM_BITS)
            elif head[0] == DROP:
                self.index.add_drop(head[8], head[5])
            elif head[0] == ORIGIN:
                self._read_origin(head[4], offset)
            self._next_origin = max(self._next_origin, head[4] + 1)
        self.index.close()

    def _damaged(self, damage: Damage) -> None:
        count = damage.end - damage.offset
        if not damage.at_end:
            self._tell(
                f"{self.path} is damaged: {count} bytes from {damage.offset} on are no result; the tasks whose results "
                f"stood there run again"
            )
            return
        self.end = damage.offset
        cut = "are cut off" if self.disk.writes else "do not count"
        self._tell(
            f"the last {count} bytes of {self.path} {cut}: they are no whole result, since the program was killed or "
            f"the power failed while it was written"
        )
        if self.disk.writes:
            self.disk.cut(self.end)

    def _read_origin(self, number: int, offset: int) -> None:
        found = self.find(offset << _ITEM_BITS)
        data = None if found is None else self.load(found)
        if data is None:
            return
        try:
            told = json.loads(bytes(data[0]))
            modules = tuple((str(name), str(path), str(digest)) for name, path, digest in told["modules"])
            self.origins[number] = Origin(str(told["task"]), str(told["setup"]), modules)
        except (ValueError, TypeError, KeyError):
            self._tell(f"{self.path}: what results number {number} come from cannot be read; they are not used")

    # -- reading

    def find(self, place: int) -> Found | None:
        """The result that is there, as the index has it; None if it is damaged."""
        offset, item = place >> _ITEM_BITS, place & ((1 << _ITEM_BITS) - 1)
        known, group = self._group
        if known != offset:
            group = fmt.records_at(self.disk.read, offset, self.end, self.seal, _AT_ONCE)
            self._group = offset, group
        return group[item] if item < len(group) else None

    def records(self) -> Iterator[Found]:
        """Of all results that are known, in the file's order."""
        for place in self.index.places():
            found = self.find(self.index.offset(place))
            if found is not None:
                yield found

    def load(self, found: Found) -> tuple[bytearray, list[bytearray]] | None:
        """A record's payload: pickle and buffers; None if it is damaged.  Raises OSError."""
        pieces = [bytearray(size) for size in (found.size - sum(found.buffers), *found.buffers)]
        at = found.payload_at
        for piece in pieces:
            if not self.disk.read_into(at, piece):
                return None
            at += len(piece)
        return (pieces[0], pieces[1:]) if fmt.is_whole(found, pieces) else None

    # -- writing

    def origin(self, wanted: Origin) -> int:
        """The number of what results come from, written if it is new.  Raises `CheckpointError`."""
        for number, origin in self.origins.items():
            if origin == wanted:
                return number
        number = self._next_origin
        data = json.dumps(wanted._asdict()).encode()
        entry = Entry(b"", origin=number, made=now())
        self.append([(ORIGIN, entry, data, ()), (ORIGIN, entry, data, ())])  # twice: many results depend on it
        self._next_origin, self.origins[number] = number + 1, wanted
        return number

    def expect(self, payload: Any, buffers: Sequence[Any]) -> None:
        """A record with this payload, of `LARGE` bytes or more, is to be appended soon."""
        self._digests.begin(payload, buffers)

    def expect_nothing(self) -> None:
        """What was expected, and has not been appended, is not to be any more."""
        self._digests.forget()

    def append(self, records: Sequence[Record], made: int | None = None) -> None:
        """Write records behind the last one: all of them, or none is there.  Raises `CheckpointError`.

        ``made``: when they were, if their entries do not tell.  Of a GROUP the entry tells the origin alone, the
        payload is a list of its identities, and what stands for buffers are its results.

        A signal handler that interrupts this and does the same first writes what is interrupted, which is then written
        once more as it is: so neither writes over what the other one has written.
        """
        self.check_place()
        interrupted = self._plan
        if interrupted is not None:
            self._carry_out(interrupted)
        while True:
            plan = self._plan = self._planned(self.end, records, made)
            if self.end == plan.begin:  # no handler has come between
                break
        try:
            self._carry_out(plan)
        finally:
            self._plan = None

    def _planned(self, begin: int, records: Sequence[Record], made: int | None) -> _Plan:
        """What is to be written there."""
        parts: list[tuple[int, list[Any], Record | None]] = []
        pieces: list[Any] = []
        at = start = begin  # of this record, and of the pieces
        for kind, entry, payload, buffers in records:
            if kind == GROUP:
                pieces.append(fmt.encode_group(self.seal, at, entry.origin, payload, buffers, made or entry.made))
                at += len(pieces[-1])
                continue
            size = fmt.size_of(payload)
            if buffers:
                size += sum(map(fmt.size_of, buffers))
            if size < LARGE:
                record = fmt.encode(self.seal, at, kind, entry, payload, buffers, made)
                pieces += record
                at += len(record[0]) + (size if len(record) > 1 else 0)
                continue
            parts += (start, pieces, None), (at, [], (kind, entry, payload, buffers))
            at += fmt.payload_offset(entry, buffers) + size
            start, pieces = at, []
        if at - start <= _JOINED:
            pieces = [b"".join(pieces)]
        return _Plan(begin, at, made, [*parts, (start, pieces, None)])

    def _carry_out(self, plan: _Plan) -> None:
        try:
            for at, pieces, large in plan.parts:
                if large is None:
                    self.disk.write(at, pieces)
                else:
                    self._write_large(at, large, plan.made)
        except OSError as error:
            if self.end == plan.begin:
                try:
                    self.disk.cut(plan.begin)
                except OSError:
                    pass  # what is left there is cut off when the file is opened
            raise self._refused(error) from None
        self.end = max(self.end, plan.end)

    def _write_large(self, at: int, record: Record, made: int | None) -> None:
        """Write what is before the payload when that is written: the digest in it is made meanwhile."""
        kind, entry, payload, buffers = record
        self._digests.begin(payload, buffers)
        self.disk.write(at + fmt.payload_offset(entry, buffers), [payload, *buffers])
        digest = self._digests.of(payload, buffers)
        self.disk.write(at, fmt.encode(self.seal, at, kind, entry, payload, buffers, made, digest)[:1])

    def sync(self) -> None:
        """What was written is on the disk when this returns.  Raises `CheckpointError`."""
        try:
            self.disk.sync()
        except OSError as error:
            raise self._refused(error) from None

    def check_place(self) -> None:
        """Raises `CheckpointError` if the file is not where it was."""
        if self._gone or not self.disk.in_place():
            self._gone = True
            raise CheckpointError(
                f"{self.path} has vanished, or its folder: the results so far are in no file any more. {_NOTHING_LOST} "
                f"and writes the file again, if its folder is there"
            )

    def put_back(self) -> None:
        """If it has vanished, write it again where it was.  Raises `CheckpointError`."""
        if not self._gone:
            return
        try:
            if not self.disk.in_place():
                self.disk.put_back(self.end)
        except FileNotFoundError:
            self.check_place()
        except OSError as error:
            raise self._refused(error) from None
        self._gone = False
        self._tell(f"{self.path} had vanished, and was written again")

    def _refused(self, error: OSError) -> CheckpointError:
        why = error.strerror or str(error)
        return CheckpointError(f"{self.path} cannot be written: {why}. {_NOTHING_LOST}, when that has been mended")

    def close(self) -> None:
        """Write it no more.  May be called twice."""
        self._digests.close()
        self.disk.close()

    def rewrite(self, keep: Callable[[Found], bool]) -> None:
        """Write the file anew with those results alone, in the place of this one.  Raises `CheckpointError`."""
        draft = f"{self.path}.{os.getpid()}.new"
        try:
            new = ResultsFile(Disk(draft, write=True), self._key, self._tell)
            try:
                for found in self.records():
                    payload = self.load(found) if keep(found) else None
                    if payload is not None:
                        number = found.entry.origin
                        if number in self.origins:
                            number = new.origin(self.origins[number])
                        new.append([(RESULT, found.entry._replace(origin=number), *payload)])
                new.sync()
            finally:
                new.close()
            os.replace(draft, self.path)
        except OSError as error:
            raise error if isinstance(error, CheckpointError) else self._refused(error) from None
        finally:
            if os.path.lexists(draft):
                os.unlink(draft)

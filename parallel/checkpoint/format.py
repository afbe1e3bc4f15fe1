"""The bytes of a checkpoint: a header, and behind it record after record.

    header   twice the same 64 bytes:  magic 8, version 2, unused 6, file id 16, made 8, unused 8, seal 16
    record   mark 4, seal 16, head 48, key, label, 8 for each buffer (its size), [digest 32], payload
    head     kind 1, unused 1, buffers 2, size of the key 2, of the label 2, origin 4, nth 4, size of the payload 8,
             made 8, identity 16
    group    the same for many small results that came together: nth is how many, the payload is for each its identity
             16, then for each its size 2, then the results

All numbers are little-endian.  The seal is a keyed BLAKE2b of the record's offset and of all that stands between the
seal and the payload; a payload of up to `INLINE` bytes is part of that, of a larger one its SHA-256, ``digest`` (a
group is sealed as a whole, and damaged as a whole; that is why it is no larger than `MOST_GROUPED` results): so a file
is opened without a look at large results, and each of these is checked when it is read.  The key of the seals is
made of the user's key and the file's id.  Who does not have the key can neither write a record nor put one of another
file, or of another place of this one, where a reader takes it for what it is not.

Results are the payloads of records of the kind RESULT: a pickle, and behind it its out-of-band buffers; or they stand
in a GROUP, without key, label, buffers, and each the first of its identity.  An ORIGIN is
JSON that tells what code results come from; they refer to it by its number, which counts origins from 0 on.  A DROP
says that the result of that identity and number before it is not to be used any more.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Union

VERSION = 2  # 1: there were no groups
MAGIC = b"\x89PARCKP\n"
MARK = b"\xf5\x9dPR"  # not a text in any encoding of the Unicode standard
RESULT, ORIGIN, DROP, GROUP = 1, 2, 3, 4
INLINE = 1024  # bytes of a payload that is part of what is sealed
SMALL = 256  # bytes of a result that may stand in a group
MOST_GROUPED = 64  # results of a group
MOST_NAME = 65535  # bytes of a key, or of a label
MOST_BUFFERS = 65535

_HEADER = struct.Struct("<8sH6x16sQ8x")
_HEAD = struct.Struct("<BxHHHIIQQQQ")  # the identity as two numbers, of which the index keeps the first
_SEALED_HEAD = struct.Struct("<QBxHHHIIQQ16s")  # the offset, and a head
_PLACE = struct.Struct("<Q")
_OFFSET, _BEGIN = _PLACE.size, bytes(_PLACE.size)
_SEAL = 16
_EACH = 18  # bytes for each result of a group, but itself
_MOST_GROUP = MOST_GROUPED * (_EACH + SMALL)
_AT = len(MARK) + _SEAL  # where the head begins
FIXED = _AT + _HEAD.size
_DIGEST = 32
HEADER_SIZE = 2 * (_HEADER.size + _SEAL)
_CHUNK = 1 << 20  # bytes that are read at a time

Bytes = Union[bytes, bytearray, memoryview]
Read = Callable[[int, int], bytes]


class WrongKey(ValueError):
    """The header is whole as far as can be seen, and sealed with another key."""


class NoCheckpoint(ValueError):
    """The file begins otherwise: it is none of ours."""


class LaterVersion(ValueError):
    """It was written by a later version of this package.  Its one argument is the version of the format."""


class Entry(NamedTuple):
    """What a record says of itself, but its kind and payload.

    ``identity``: 16 bytes; ``nth``: which one of the tasks that have it, from 0 on; ``made``: us since 1970.
    """

    identity: bytes
    nth: int = 0
    origin: int = 0
    key: bytes = b""
    label: bytes = b""
    made: int = 0


Record = tuple[int, Entry, Any, Sequence[Any]]  # kind, entry, payload, buffers


class Found(NamedTuple):
    """A record in a file, or one of a group."""

    offset: int
    kind: int
    entry: Entry
    buffers: tuple[int, ...]  # the sizes of what stands at the payload's end
    payload_at: int
    size: int  # of the payload
    digest: bytes  # of a payload of more than `INLINE` bytes
    item: int = 0  # which one of its group

    @property
    def end(self) -> int:
        """Where the next one begins; of one in a group, where its payload ends."""
        return self.payload_at + self.size


class Damage(NamedTuple):
    """Bytes that are no record; there are records behind them unless ``at_end``."""

    offset: int
    end: int
    at_end: bool


class Seal:
    """Seals what is written to one file, and knows whether a seal is right."""

    def __init__(self, key: bytes, file_id: bytes) -> None:
        secret = hmac.new(key, b"parallel checkpoint\0" + file_id, hashlib.sha256).digest()
        self.empty = hashlib.blake2b(key=secret, digest_size=_SEAL)
        self.file_id, self.version = file_id, VERSION

    def of(self, sealed: Bytes) -> bytes:
        """The seal of these bytes, which begin with the offset of their record."""
        state = self.empty.copy()
        state.update(sealed)
        return state.digest()


# -- the header


def header(seal: Seal, made: int) -> bytes:
    """The beginning of a new file."""
    head = _HEADER.pack(MAGIC, VERSION, seal.file_id, made)
    return 2 * (head + seal.of(_BEGIN + head))


def read_header(data: bytes, key: bytes) -> Seal:
    """The seal for the file that begins so.  Raises `NoCheckpoint`, `WrongKey`, `LaterVersion`.

    Its ``version`` is the file's.
    """
    half = HEADER_SIZE // 2
    trouble: ValueError = NoCheckpoint()
    for copy in (data[:half], data[half:HEADER_SIZE]):  # one of them may be damaged
        if len(copy) < half or not copy.startswith(MAGIC):
            continue
        _, version, file_id, _ = _HEADER.unpack_from(copy)
        seal = Seal(key, file_id)
        if hmac.compare_digest(seal.of(_BEGIN + copy[: _HEADER.size]), copy[_HEADER.size :]):
            if version > VERSION:
                raise LaterVersion(version)
            seal.version = version
            return seal
        trouble = WrongKey()
    raise trouble


def is_torn_header(data: bytes) -> bool:
    """Whether the file, of which this is all, was being made when its program was killed."""
    return len(data) < HEADER_SIZE // 2 and (MAGIC.startswith(data) or data.startswith(MAGIC))


# -- records


def size_of(part: Any) -> int:
    """How many bytes a buffer has."""
    return len(part) if type(part) is bytes else memoryview(part).nbytes


def digest_of(payload: Any, buffers: Sequence[Any]) -> bytes:
    """That of a payload of more than `INLINE` bytes."""
    digest = hashlib.sha256(payload)
    for buffer in buffers:
        digest.update(buffer)
    return digest.digest()


def payload_offset(entry: Entry, buffers: Sequence[Any]) -> int:
    """Where, from the record's offset on, a payload begins that is larger than `INLINE` bytes."""
    return FIXED + len(entry.key) + len(entry.label) + 8 * len(buffers) + _DIGEST


def encode(
    seal: Seal,
    offset: int,
    kind: int,
    entry: Entry,
    payload: Any,
    buffers: Sequence[Any] = (),
    made: int | None = None,
    digest: bytes | None = None,
) -> list[Any]:
    """A record for that offset, as buffers to be written one after the other.

    ``made``: if the entry does not tell.  ``digest``: that of a large payload, if it is known.
    """
    identity, nth, origin, key, label, then = entry
    made = then if made is None else made
    total = size_of(payload)
    extra = key + label
    if buffers:
        sizes = [size_of(buffer) for buffer in buffers]
        total += sum(sizes)
        extra += struct.pack(f"<{len(sizes)}Q", *sizes)
    head = _SEALED_HEAD.pack(offset, kind, len(buffers), len(key), len(label), origin, nth, total, made, identity)
    if total <= INLINE:
        sealed = b"".join((head, extra, payload, *buffers))
        return [MARK + seal.of(sealed) + sealed[_OFFSET:]]
    sealed = head + extra + (digest or digest_of(payload, buffers))
    return [MARK + seal.of(sealed) + sealed[_OFFSET:], payload, *buffers]


def encode_group(
    seal: Seal, offset: int, origin: int, identities: Sequence[bytes], payloads: Sequence[bytes], made: int
) -> bytes:
    """The record of up to `MOST_GROUPED` results of up to `SMALL` bytes each, for that offset."""
    count, data = len(identities), b"".join(payloads)
    total = _EACH * count + len(data)
    head = _SEALED_HEAD.pack(offset, GROUP, 0, 0, 0, origin, count, total, made, b"")
    sizes = struct.pack(f"<{count}H", *map(len, payloads))
    sealed = b"".join((head, *identities, sizes, data))
    return MARK + seal.of(sealed) + sealed[_OFFSET:]


def sizes_in(window: bytes, at: int, count: int) -> tuple[int, ...]:
    """Those of a group's results; its payload begins at ``at``."""
    return struct.unpack_from(f"<{count}H", window, at + count * (_EACH - 2))


def _items(offset: int, payload_at: int, window: bytes, at: int, origin: int, count: int, made: int) -> Iterator[Found]:
    data = payload_at + _EACH * count
    for item, size in enumerate(sizes_in(window, at, count)):
        entry = Entry(window[at + 16 * item : at + 16 * item + 16], 0, origin, made=made)
        yield Found(offset, RESULT, entry, (), data, size, b"", item)
        data += size


def is_whole(found: Found, payload: Sequence[Bytes]) -> bool:
    """Whether this, in any pieces, is the record's payload.  One that was sealed with it has been looked at."""
    if sum(map(size_of, payload)) != found.size:
        return False
    if found.size <= INLINE:
        return True
    digest = hashlib.sha256()
    for piece in payload:
        digest.update(piece)
    return hmac.compare_digest(digest.digest(), found.digest)


def scan(read: Read, at: int, end: int, seal: Seal, chunk: int = _CHUNK) -> Iterator[Found | Damage]:
    """The records from that offset on, and what is damaged between them.  ``read(offset, size)`` reads the file."""
    for fields in quick_scan(read, at, end, seal, chunk):
        if len(fields) == 3:
            yield Damage(*fields)
            continue
        yield from _found_in(*fields)


def records_at(read: Read, offset: int, end: int, seal: Seal, chunk: int = _CHUNK) -> list[Found]:
    """The record that begins there, or all of its group; nothing if it is damaged."""
    fields = next(quick_scan(read, offset, end, seal, chunk), ())
    return list(_found_in(*fields)) if len(fields) == 5 and fields[0] == offset else []


def _found_in(offset: int, payload_at: int, window: bytes, i: int, head: tuple[Any, ...]) -> Iterator[Found]:
    """What `quick_scan` has found."""
    kind, buffers, keys, labels, origin, count, size, made, _, _ = head
    start = i + FIXED
    if kind == GROUP:
        yield from _items(offset, payload_at, window, start, origin, count, made)
        return
    key = window[start : start + keys]
    label = window[start + keys : start + keys + labels]
    sizes = struct.unpack_from(f"<{buffers}Q", window, start + keys + labels)
    entry = Entry(window[start - 16 : start], count, origin, key, label, made)
    digest = window[start + keys + labels + 8 * buffers :][:_DIGEST] if size > INLINE else b""
    yield Found(offset, kind, entry, sizes, payload_at, size, digest)


def quick_scan(read: Read, at: int, end: int, seal: Seal, chunk: int = _CHUNK) -> Iterator[tuple[Any, ...]]:
    """The same, for millions of them: ``(offset, payload's offset, window, index in it, the head)``, or a `Damage`."""
    window, base = b"", at
    damaged = -1  # where what is damaged begins
    empty, pack = seal.empty, _PLACE.pack
    unpack, size_of_window = _HEAD.unpack_from, 0
    while at < end:
        i = at - base
        if i + FIXED > size_of_window:
            window, base, i = read(at, chunk), at, 0
            size_of_window = len(window)
        good = False
        if i + FIXED <= size_of_window and window[i : i + 4] == MARK:
            head = unpack(window, i + _AT)
            size = head[6]
            covered = head[2] + head[3] + 8 * head[1]
            inline = size <= INLINE or (head[0] == GROUP and size <= _MOST_GROUP)
            stop = i + FIXED + covered + (size if inline else _DIGEST)
            if stop > size_of_window and base + stop <= end:
                stop -= i
                window, base, i = read(at, max(chunk, stop)), at, 0
                size_of_window = len(window)
            payload_at = at + FIXED + covered + (0 if inline else _DIGEST)
            if stop <= size_of_window and payload_at + size <= end:
                state = empty.copy()
                state.update(pack(at))
                state.update(window[i + _AT : stop])
                good = state.digest() == window[i + 4 : i + _AT] and (inline or head[0] != GROUP)
        if good:
            if damaged >= 0:
                yield Damage(damaged, at, False)
                damaged = -1
            yield at, payload_at, window, i, head
            at = payload_at + size
            continue
        if damaged < 0:
            damaged = at
        found = window.find(MARK, i + 1)
        if found >= 0:
            at = base + found
        elif base + size_of_window >= end or not size_of_window:
            at = end
        else:
            at = max(at + 1, base + size_of_window - len(MARK) + 1)  # a mark may begin there
    if damaged >= 0:
        yield Damage(damaged, end, True)

"""The bytes of a checkpoint: what is written is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parallel.checkpoint import format as fmt
from parallel.checkpoint.format import Damage, Entry, Found
from tests.checkpoint.files import KEY, Opened, identity, make

SEAL = fmt.Seal(KEY, bytes(16))
WORDS = st.integers(0, 2**64 - 1)
NUMBERS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([0, 1, 100, fmt.INLINE - 1, fmt.INLINE, fmt.INLINE + 1, 5000])
PAYLOADS = st.binary(max_size=40) | st.builds(lambda size, byte: byte * size, SIZES, st.binary(min_size=1, max_size=1))
ENTRIES = st.builds(
    Entry, st.binary(min_size=16, max_size=16), NUMBERS, NUMBERS, st.binary(max_size=300), st.binary(max_size=20), WORDS
)
RECORDS = st.tuples(
    st.sampled_from([fmt.RESULT, fmt.ORIGIN, fmt.DROP]), ENTRIES, PAYLOADS, st.lists(PAYLOADS, max_size=3)
)


def written(records: list[tuple[int, Entry, bytes, list[bytes]]], begin: bytes = b"") -> bytes:
    data = begin
    for kind, entry, payload, buffers in records:
        data += b"".join(fmt.encode(SEAL, len(data), kind, entry, payload, buffers))
    return data


def read(data: bytes, chunk: int = 1 << 20) -> list[Found | Damage]:
    return list(fmt.scan(lambda at, size: data[at : at + size], 0, len(data), SEAL, chunk))


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=6), st.sampled_from([fmt.FIXED, 200, 1 << 20]))
def test_what_was_written_is_read(records: list[tuple[int, Entry, bytes, list[bytes]]], chunk: int) -> None:
    data = written(records)
    found = read(data, chunk)
    assert len(found) == len(records)
    for one, (kind, entry, payload, buffers) in zip(found, records):
        assert isinstance(one, Found)
        assert (one.kind, one.entry) == (kind, entry)
        pieces, at = [], one.payload_at
        for size in (one.size - sum(one.buffers), *one.buffers):
            pieces.append(data[at : at + size])
            at += size
        assert pieces == [payload, *buffers]
        assert fmt.is_whole(one, pieces)
        assert at == one.end


@settings(deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=4), st.data(), st.sampled_from([200, 1 << 20]))
def test_what_was_changed_is_not_read(
    records: list[tuple[int, Entry, bytes, list[bytes]]], draw: st.DataObject, chunk: int
) -> None:
    """A flipped bit, wherever it is, costs the record that it is in, and no other."""
    whole = written(records)
    at = draw.draw(st.integers(0, len(whole) - 1))
    data = bytearray(whole)
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    before = [one for one in read(whole) if isinstance(one, Found)]
    hit = next(one for one in before if one.offset <= at < one.end)
    after = [one for one in read(bytes(data), chunk) if isinstance(one, Found)]
    if hit.size > fmt.INLINE and at >= hit.payload_at:
        assert after == before
        assert not fmt.is_whole(hit, [data[hit.payload_at : hit.end]])
    else:
        assert after == [one for one in before if one is not hit]


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=3), st.binary(max_size=300), st.lists(RECORDS, max_size=3), st.integers(70, 400))
@example([], fmt.MARK, [], 70)
@example([], fmt.MARK * 60, [(fmt.DROP, Entry(identity(1, 2)), b"", [])], 71)
def test_records_are_found_behind_what_is_none(
    before: list[tuple[int, Entry, bytes, list[bytes]]],
    rubbish: bytes,
    after: list[tuple[int, Entry, bytes, list[bytes]]],
    chunk: int,
) -> None:
    data = written(after, written(before) + rubbish)
    found = [one.entry for one in read(data, chunk) if isinstance(one, Found)]
    assert found == [entry for _, entry, _, _ in before + after]


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_anything_may_be_read(data: bytes) -> None:
    assert all(isinstance(one, Damage) for one in read(data))
    with pytest.raises((fmt.NoCheckpoint, fmt.WrongKey)):
        fmt.read_header(data, KEY)


def test_a_record_is_none_at_another_place_or_in_another_file() -> None:
    record = b"".join(fmt.encode(SEAL, 0, fmt.RESULT, Entry(identity(1, 2)), b"payload"))
    assert isinstance(read(record)[0], Found)
    assert [type(one) for one in read(record + record)] == [Found, Damage]
    other = fmt.Seal(KEY, b"\1" * 16)
    assert [type(one) for one in fmt.scan(lambda at, size: record[at : at + size], 0, 99, other)] == [Damage]


def test_a_record_in_a_result_is_no_record() -> None:
    """A result may be the bytes of a checkpoint, of this very one; and be damaged in front of them."""
    inner = b"".join(fmt.encode(SEAL, 0, fmt.RESULT, Entry(identity(1, 2)), b"payload"))
    data = bytearray(
        written([(fmt.RESULT, Entry(identity(3, 4)), inner * 9, []), (fmt.DROP, Entry(identity(5, 6)), b"", [])])
    )
    data[30] ^= 1
    assert [one.entry.identity for one in read(bytes(data)) if isinstance(one, Found)] == [identity(5, 6)]


def test_half_of_the_header_may_be_damaged() -> None:
    for at in range(fmt.HEADER_SIZE):
        data = bytearray(fmt.header(SEAL, 5))
        data[at] ^= 4
        assert fmt.read_header(bytes(data), KEY).file_id == SEAL.file_id


def test_headers_that_are_not_ours_are_told_apart() -> None:
    data = fmt.header(SEAL, 5)
    with pytest.raises(fmt.WrongKey):
        fmt.read_header(data, b"another key of sixteen bytes")
    with pytest.raises(fmt.NoCheckpoint):
        fmt.read_header(b"x,y\n1,2\n" * 99, KEY)
    head = fmt._HEADER.pack(fmt.MAGIC, fmt.VERSION + 1, bytes(16), 5)
    with pytest.raises(fmt.LaterVersion):
        fmt.read_header(2 * (head + SEAL.of(bytes(8) + head)), KEY)


# -- in files


def test_truncation_at_every_byte_of_the_last_two_records(own_folder: Path) -> None:
    """Kills and power cuts: what stands before the cut is known, the tail is cut and told, and more can be added."""
    path = own_folder / "results"
    *begins, end = make(path, b"first", b"second", b"x" * 1040, b"last")
    whole = path.read_bytes()
    for cut in range(begins[-2], end):
        path.write_bytes(whole[:cut])
        kept = 2 if cut < begins[-1] else 3
        with Opened(path) as opened:
            assert len(opened.results()) == kept
            assert len(opened.told) == (cut not in begins), cut
            assert all(f"the last {cut - begins[kept]} bytes" in text for text in opened.told)
            opened.add(9, b"new")
        with Opened(path) as opened:
            assert opened.results()[9, 0] == b"new"
            assert len(opened.results()) == kept + 1
            assert not opened.told


def test_truncation_of_a_file_that_was_just_made(own_folder: Path) -> None:
    path = own_folder / "results"
    make(path)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Opened(path) as opened:
            opened.add(1, b"one")
        with Opened(path) as opened:
            assert opened.results() == {(1, 0): b"one"}
            assert not opened.told


def test_a_flipped_bit_in_each_field_of_a_record(own_folder: Path) -> None:
    path = own_folder / "results"
    offsets = make(path, b"first", b"x" * 1040, b"third")
    whole = path.read_bytes()
    for at in [*range(offsets[1], offsets[1] + fmt.FIXED + 40), *range(offsets[2] - 1040, offsets[2], 103)]:
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        with Opened(path, write=False) as opened:
            assert opened.results() == {(1, 0): b"first", (3, 0): b"third"}
            assert len(opened.told) == (at < offsets[2] - 1040)  # the payload is looked at when it is read


def test_a_damaged_origin_is_there_a_second_time(own_folder: Path) -> None:
    from parallel.checkpoint.results_file import Origin

    path = own_folder / "results"
    origin = Origin("work", "", (("tasks", "/tasks.py", "abc"),))
    with Opened(path) as opened:
        begin = opened.file.end
        number = opened.file.origin(origin)
        assert opened.file.origin(origin) == number
    whole = path.read_bytes()
    for at in range(begin, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        with Opened(path, write=False) as opened:
            assert opened.file.origins == {number: origin}


# -- groups

GROUPS = st.lists(
    st.tuples(st.binary(min_size=16, max_size=16), st.binary(max_size=fmt.SMALL)), min_size=1, max_size=fmt.MOST_GROUPED
)


def grouped(results: list[tuple[bytes, bytes]], begin: bytes = b"") -> bytes:
    identities, payloads = zip(*results)
    return begin + fmt.encode_group(SEAL, len(begin), 5, identities, payloads, 9)


@settings(deadline=None, max_examples=50)
@given(st.lists(RECORDS, max_size=2), GROUPS, st.lists(RECORDS, max_size=2), st.sampled_from([fmt.FIXED, 300, 1 << 20]))
def test_what_was_written_as_a_group_is_read(
    before: list[tuple[int, Entry, bytes, list[bytes]]],
    results: list[tuple[bytes, bytes]],
    after: list[tuple[int, Entry, bytes, list[bytes]]],
    chunk: int,
) -> None:
    begin = written(before)
    data = written(after, grouped(results, begin))
    found = [one for one in read(data, chunk) if isinstance(one, Found)]
    assert len(found) == len(before) + len(results) + len(after)
    inside = found[len(before) : len(before) + len(results)]
    assert [(one.entry, data[one.payload_at : one.end]) for one in inside] == [
        (Entry(identity, 0, 5, made=9), payload) for identity, payload in results
    ]
    assert [(one.offset, one.item, one.kind) for one in inside] == [
        (len(begin), item, fmt.RESULT) for item in range(len(results))
    ]
    assert fmt.records_at(lambda at, size: data[at : at + size], len(begin), len(data), SEAL, chunk) == inside


@settings(deadline=None, max_examples=50)
@given(GROUPS, st.data())
def test_a_group_is_whole_or_it_is_none(results: list[tuple[bytes, bytes]], draw: st.DataObject) -> None:
    last: list[tuple[int, Entry, bytes, list[bytes]]] = [(fmt.DROP, Entry(identity(1, 2)), b"", [])]
    whole = grouped(results)
    data = bytearray(written(last, whole))
    data[draw.draw(st.integers(0, len(whole) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    assert [one.entry for one in read(bytes(data)) if isinstance(one, Found)] == [last[0][1]]
    cut = whole[: draw.draw(st.integers(0, len(whole) - 1))]
    assert all(isinstance(one, Damage) for one in read(cut))


def test_a_group_in_a_file(own_folder: Path) -> None:
    """The last result of an identity counts, in whatever record it stands; a file of version 1 gets groups too."""
    path = own_folder / "results"
    make(path, b"first", b"second")
    data = path.read_bytes()
    seal = fmt.read_header(data, KEY)
    head = fmt._HEADER.pack(fmt.MAGIC, 1, seal.file_id, 5)
    path.write_bytes(2 * (head + seal.of(bytes(8) + head)) + data[fmt.HEADER_SIZE :])
    with Opened(path) as opened:
        group = [identity(number) for number in (2, 3, 4)], [b"again", b"", b"fourth"]
        opened.file.append([(fmt.GROUP, Entry(b""), *group)], made=5)
        opened.file.append([(fmt.DROP, Entry(identity(4)), b"", ())])
    for write in (False, True):
        with Opened(path, write) as opened:
            assert not opened.told
            assert opened.results() == {(1, 0): b"first", (2, 0): b"again", (3, 0): b""}
            assert opened.file.seal.version == fmt.VERSION
            opened.file.rewrite(lambda found: True)
        assert fmt.read_header(path.read_bytes(), KEY).version == fmt.VERSION

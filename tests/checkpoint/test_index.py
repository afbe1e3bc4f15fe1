"""The index against a dictionary."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.checkpoint.identity import SMALL, Counts
from parallel.checkpoint.index import Index
from tests.checkpoint.files import identity

FEW = st.sampled_from([0, 1, 2, 8, 16, 2**63, 2**64 - 1])


@settings(deadline=None)
@given(st.lists(st.tuples(FEW, st.integers(0, 3), st.booleans())))
def test_the_last_record_of_an_identity_is_what_is_known(records: list[tuple[int, int, bool]]) -> None:
    index = Index()
    known: dict[tuple[int, int], int] = {}
    for offset, (low, nth, dropped) in enumerate(records, 1):
        if dropped:
            index.add_drop(low, nth)
            known.pop((low, nth), None)
        else:
            index.add(low, nth, offset + 100, offset)
            known[low, nth] = offset
    index.close()
    assert len(index) == len(known)
    assert sorted(map(index.offset, index.places())) == sorted(known.values())
    for low in (0, 1, 2, 3, 8, 16, 2**63, 2**64 - 1):
        for nth in range(4):
            place = index.find(low, nth)
            assert (None if place < 0 else index.offset(place)) == known.get((low, nth))
            assert place < 0 or index.origin(place) == index.offset(place) + 100


def test_it_takes_little_memory() -> None:
    for count in (1000, 1400, 100_000):
        index = Index()
        for number in range(count):
            index.add(number * 0x9E3779B97F4A7C15 % 2**64, 0, 1, number + 1)
        index.close()
        assert index.nbytes <= 120 * count


STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["next", "quickly", "release"])))


@settings(deadline=None)
@given(STEPS, st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2))) | st.just(set()))
def test_tasks_of_one_identity_are_counted(steps: list[tuple[int, str]], known: set[tuple[int, int]]) -> None:
    """Each has a number of its own; one that came to nothing leaves its number to the next."""
    index = Index()
    for low, nth in known:
        index.add(low, nth, 0, 1)
    index.close()
    counts = Counts(index)
    held: dict[int, list[int]] = {low: [] for low in range(4)}
    for low, what in steps:
        if what == "release" and held[low]:
            counts.release(identity(low), held[low].pop())
            continue
        bits = hash(identity(low)) & SMALL
        if what == "quickly" and counts.begins and counts.seen.setdefault(bits, bits) is bits:
            nth, place = 0, -1  # as a recorder does with what is like the first one
        else:
            nth, place = counts.next(identity(low))
        assert nth not in held[low]
        assert nth <= len(held[low]) + 1
        assert (place >= 0) == ((low, nth) in known)
        held[low].append(nth)


def test_one_thread_is_the_first_one() -> None:
    """Several that add the same tasks at the same time get all the numbers, each once."""
    index = Index()
    index.close()
    counts, lock = Counts(index), threading.Lock()
    identities = [identity(number) for number in range(2000)]
    found: list[tuple[bytes, int]] = []

    def add() -> None:
        for one in identities:
            bits = hash(one) & SMALL
            if counts.seen.setdefault(bits, bits) is bits:
                found.append((one, 0))
            else:
                with lock:
                    found.append((one, counts.next(one)[0]))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted((one, nth) for one in identities for nth in range(4))

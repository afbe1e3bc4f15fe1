"""Who has to go when too many strangers wait."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.core.admission import LEAST, MOST, Admission, places, source_of


@pytest.mark.parametrize("descriptors, expected", [(1024, 128), (256, 32), (1e9, MOST), (16, LEAST), (0, LEAST)])
def test_strangers_take_an_eighth_of_the_descriptors_at_most(descriptors: float, expected: int) -> None:
    assert places(descriptors) == expected


def test_the_longest_waiting_one_of_the_fullest_source_goes() -> None:
    admission: Admission[str] = Admission(4)
    assert [
        admission.come(name, host) for name, host in (("slave", "10.0.0.9"), ("a", "1.1.1.1"), ("b", "1.1.1.1"))
    ] == [
        None,
        None,
        None,
    ]
    assert admission.come("c", "1.1.1.1") is None
    assert admission.come("d", "1.1.1.1") == "a", "not the slave, though it waits for longest"
    assert admission.come("e", "1.1.1.1") == "b"
    assert admission.make_place() == "c" and len(admission) == 3
    admission.check()


def test_a_flood_from_one_address_never_costs_a_slow_slave_its_place() -> None:
    """1,500 a second for ten seconds."""
    admission: Admission[int] = Admission(128)
    admission.come(-1, "192.168.1.7")
    gone = [admission.come(number, "192.168.1.66") for number in range(15_000)]
    assert -1 not in gone and len(admission) == 128
    admission.leave(-1)
    assert len(admission) == 127


def test_who_leaves_is_forgotten_once() -> None:
    admission: Admission[str] = Admission(2)
    admission.come("a", "::1")
    admission.leave("a")
    admission.leave("a")
    assert len(admission) == 0 and admission.make_place() is None


@given(st.ip_addresses(v=6))
def test_the_source_of_an_ipv6_address_is_its_network(address: ipaddress.IPv6Address) -> None:
    if address.ipv4_mapped is not None:
        assert source_of(str(address)) in (str(address.ipv4_mapped), source_of(str(address)))
        return
    network = ipaddress.ip_network((int(address) >> 64 << 64, 64))
    first = [int(word, 16) for word in ipaddress.IPv6Address(network.network_address).exploded.split(":")[:4]]
    assert [int(word, 16) for word in source_of(str(address)).removesuffix("::/64").split(":")] == first


def test_an_ipv4_address_is_a_source_however_it_is_written() -> None:
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") == "10.0.0.1"
    assert source_of("fe80::1%eth0") == source_of("fe80::2%eth1") == "fe80:0:0:0::/64"


@given(st.lists(st.tuples(st.sampled_from(["come", "leave", "place"]), st.integers(0, 5)), max_size=60))
def test_nobody_is_lost_or_counted_twice(steps: list[tuple[str, int]]) -> None:
    admission: Admission[int] = Admission(4)
    waiting: set[int] = set()
    for number, (what, host) in enumerate(steps):
        if what == "come":
            waiting.add(number)
            waiting.discard(admission.come(number, f"10.0.0.{host}"))
        elif what == "leave" and waiting:
            gone = sorted(waiting)[host % len(waiting)]
            admission.leave(gone)
            waiting.discard(gone)
        else:
            waiting.discard(admission.make_place())
        admission.check()
        assert len(admission) == len(waiting)

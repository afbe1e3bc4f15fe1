"""Somebody between slaves and a real master, who holds no key: whatever he does, it comes out, and does no harm."""

from __future__ import annotations

import functools
import logging
import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

import parallel
from parallel.core import agents
from slave import handshake, introduction
from slave.certificate import make_certificate, server_context
from slave.dial import Address, dial
from slave.errors import Intercepted, SlaveError, Unreachable, WrongKey
from slave.handshake import PLAIN, SEALED, TLS
from slave.transport import unix_target
from tests.conftest import Make
from tests.support import relays, tasks
from tests.support.programs import Program, slave
from tests.support.relays import Change, Crossing, Meddle, Recorder, Relay, Trap, carry
from tests.support.waiting import eventually

KEY = b"the key of these tests"
PINGS = 5
SEARCHES = "PARALLEL_TEST_EXAMPLES" in os.environ  # for what nobody has seen yet (tests/support/examples.py)
MARK = "a marker that nobody else says " * 3
MODES = pytest.mark.parametrize("encrypt", [True, False], ids=["tls", "sealed"])
# what each side may say of bytes that were changed on the way, when the handshake proper was done
TAMPERED = "tampers with the connection|changes what goes over the connection|relays the connection"


@pytest.fixture(autouse=True)
def log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def trap(own_folder: Path) -> Iterator[Path]:
    """A folder that unpickling a `Trap` would make; it must not be there after the test."""
    path = own_folder / "trap"
    yield path
    assert not path.exists(), "what a relay said was unpickled"


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Starts slave programs with the key, and ends them after the test."""
    started: list[Program] = []

    def begin(*arguments: str) -> Program:
        started.append(slave(*arguments, "-n", "1", PARALLEL_AUTHKEY=KEY.decode()))
        return started[-1]

    yield begin
    for program in started:
        program.kill()


Start = Callable[..., Program]


def at(manager: parallel.Manager) -> Address:
    return "127.0.0.1", manager.address[1]


def name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def mode(encrypt: bool) -> int:
    return TLS if encrypt else SEALED


def converse(addresses: list[Address], encrypt: bool, seconds: float = 30.0) -> None:
    """What an honest slave does: say who it is, and call, several times; each answer must be the right one."""
    connection = dial(addresses, KEY, 5.0, encrypt=encrypt)
    try:
        connection.limit(seconds)
        connection.send((None, "accept_connection", (("test", 0, "", 0, 1),), {}))
        assert connection.recv() == ("#RETURN", None)
        for number in range(PINGS):
            connection.send(("tasks", f"ping {number}", (), {}))
        for number in range(PINGS):
            assert connection.recv() == ("#TRACEBACK", f"there is no 'ping {number}' of 'tasks' for slaves")
    finally:
        connection.close()


def squares(manager: parallel.Manager, n: int = 20) -> list[int]:
    context = manager.get_context()
    for number in range(n):
        context.add_task(functools.partial(tasks.square, number))
    return sorted(context.get_results_unordered())


SQUARES = [number * number for number in range(20)]


# -- what happens to a slave that dials the relay, attack by attack


class Attack(NamedTuple):
    name: str
    meddle: Callable[[int, Path], Meddle]  # given the mode and the trap
    slave: str  # what the slave's error says
    master: str  # what the master's log says
    modes: tuple[int, ...] = (TLS, SEALED)


def bomb(trap: Path) -> bytes:
    return relays.frame(Trap(trap))


def in_tls_record(words: bytes) -> bytes:
    """As application data that nobody has encrypted (RFC 8446, section 5.1)."""
    return b"\x17\x03\x03" + len(words).to_bytes(2, "big") + words


def in_sealed_record(words: bytes) -> bytes:
    return len(words).to_bytes(4, "big") + bytes(16) + words


def up(change: Callable[[Path], Change]) -> Callable[[int, Path], Meddle]:
    return lambda mode, trap: carry(mode, up=change(trap))


def down(change: Callable[[Path], Change]) -> Callable[[int, Path], Meddle]:
    return lambda mode, trap: carry(mode, down=change(trap))


REFUSES = "holds another one|could not prove"
# parts of the slave's stream: 0 answer; TLS 1 to 3; 4 proof, or 1 if sealed; then one for each message: 6 is a ping.
# of the master's: 0 greeting, 1 verdict; TLS 2 to 7; one that answers who the slave is; then answers to pings
ANSWERS = {TLS: 9, SEALED: 3}
ATTACKS = [
    Attack("inject", lambda mode, trap: relays.inject(bomb(trap)), TAMPERED, "changes what goes|tampers|hung up"),
    Attack(
        "inject in a TLS record",
        lambda mode, trap: relays.inject(in_tls_record(bomb(trap))),
        TAMPERED,
        "changes what goes|tampers|hung up",
    ),
    Attack(
        "inject in a sealed record",
        lambda mode, trap: relays.inject(in_sealed_record(bomb(trap))),
        TAMPERED,
        "changes what goes|tampers|hung up",
    ),
    Attack(
        "inject before the end of the slave's stream", up(lambda t: relays.then_say(bomb(t), 6)), TAMPERED, TAMPERED
    ),
    Attack("inject after a master's answer", down(lambda t: relays.then_say(bomb(t), 4)), TAMPERED, TAMPERED),
    Attack(
        "terminate TLS",
        lambda mode, trap: relays.terminate_tls(),
        "relays the connection: not its certificate",
        "hung up",
        (TLS,),
    ),
    Attack(
        "terminate TLS and inject",
        lambda mode, trap: relays.terminate_tls(bomb(trap)),
        "relays the connection: not its certificate",
        "it holds no key: somebody relays|hung up",
        (TLS,),
    ),
    Attack("strip to plain", down(lambda t: relays.offer(PLAIN)), "without any protection", "hung up"),
    Attack("strip to sealed", down(lambda t: relays.offer(SEALED)), "no encryption", "hung up", (TLS,)),
    Attack("unknown protection", down(lambda t: relays.offer(99)), "without any protection", "hung up"),
    Attack("feign TLS", down(lambda t: relays.offer(TLS)), REFUSES, "another key", (SEALED,)),
    Attack("drop a record of the slave", up(lambda t: relays.drop(6)), TAMPERED, TAMPERED),
    Attack("repeat a record of the slave", up(lambda t: relays.repeat(6)), TAMPERED, TAMPERED),
    Attack("swap records of the slave", up(lambda t: relays.swap(6)), TAMPERED, TAMPERED),
    Attack(
        "repeat the answer",
        up(lambda t: relays.repeat(0)),
        TAMPERED + "|did not complete the handshake",
        "changes what goes|relays|tampers|hung up",
    ),
    Attack(
        "repeat the verdict", down(lambda t: relays.repeat(1)), TAMPERED, TAMPERED + "|hung up during the handshake"
    ),
    Attack("drop the proof", up(lambda t: relays.drop(1)), TAMPERED, TAMPERED, (SEALED,)),
    Attack("repeat the proof", up(lambda t: relays.repeat(1)), TAMPERED, TAMPERED, (SEALED,)),
    Attack("swap proof and first frame", up(lambda t: relays.swap(1)), TAMPERED, "tampers", (SEALED,)),
    Attack("drop a record of the master", lambda m, trap: carry(m, down=relays.drop(ANSWERS[m])), TAMPERED, TAMPERED),
    Attack(
        "repeat a record of the master", lambda m, trap: carry(m, down=relays.repeat(ANSWERS[m])), TAMPERED, TAMPERED
    ),
    Attack("swap records of the master", lambda m, trap: carry(m, down=relays.swap(ANSWERS[m])), TAMPERED, TAMPERED),
    Attack("reflect", lambda mode, trap: relays.reflect, TAMPERED, "changes what goes|tampers|hung up"),
]
CASES = [
    pytest.param(attack, one, id=f"{attack.name}-{'tls' if one == TLS else 'sealed'}")
    for attack in ATTACKS
    for one in attack.modes
]


@pytest.mark.parametrize("attack, mode", CASES)
def test_attack_is_found_out_and_the_next_try_does(
    make: Make, trap: Path, caplog: pytest.LogCaptureFixture, attack: Attack, mode: int
) -> None:
    encrypt = mode == TLS
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    with Relay(at(manager), attack.meddle(mode, trap), which={1}) as relay:
        with pytest.raises((SlaveError, EOFError, OSError), match=attack.slave or None):
            converse([relay.address], encrypt)
        eventually(lambda: relay.meddled, 30, "the end of the attack")
        said = caplog.text
        if attack.master:
            eventually(lambda: re.search(attack.master, caplog.text), 30, f"a line like {attack.master!r}; {said}")
        converse([relay.address], encrypt)
        converse([at(manager)], encrypt)


@pytest.mark.parametrize("attack, mode", [case for case in CASES if case.values[0].name != "reflect"])  # type: ignore[union-attr]
def test_other_address_is_taken_instead(make: Make, trap: Path, attack: Attack, mode: int) -> None:
    """Where he can be found out before the handshake is over, in the same try; else in the next."""
    encrypt = mode == TLS
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    with Relay(at(manager), attack.meddle(mode, trap), which={1}) as relay:
        try:
            converse([relay.address, at(manager)], encrypt)
        except (SlaveError, EOFError, OSError):
            converse([relay.address, at(manager)], encrypt)


# -- one bit


def wire_sizes(make: Make, encrypt: bool) -> tuple[int, int]:
    """How many bytes of an undisturbed conversation go up and down."""
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    recorders = Recorder(), Recorder()
    with Relay(at(manager), carry(mode(encrypt), *recorders)) as relay:
        converse([relay.address], encrypt)
    manager.shutdown()
    return len(recorders[0].data), len(recorders[1].data)


@MODES
@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_bit_is_changed(
    make: Make, trap: Path, encrypt: bool, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somewhere in the stream, in each part of the handshake at least; nobody takes it for anything else."""
    monkeypatch.setattr(introduction, "HANDSHAKE_SECONDS", 0.5)  # the slave's: a changed length lets it wait
    seed = random.randrange(1 << 32) if SEARCHES else 20261126
    print("seed", seed)
    chance = random.Random(seed)
    sizes = wire_sizes(make, encrypt)
    size = sizes[direction == "down"]
    proper = sum(relays.DOWN if direction == "down" else relays.UP)
    positions = [0, 8, 9, 10, 11, 43, proper - 33, proper - 32, proper - 1]  # magic, version, mode, nonce, F, proofs
    positions += [proper + at for at in (0, 1, 3, 4, 5, 19, 20)]  # of the first record: type or length, MAC, payload
    # not the last record: it may be on its way when the slave has hung up
    positions += [chance.randrange(proper, size - 200) for _ in range(24)]
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    for position in positions:
        flip = relays.flip(position, chance.randrange(8))
        meddle = carry(mode(encrypt), **{direction: flip})
        with Relay(at(manager), meddle, which={1}) as relay:
            try:
                converse([relay.address], encrypt, seconds=0.5)
            except (SlaveError, EOFError, OSError):
                continue
            assert unchecked(position, proper, direction, encrypt), f"nobody saw bit of byte {position} {direction}"
    monkeypatch.undo()
    converse([at(manager)], encrypt)


def unchecked(position: int, proper: int, direction: str, encrypt: bool) -> bool:
    """Whether it may be a byte that means nothing: in TLS 1.3 an unencrypted record's version (RFC 8446, 5.1)."""
    return encrypt and proper <= position < proper + 250


@MODES
@pytest.mark.parametrize("direction", ["up", "down"])
def test_bits_change_under_a_real_run(
    make: Make, start: Start, trap: Path, caplog: pytest.LogCaptureFixture, encrypt: bool, direction: str
) -> None:
    """In the first connections of the agent and of its runner, while tasks and results go by."""
    seed = random.randrange(1 << 32) if SEARCHES else 20261126
    print("seed", seed)
    chance = random.Random(seed)
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)

    def meddle(to_slave: Any, to_master: Any) -> None:
        change = relays.flip(chance.randrange(2000, 4000), chance.randrange(8))
        carry(mode(encrypt), **{direction: change})(to_slave, to_master)

    with Relay(at(manager), meddle, which={3, 4, 5}) as relay:  # the runner's; 1 and 2 are the agent's
        program = start(relay.name, "--wait", "60", *([] if encrypt else ["--no-encryption"]))
        manager.wait_for_slaves(1, 40)
        for _ in range(10):
            assert squares(manager) == SQUARES
        eventually(lambda: relay.meddled, 30, "the end of a connection that was changed")
        eventually(lambda: manager.slaves[0].state != "lost", 30, f"a slave that is there, not {manager.slaves}")
        manager.shutdown()
        assert program.ends() == 0


# -- records of a real run


@MODES
@pytest.mark.parametrize("direction", ["up", "down"])
def test_records_of_a_real_run_are_repeated(make: Make, start: Start, encrypt: bool, direction: str) -> None:
    """Each result arrives, once, whichever message of the runner's arrives twice."""
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    meddled = 0

    def meddle(to_slave: Any, to_master: Any) -> None:
        nonlocal meddled
        meddled += 1
        change = relays.repeat((12 if encrypt else 6) + meddled)
        carry(mode(encrypt), **{direction: change})(to_slave, to_master)

    with Relay(at(manager), meddle, which={3, 4, 5}) as relay:  # the runner's; 1 and 2 are the agent's
        program = start(relay.name, "--wait", "60", *([] if encrypt else ["--no-encryption"]))
        for _ in range(20):  # how many tasks a record holds depends on how long the first ones took
            assert squares(manager, 400) == [number * number for number in range(400)]
            if meddled >= 2:
                break
        assert meddled >= 2, "no record was repeated"
        manager.shutdown()
        assert program.ends() == 0


# -- the real program


PROGRAM = [attack for attack in ATTACKS if attack.name in ("inject", "terminate TLS and inject")]


@pytest.mark.parametrize("attack", PROGRAM, ids=[attack.name for attack in PROGRAM])
def test_slave_program_gets_in_at_its_next_try(
    make: Make, start: Start, trap: Path, caplog: pytest.LogCaptureFixture, attack: Attack
) -> None:
    manager = make(0, port=0, authkey=KEY)
    with Relay(at(manager), attack.meddle(TLS, trap), which={1}) as relay:
        program = start(relay.name, "--wait", "60")
        assert squares(manager) == SQUARES
        program.says(attack.slave)
        eventually(lambda: re.search(attack.master, caplog.text), 30, f"a line like {attack.master!r}")
        manager.shutdown()
        assert program.ends() == 0


@pytest.mark.parametrize("attack", PROGRAM, ids=[attack.name for attack in PROGRAM])
def test_slave_program_that_is_always_relayed_says_so(make: Make, start: Start, trap: Path, attack: Attack) -> None:
    manager = make(0, port=0, authkey=KEY)
    with Relay(at(manager), attack.meddle(TLS, trap)) as relay:
        program = start(relay.name, "--wait", "0")
        assert program.ends() == Unreachable.exit_code or program.process.returncode == Intercepted.exit_code
        assert re.search(attack.slave, program.err)
        assert len(program.err.splitlines()) == 1
        assert not manager.slaves


def test_forged_refusal_does_not_hide_the_other_address(make: Make, start: Start) -> None:
    """He can say "wrong key" in the master's name, at his own address alone."""
    manager = make(0, port=0, authkey=KEY)
    forged = carry(TLS, down=lambda number, part: [b"\x01" + bytes(32)] if number == 1 else [part])
    with Relay(at(manager), forged) as relay:
        program = start(relay.name, name(at(manager)), "--wait", "0")
        assert squares(manager) == SQUARES
        with pytest.raises(WrongKey, match="wrong key"):
            dial([relay.address], KEY, 5.0)
        manager.shutdown()
        assert program.ends() == 0


FORGED = {
    "wrong key": (1, b"\x01" + bytes(32), 3),
    "another version": (1, b"\x02" + bytes(32), 6),
    "a verdict without proof": (1, bytes(33), 3),
    "another greeting": (0, b"parallel\x00\x63" + bytes(65), 6),
    "no encryption": (0, b"", 6),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_words_do_not_end_a_slave_that_waits(make: Make, start: Start, what: str) -> None:
    """He has proved nothing: the slave says so, and goes on trying."""
    manager = make(0, port=0, authkey=KEY)
    place, words, code = FORGED[what]

    def forge(number: int, part: bytes) -> list[bytes]:
        if number != place:
            return [part]
        return [words or part[:10] + bytes([SEALED]) + part[11:]]

    with Relay(at(manager), carry(TLS, down=forge), which={1, 2, 3, 4}) as relay:
        ends = start(relay.name, "--wait", "0")
        assert ends.ends() == code
        assert len(ends.err.splitlines()) == 1
        waits = start(relay.name, "--wait", "60")
        waits.says("no master yet .*(wrong key|version|protocol|no encryption)")
        assert squares(manager) == SQUARES
        manager.shutdown()
        assert waits.ends() == 0


@MODES
def test_who_lets_only_handshakes_through_does_not_keep_a_slave_out(make: Make, start: Start, encrypt: bool) -> None:
    """He stands at the first address for ever, wins each time, and breaks what was agreed upon; there is another."""
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)

    def meddle(to_slave: socket.socket, to_master: socket.socket) -> None:
        carry(mode(encrypt), up=relays.repeat(5 if encrypt else 2))(to_slave, to_master)  # who it is, twice

    with Relay(at(manager), meddle) as relay:
        words = [] if encrypt else ["--no-encryption"]
        program = start(relay.name, name(at(manager)), "--wait", "60", *words)
        manager.wait_for_slaves(1, 40)
        assert squares(manager) == SQUARES
        manager.shutdown()
        assert program.ends() == 0


# -- sessions


def test_lease_that_somebody_keeps_for_himself_is_missed(
    make: Make, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes after it by which the slave would see that, and its next call is far: its heartbeats tell."""
    monkeypatch.setattr(agents, "POLL_SECONDS", 0.1)
    manager = make(0, port=0, authkey=KEY, lease=1.0)
    kept: list[bytes] = []

    def keep(number: int, part: bytes) -> list[bytes]:
        if len(part) < 5000 or len(kept) != 1:
            return [part]
        kept.append(part)
        return []

    with Relay(at(manager), carry(TLS, down=keep)) as relay:
        program = start(relay.name)
        assert squares(manager) == SQUARES
        kept.append(b"from now on")
        context = manager.get_context()
        context.add_task(functools.partial(len, bytes(8000)))
        assert list(context.get_results_unordered()) == [8000]
        assert len(kept) == 2, "nothing was kept"
        manager.shutdown()
        assert program.ends() == 0


@MODES
def test_recorded_session_is_no_use_with_the_master(
    make: Make, caplog: pytest.LogCaptureFixture, encrypt: bool
) -> None:
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    recorded = Recorder()
    with Relay(at(manager), carry(mode(encrypt), up=recorded)) as relay:
        converse([relay.address], encrypt)
    assert len(recorded.parts) > PINGS
    with socket.create_connection(at(manager), 30) as again:
        relays.read_exactly(again, handshake.GREETING_SIZE)
        again.sendall(recorded.data)
        rest = b"?" * (handshake.VERDICT_SIZE + 1)
        try:
            rest = relays.read_exactly(again, handshake.VERDICT_SIZE)
            rest += again.recv(1000)
        except OSError:
            pass  # reset: it read no more than the answer
        assert (len(rest) == handshake.VERDICT_SIZE and rest[0]) or rest[0] == ord("?")
    eventually(lambda: "refused: it holds another key" in caplog.text, 30)


@MODES
def test_recorded_session_is_no_use_with_a_slave(make: Make, encrypt: bool) -> None:
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    recorded = Recorder()
    with Relay(at(manager), carry(mode(encrypt), down=recorded)) as relay:
        converse([relay.address], encrypt)

    def play(to_slave: Any, to_master: Any) -> None:
        to_slave.sendall(recorded.data)
        relays.swallow(to_slave)

    with Relay(at(manager), play) as relay, pytest.raises(WrongKey, match="could not prove that it holds"):
        converse([relay.address], encrypt)


def test_greeting_of_the_master_is_not_an_answer(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    manager = make(0, port=0, authkey=KEY)
    with socket.create_connection(at(manager), 30) as sock:
        greeted = relays.read_exactly(sock, handshake.GREETING_SIZE)
        sock.sendall(greeted.ljust(handshake.ANSWER_SIZE, b"\0"))
        eventually(lambda: "refused: it holds another key" in caplog.text, 30)


@MODES
@pytest.mark.parametrize("stage", [1, 3], ids=["greeted", "judged"])
def test_halves_of_two_sessions(make: Make, caplog: pytest.LogCaptureFixture, encrypt: bool, stage: int) -> None:
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    outcomes: list[BaseException | None] = []

    def one(address: Address) -> None:
        try:
            converse([address], encrypt)
            outcomes.append(None)
        except (SlaveError, EOFError, OSError) as error:
            outcomes.append(error)

    with Relay(at(manager), Crossing(stage), which={1, 2}) as relay:
        slaves = [threading.Thread(target=one, args=(relay.address,)) for _ in range(2)]
        for thread in slaves:
            thread.start()
        for thread in slaves:
            thread.join(90)
        assert len(outcomes) == 2 and None not in outcomes
        if stage == 1:
            assert any(isinstance(error, WrongKey) for error in outcomes)
        said = "holds another key" if stage == 1 else "it holds no key: somebody relays" if encrypt else "tampers"
        eventually(lambda: said in caplog.text, 30, f"{said!r} in {caplog.text}")
        converse([relay.address], encrypt)


# -- which master


def test_unix_socket_is_not_to_be_had_by_the_network(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Plain bytes go through Unix sockets only, and a slave knows by which it has come."""
    manager = make(0, authkey=KEY)
    host, _ = manager.address
    assert host.startswith("unix:")
    target = unix_target(host)
    assert isinstance(target, bytes)
    with Relay(target, relays.both_ways) as relay, pytest.raises(SlaveError, match="without any protection"):
        dial([relay.address], KEY, 5.0, encrypt=False)
    eventually(lambda: "hung up during the handshake" in caplog.text, 30)


def test_another_master_with_the_same_key_is_not_served(make: Make, start: Start, own_folder: Path) -> None:
    right, wrong = (make(0, port=0, authkey=KEY) for _ in range(2))
    fingerprint = words_after(right.join_command, "--master")
    with Relay(at(wrong), relays.both_ways) as relay:
        alone = start(relay.name, "--master", fingerprint, "--wait", "0")
        assert alone.ends() == 4
        assert "another master answers there" in alone.err
        program = start(relay.name, name(at(wrong)), name(at(right)), "--master", fingerprint, "--wait", "0")
        assert squares(right) == SQUARES
        assert not wrong.slaves
        right.shutdown()
        assert program.ends() == 0


def words_after(command: str, option: str) -> str:
    words = command.split()
    return words[words.index(option) + 1]


def test_agent_does_not_go_over_to_another_master(make: Make, start: Start) -> None:
    """Nor by a relay that takes its later connections elsewhere: whom it met first is whom it serves."""
    right, wrong = (make(0, port=0, authkey=KEY) for _ in range(2))

    def elsewhere(to_slave: Any, to_master: Any) -> None:
        with socket.create_connection(at(wrong), 30) as other:
            relays.both_ways(to_slave, other)

    with Relay(at(right), elsewhere, which={2}) as relay:
        program = start(relay.name, "--wait", "60")
        assert squares(right) == SQUARES
        program.says("another master answers there")
        assert not wrong.slaves
        right.shutdown()
        assert program.ends() == 0


# -- what can be read


@MODES
def test_what_a_listener_reads(make: Make, start: Start, own_folder: Path, encrypt: bool) -> None:
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    told = threading.Lock()
    recorders: list[Recorder] = []

    def listen(to_slave: Any, to_master: Any) -> None:
        pair = Recorder(), Recorder()
        with told:
            recorders.extend(pair)
        carry(mode(encrypt), *pair)(to_slave, to_master)

    with Relay(at(manager), listen) as relay:
        program = start(relay.name, "--wait", "0", *([] if encrypt else ["--no-encryption"]))
        context = manager.get_context()
        context.add_task(functools.partial(tasks.give, MARK))
        assert list(context.get_results_unordered()) == [MARK]
        manager.shutdown()
        assert program.ends() == 0
    heard = b"".join(recorder.data for recorder in recorders)
    assert len(heard) > 1000
    assert (MARK.encode() in heard) == (not encrypt)
    assert KEY not in heard and KEY.hex().encode() not in heard
    assert (str(own_folder).encode() in heard) == (not encrypt), "where the program runs"


@MODES
def test_slave_that_insists_on_encryption(make: Make, start: Start, encrypt: bool) -> None:
    manager = make(0, port=0, authkey=KEY, encrypt=encrypt)
    program = start(name(at(manager)), "--wait", "0")
    if encrypt:
        assert squares(manager) == SQUARES
        manager.shutdown()
        assert program.ends() == 0
    else:
        assert program.ends() == 6
        assert "offers no encryption; a slave takes that only if started with --no-encryption" in program.err


def test_context_of_ones_own(make: Make, start: Start) -> None:
    made = make_certificate()
    manager = make(0, port=0, authkey=KEY, tls=server_context(made))
    fingerprint = words_after(manager.join_command, "--master")
    assert made.fingerprint.hex().startswith(fingerprint)
    program = start(name(at(manager)), "--master", fingerprint, "--wait", "0")
    assert squares(manager) == SQUARES
    manager.shutdown()
    assert program.ends() == 0

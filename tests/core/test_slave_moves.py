"""The tables of a slave's moves: every move there is, and what the roster counts by them."""

from __future__ import annotations

import itertools
import math
from typing import Any, Callable

import pytest

from parallel.core.moves import IllegalMove
from parallel.core.roster import Roster
from parallel.core.slave import MOVES, SIGNS, Contact, Life, Move, Sign, SlaveRecord

# what becomes of a slave: '-' for a move that there is not
LIVES = """
              JOIN       REPLACE    DRAIN      DISMISS    PART    START_OVER  END
    EXPECTED  READY      EXPECTED   DRAINING   DISMISSED  PARTED  EXPECTED    ENDED
    READY     READY      EXPECTED   DRAINING   DISMISSED  PARTED  EXPECTED    ENDED
    DRAINING  DRAINING   DRAINING   DRAINING   DISMISSED  PARTED  EXPECTED    ENDED
    DISMISSED DISMISSED  DISMISSED  DISMISSED  DISMISSED  -       DISMISSED   ENDED
    PARTED    READY      EXPECTED   DRAINING   DISMISSED  PARTED  EXPECTED    ENDED
    ENDED     -          -          -          -          -       -           -
"""
CONTACTS = """
              HEAR       CUT        MISS       FORGET
    UNHEARD   HEARD      -          -          UNHEARD
    HEARD     HEARD      CUT_OFF    LOST       UNHEARD
    CUT_OFF   HEARD      CUT_OFF    LOST       UNHEARD
    LOST      HEARD      -          -          UNHEARD
"""


def table_of(text: str) -> dict[tuple[str, str], str]:
    """A table as it is written above: by state and move the next state."""
    moves, *rows = [line.split() for line in text.strip().splitlines()]
    return {(row[0], move): to for row in rows for move, to in zip(moves, row[1:]) if to != "-"}


def everything(slave: SlaveRecord) -> dict[str, Any]:
    return {name: getattr(slave, name) for name in SlaveRecord.__slots__ if not name.startswith("_")}


def test_the_tables_are_as_they_are_written_here() -> None:
    assert {(state.name, move.name): to.name for (state, move), to in MOVES.items()} == table_of(LIVES)
    assert {(state.name, sign.name): to.name for (state, sign), to in SIGNS.items()} == table_of(CONTACTS)


@pytest.mark.parametrize("life", Life)
@pytest.mark.parametrize("move", Move)
def test_a_move_leads_where_the_table_says_or_raises_and_changes_nothing(life: Life, move: Move) -> None:
    slave = SlaveRecord(0, "job 12.1", "a")
    slave.life = life
    to = table_of(LIVES).get((life.name, move.name))
    before = everything(slave)
    if to is None:
        with pytest.raises(IllegalMove, match=rf"^{move.name} of slave 0 \(job 12.1\), which is {life.name}$"):
            slave.move(move)
        assert everything(slave) == before
    else:
        slave.move(move)
        assert everything(slave) == {**before, "life": Life[to]}


@pytest.mark.parametrize("contact", Contact)
@pytest.mark.parametrize("sign", Sign)
def test_a_sign_leads_where_the_table_says_or_raises_and_changes_nothing(contact: Contact, sign: Sign) -> None:
    slave = SlaveRecord(0, "job 12.1", "a")
    slave.contact = contact
    to = table_of(CONTACTS).get((contact.name, sign.name))
    before = everything(slave)
    if to is None:
        with pytest.raises(IllegalMove, match=rf"^{sign.name} of slave 0 \(job 12.1\), which is {contact.name}$"):
            slave.sign(sign)
        assert everything(slave) == before
    else:
        slave.sign(sign)
        assert everything(slave) == {**before, "contact": Contact[to]}


def slave_in(roster: Roster, life: Life, contact: Contact) -> SlaveRecord:
    """A slave that came into that state as slaves do; with contact UNHEARD it may be READY, for want of a heartbeat."""
    slave = roster.expect("job 12.1", "a")
    if life is Life.PARTED:
        roster.part(slave, "it left")
    elif life is not Life.EXPECTED:
        roster.join(slave, 4711, 1)
    if contact is not Contact.UNHEARD:
        roster.heard(slave, 5.0, 10.0)
    if contact is Contact.CUT_OFF:
        roster.cut_off("a", 7.0)
    if contact is Contact.LOST:
        roster.lose(slave)
    moves = {Life.DRAINING: Move.DRAIN, Life.DISMISSED: Move.DISMISS, Life.ENDED: Move.END}
    if life in moves:
        roster.move(slave, moves[life])
    return slave


CHANGES: dict[Move, Callable[[Roster, SlaveRecord], None]] = {
    Move.JOIN: lambda roster, slave: roster.join(slave, 4712, 2),
    Move.REPLACE: lambda roster, slave: roster.replace(slave),
    Move.PART: lambda roster, slave: roster.part(slave, "it left again"),
    Move.START_OVER: lambda roster, slave: roster.start_over(slave, "b"),
    Move.DRAIN: lambda roster, slave: roster.move(slave, Move.DRAIN),
    Move.DISMISS: lambda roster, slave: roster.move(slave, Move.DISMISS),
    Move.END: lambda roster, slave: roster.move(slave, Move.END),
}


@pytest.mark.parametrize(("life", "contact"), list(itertools.product(Life, Contact)))
@pytest.mark.parametrize("move", Move)
def test_the_roster_makes_a_move_as_a_whole_or_not_at_all(life: Life, contact: Contact, move: Move) -> None:
    roster = Roster()
    slave = slave_in(roster, life, contact)
    before = everything(slave)
    if (life, move) in MOVES:
        CHANGES[move](roster, slave)
        assert slave.life is MOVES[life, move]
    else:
        with pytest.raises(IllegalMove):
            CHANGES[move](roster, slave)
        assert everything(slave) == before
    roster.check()


@pytest.mark.parametrize(("life", "contact"), list(itertools.product(Life, Contact)))
def test_what_a_slave_may_be_given_and_what_is_counted_follows_from_both_states(life: Life, contact: Contact) -> None:
    roster = Roster()
    slave = slave_in(roster, life, contact)
    roster.check()
    assert slave.connected == (life is Life.READY and contact is not Contact.LOST) == (0 in roster.connected)
    assert roster.lost == (slave.contact is Contact.LOST) == (contact is Contact.LOST and life is not Life.ENDED)
    assert (0 in roster.slaves) != (0 in roster.ended)
    assert roster.every() == [slave] == [roster.known(0)]
    assert slave.leaving == (life in (Life.DRAINING, Life.DISMISSED))
    assert slave.joined == (life in (Life.READY, Life.DRAINING, Life.DISMISSED))


def test_a_slave_whose_processes_are_gone_is_not_missed_and_has_no_host() -> None:
    roster = Roster()
    slave = slave_in(roster, Life.READY, Contact.HEARD)
    slave.host, slave.running = "node1", 5
    assert str(slave) == "slave 0 (job 12.1 on node1, pid 4711)"
    roster.part(slave, "it left")
    assert (slave.due, slave.host, slave.pid, slave.running) == (math.inf, "", 0, 0)
    assert str(slave) == "slave 0 (job 12.1)" and slave.parting == "it left"
    roster.join(slave, 4712, 1)
    assert not slave.parting


def test_a_slave_that_moves_to_another_agent_is_that_agents() -> None:
    roster = Roster()
    slave = slave_in(roster, Life.READY, Contact.HEARD)
    roster.start_over(slave, "b")
    assert roster.of_agent("a") == [] and roster.of_agent("b") == [slave]
    roster.forget_agent("a")
    roster.forget_agent("b")
    assert list(roster.agents) == ["b"], "it still has a slave"
    roster.check()


def test_nothing_of_an_ended_slave_is_kept_for_its_agent_or_its_contexts() -> None:
    roster = Roster()
    slave = slave_in(roster, Life.READY, Contact.HEARD)
    slave.knows, slave.setup_failed, slave.to_forget = {1}, {2}, [3]
    roster.move(slave, Move.END)
    assert not slave.knows and not slave.setup_failed and not slave.to_forget
    assert roster.agents["a"].slaves == {} and roster.agents["a"].ended == {0: slave}
    roster.forget_agent("a")
    assert not roster.agents and roster.ended == {0: slave}

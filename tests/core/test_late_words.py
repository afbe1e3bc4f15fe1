"""Words that come late, over a connection that was replaced, or twice: the scheduler as slaves and agents find it."""

from __future__ import annotations

import pytest

from parallel.core import events as ev
from parallel.core.agents import RECONNECT_SECONDS
from parallel.core.effects import HangUp
from parallel.core.moves import IllegalMove
from parallel.core.pacing import Pacing
from parallel.core.slave import Contact, Life
from slave.outcome import pack_failure
from slave.protocol import IDLE_SECONDS, POLL_SECONDS, VALUE, Command, Recall, StartRunner
from tests.core.conftest import MakeEnv
from tests.core.fake import PID, RUN, Env, Launched


def command(env: Env, *commands: Command) -> None:
    """Agent a is commanded this."""
    for one in commands:
        env.state.command("a", one)
    env.collect()


def contact_of(env: Env) -> Contact:
    return env.record(0).contact


def test_the_end_of_a_process_is_told_and_blamed_though_the_next_one_joins_before_the_agents_word(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    next_one = env.join(number, PID + 1)
    env.nothing_left()
    assert env.lease_of(number) == [1]
    env.runner_ended(number, 1)
    assert env.take_answer(next_one) is True and env.record(number).pid == PID + 1
    (lost,) = env.events(ev.SlaveLost)
    assert (lost.name, lost.end) == (f"slave 0 (started by hand on here, pid {PID})", "it was killed by SIGKILL")
    assert len(env.task(1).ends or ()) == 1


def test_a_process_whose_predecessors_end_nobody_tells_joins_all_the_same(env: Env) -> None:
    """Its agent is cut off, and will enlist again."""
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    next_one = env.join(number, PID + 1)
    env.pass_time(1.9)
    env.nothing_left()
    env.pass_time(0.1)
    assert env.take_answer(next_one) is True
    assert env.lease_of(number) == [] and env.record(number).pid == PID + 1


def test_a_waiting_call_of_an_old_connection_gets_no_lease_when_its_slave_has_joined_anew(env: Env) -> None:
    number = env.slave()
    stale = env.fetch(number)
    anew = env.join(number)
    assert env.take_granted(stale) == []
    assert env.take_answer(anew) is True
    env.add()
    assert env.lease_of(number) == []
    assert env.fetched(number) == env.lease_of(number) == [1]


def test_of_two_waiting_calls_of_one_slave_the_newer_gets_the_lease(env: Env) -> None:
    number = env.slave()
    stale = env.fetch(number)
    newer = env.fetch(number)
    assert env.take_granted(stale) == []
    assert number in env.state.idle, "the older call leaves the newer one to be woken"
    env.add()
    assert env.take_granted(newer) == env.lease_of(number) == [1]


def test_a_slave_that_holds_a_lease_is_not_granted_another(env: Env) -> None:
    number = env.slave()
    env.add(2)
    env.state.take_in()
    table = env.state.table
    held = table.grant(number, 0.0, (), 1, Pacing())
    with pytest.raises(IllegalMove, match=r"slave 0 holds lease 1 and is to get another one"):
        table.grant(number, 0.0, (), 1, Pacing())
    assert table.leases.by_slave[number] is held
    table.check()


def test_the_late_end_of_an_agents_old_connection_does_not_cut_it_off(env: Env) -> None:
    number = env.slave()
    slave = env.record(number)
    env.enlist([number], run=RUN, connection=2)
    due = slave.due
    env.agent_disconnected(1)
    assert slave.contact is Contact.HEARD and slave.due == due
    env.commands_disconnected(env.commands())
    assert slave.contact is Contact.HEARD and slave.due == due


def test_what_an_agent_said_first_does_not_count_when_it_is_read_after_it_has_said_it_again(env: Env) -> None:
    """It is no other process of that agent: its slave goes on, and what that has set up is known."""
    number = env.slave()
    env.enlist([number], run=RUN, connection=3, runners={number: PID})
    env.context()
    (task,) = env.add()
    assert env.fetched(number) == [task]
    assert env.enlist([None], connection=2, late=True).numbers == [number]
    record = env.record(number)
    assert record.pid == PID and record.life is Life.READY
    assert list(env.state.leases.by_slave[number].tasks) == [task]
    env.enlist([None], connection=1)
    assert not record.pid, "what comes on a later connection is another process"


def test_an_agents_word_that_it_is_back_does_not_count_when_it_is_read_after_the_next_one(env: Env) -> None:
    """The master was stopped, and found both; then the older connection ends."""
    number = env.slave()
    env.enlist([number], run=RUN, connection=3, runners={number: PID})
    assert env.enlist([], run=RUN, connection=2, late=True).numbers == [number]
    env.agent_disconnected(2)
    assert contact_of(env) is Contact.HEARD and env.record(number).life is Life.READY
    env.agent_disconnected(3)
    assert contact_of(env) is Contact.CUT_OFF


def test_a_runner_that_has_joined_on_a_newer_connection_is_served_there(env: Env) -> None:
    """Its word on the older one is read late; it had asked for tasks without end and got none."""
    number = env.slave()
    env.joined(number, connection=3)
    assert env.take_answer(env.join(number, connection=2)) is False
    env.runner_disconnected(number, connection=2)
    env.add()
    assert env.fetched(number, connection=3) == [1]


def test_the_late_end_of_a_former_processs_connection_does_not_cut_the_agents_next_process_off(env: Env) -> None:
    """Its job was started again, and each process counts its connections from 1 on."""
    env.slave()
    env.agent_disconnected(1, pid=2)
    assert contact_of(env) is Contact.HEARD


def test_the_end_of_an_agents_current_connection_cuts_it_off_until_it_is_back(env: Env) -> None:
    number = env.slave()
    slave = env.record(number)
    env.add()
    assert env.fetched(number) == [1]
    env.agent_disconnected(1)
    assert contact_of(env) is Contact.CUT_OFF and slave.due - slave.heard < RECONNECT_SECONDS + 5
    assert env.state.leases.by_slave[number].deadline == slave.due
    env.enlist([number], run=RUN, connection=2, runners={number: PID})
    assert contact_of(env) is Contact.HEARD
    assert env.state.leases.by_slave[number].deadline == slave.due == slave.heard + 10
    assert env.lease_of(number) == [1]


def test_commands_are_given_again_until_they_are_acknowledged(env: Env) -> None:
    env.slave()
    command(env, StartRunner(5, None))
    assert env.take_answer(env.commands(acknowledged=0)) == (1, [StartRunner(5, None)])
    again = env.take_answer(env.commands(acknowledged=0))
    assert again == (1, [StartRunner(5, None)]), "the answer was lost with its connection"
    command(env, Recall(0, 3))
    assert env.take_answer(env.commands(acknowledged=1)) == (2, [Recall(0, 3)])
    assert env.state.roster.agents["a"].commands == [(2, Recall(0, 3))]


def test_a_command_wakes_the_call_that_waits_for_it(env: Env) -> None:
    env.slave()
    call = env.commands()
    env.nothing_left()
    command(env, Recall(0, 3))
    assert env.take_answer(call) == (1, [Recall(0, 3)])


def test_a_call_for_commands_that_nobody_answers_ends_with_none_of_them(env: Env) -> None:
    number = env.slave()
    call = env.commands()
    for _ in range(4):
        env.nothing_left()
        env.heartbeat(number)
        env.pass_time(POLL_SECONDS / 4)
    assert env.take_answer(call) == (0, [])


def test_a_slave_that_was_closed_while_its_agent_was_out_of_reach_has_ended(env: Env) -> None:
    gone, there = env.enlist([None, None]).numbers
    for number in (gone, there):
        env.joined(number, PID + number)
    env.add(1)
    assert env.fetched(gone, PID + gone) == [1]
    assert env.enlist([there], run=RUN, connection=2).numbers == [gone, there]
    assert env.record(gone).life is Life.ENDED and "right after each start" in env.record(gone).end
    assert env.record(there).life is Life.READY
    assert env.lease_of(gone) == [] and env.state.backlog.waiting == 1


def test_a_slave_whose_command_is_still_on_its_way_has_not_ended(env: Env) -> None:
    number = env.slave()
    (late,) = env.expect(Launched("LocalSlave()"))
    env.start_by_agent(late)
    env.enlist([number], run=RUN, connection=2)
    assert env.record(late).life is Life.EXPECTED


def test_an_agent_that_enlists_again_since_the_answer_was_lost_gets_the_same_slaves(env: Env) -> None:
    numbers = env.enlist([None, None], connection=1).numbers
    assert numbers == [0, 1]
    assert env.enlist([None, None], connection=2).numbers == numbers
    assert list(env.state.roster.slaves) == numbers


def test_tasks_given_back_late_are_not_taken_from_a_newer_lease(env: Env) -> None:
    number = env.slave()
    env.add(1)
    env.fetched(number)
    old = env.lease_id(number)
    env.fetched(number)
    new = env.lease_id(number)
    assert new != old and env.lease_of(number) == [1]
    assert env.take_answer(env.give_back(number, old, [1])) is None
    assert env.lease_of(number) == [1]
    data = pack_failure(LookupError("no such data"))[1]
    assert isinstance(data, bytes)
    assert env.take_answer(env.setup_failed(number, 1, old, [1], data)) is None
    assert env.lease_of(number) == [1] and 1 in env.record(number).setup_failed
    assert env.take_answer(env.give_back(number, new, [1])) is None
    assert env.lease_of(number) == [] and env.state.backlog.waiting == 1


def test_a_waiting_call_of_a_slave_that_is_lost_ends_with_an_empty_lease(env: Env) -> None:
    number = env.slave()
    waiting = env.fetch(number)
    env.pass_time(10.0)
    assert env.record(number).contact is Contact.LOST
    assert env.take_granted(waiting) == []


def test_a_lost_slave_that_asks_for_tasks_is_back(env: Env) -> None:
    number = env.slave()
    env.pass_time(10.0)
    assert env.record(number).contact is Contact.LOST
    env.add()
    waiter = env.wait_for_slaves(1)
    env.nothing_left()
    assert env.fetched(number) == [1]
    assert env.record(number).connected and len(env.events(ev.SlaveBack)) == 1
    assert env.take_answer(waiter) is None, "who waits for slaves learns of it"


def test_a_lost_slave_without_a_process_is_awaited_when_its_agent_is_heard(env: Env) -> None:
    (number,) = env.enlist([None]).numbers
    env.pass_time(10.0)
    assert env.record(number).contact is Contact.LOST
    env.heartbeat(number)
    assert env.record(number).life is Life.EXPECTED and env.record(number).contact is Contact.HEARD


def test_a_fetch_that_is_read_after_its_connection_was_replaced_takes_no_lease_over(env: Env) -> None:
    number = env.slave()
    env.joined(number, connection=2)
    env.add()
    assert env.fetched(number, connection=2) == [1]
    assert env.fetched(number, connection=1) == []
    assert env.lease_id(number) and env.lease_of(number) == [1]


def test_a_call_for_tasks_that_nobody_has_ends_with_none_of_them(env: Env) -> None:
    number = env.slave()
    waiting = env.fetch(number)
    for _ in range(100):
        env.nothing_left()
        env.heartbeat(number)
        env.pass_time(IDLE_SECONDS / 100)
    assert env.take_granted(waiting) == []


def test_a_slave_that_begins_nothing_is_hung_up_on_once(env: Env) -> None:
    """Its lease may not have arrived, or it may need long before it begins: then it comes back with the lease."""
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    for _ in range(6):
        env.heartbeat(number, 1)
        env.pass_time(5.0)
    env.heartbeat(number)
    env.nothing_left()  # it may just have ended a task
    env.heartbeat(number)
    assert env.take(HangUp) == (number, PID, 1)
    env.runner_disconnected(number)
    lease = env.lease_id(number)
    env.joined(number, connection=2, lease=lease)
    env.heartbeat(number)
    env.heartbeat(number)
    env.nothing_left()
    assert env.lease_of(number) == [1]
    env.joined(number, connection=3)
    assert env.fetched(number, connection=3) == [1]


def test_a_call_that_waits_is_told_to_end_when_its_slave_is(env: Env) -> None:
    number = env.slave()
    waiting = env.fetch(number)
    env.draining(number)
    assert env.take_answer(waiting) is None
    assert len(env.events(ev.SlaveLeaving)) == 1


def test_of_two_processes_that_would_join_the_newer_one_waits_on(env: Env) -> None:
    number = env.slave()
    earlier, newer = env.join(number, PID + 1), env.join(number, PID + 2)
    assert env.take_answer(earlier) is False
    env.runner_ended(number)
    assert env.take_answer(newer) is True and env.record(number).pid == PID + 2


def test_a_former_process_is_refused_and_keeps_no_lease(env: Env) -> None:
    number = env.slave()
    env.runner_ended(number)
    env.joined(number, PID + 1)
    env.add()
    assert env.take_refusal(env.fetch(number)) == f"UnknownSlave: slave 0 with process {PID} is not known here"
    assert env.lease_of(number) == []


def test_an_agent_of_another_run_learns_that_and_changes_nothing(make_env: MakeEnv) -> None:
    env = make_env()
    reply = env.enlist([None], run="another run")
    assert reply.run == RUN and not reply.numbers and not env.state.roster.slaves


@pytest.mark.parametrize("hung_up", [True, False])
def test_a_task_whose_outcome_is_on_its_way_when_its_process_ends_is_not_blamed_and_not_run_again(
    make_env: MakeEnv, hung_up: bool
) -> None:
    """Its agent's word, over another connection, overtakes the outcome."""
    env = make_env(max_attempts=1)
    assert env.context() == 1
    number = env.slave()
    env.add(2)
    env.state.pace.learn(1, 1, 0.001)
    assert env.fetched(number) == [1, 2]
    lease = env.lease_id(number)
    env.runner_ended(number, 1, hung_up=False)
    assert env.lease_of(number) == [1, 2], "the runner's connection is not read to its end yet"
    env.post(number, 1, lease=lease)
    assert [outcome.kind for outcome in env.take_delivered(1)] == [VALUE]
    if hung_up:
        env.runner_disconnected(number)
    else:  # a process that a task forked keeps the connection open
        env.pass_time(2.0)
    assert env.lease_of(number) == [] and env.state.backlog.waiting == 1
    assert env.task(2).ends is None
    assert env.record(number).life is Life.EXPECTED


def test_a_slave_that_its_agent_gives_up_ends_after_its_last_process(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.runner_ended(number, 1, hung_up=False)
    env.slave_closed(number, "it was asked to end")
    env.nothing_left()
    env.runner_disconnected(number)
    assert env.record(number).life is Life.ENDED and len(env.task(1).ends or ()) == 1


def test_an_agent_that_leaves_is_forgotten_when_what_its_runner_posted_was_read(make_env: MakeEnv) -> None:
    """Else a task that is done would run again."""
    env = make_env(max_attempts=1)
    assert env.context() == 1
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    lease = env.lease_id(number)
    env.runner_ended(number, 1, hung_up=False)
    env.slave_closed(number, "it was asked to end")
    env.leave()
    assert env.lease_of(number) == [1]
    env.post(number, 1, lease=lease)
    assert [outcome.kind for outcome in env.take_delivered(1)] == [VALUE]
    env.runner_disconnected(number)
    assert env.record(number).life is Life.ENDED and env.record(number).end == "it was asked to end"
    assert not env.state.roster.slaves and not env.state.roster.agents


@pytest.mark.parametrize("then", ["it enlists again", "its launcher says that it has ended", "silence"])
def test_how_a_process_ended_is_not_forgotten_when_its_agent_goes_before_its_connection_is_read(
    env: Env, then: str
) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.runner_ended(number, 1, hung_up=False)
    if then == "it enlists again":
        env.enlist([number], run=RUN, connection=2)
    elif then == "its launcher says that it has ended":
        env.launcher_says_ended()
    else:
        env.agent_disconnected()
        env.pass_time(RECONNECT_SECONDS)
    assert env.lease_of(number) == [] and len(env.task(1).ends or ()) == 1


def test_a_slave_is_told_again_to_forget_a_context_if_the_answer_was_lost_with_its_connection(env: Env) -> None:
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    env.post(number, 1)
    env.take_delivered(1)
    waiting = env.fetch(number)
    env.drop_context()
    assert env.take_answer(waiting).forget == [1]
    env.joined(number, connection=2)
    again = env.fetch(number, connection=2)
    assert env.take_answer(again).forget == [1], "it asks on another connection: it may not have had the answer"
    env.context()
    env.fetch(number, connection=2)
    env.nothing_left()


def test_leases_that_do_not_arrive_again_and_again_are_told(env: Env) -> None:
    """Small messages get through, and large ones are lost; an idle slave gets the task meanwhile."""
    number = env.slave("a")
    env.add()
    for connection in range(2, 6):
        assert env.fetched(number, connection=connection - 1) == [1]
        env.joined(number, connection=connection)
    assert [told.times for told in env.events(ev.LeaseNotArrived)] == [2, 3, 4]
    assert env.fetched(number, connection=5) == [1]
    other = env.slave("b")
    waits = env.fetch(other)
    call = env.join(number, connection=6)
    assert env.take_answer(call) is True
    assert env.take_granted(waits) == [1]


def test_an_agent_that_left_while_its_runners_last_words_were_awaited_is_sent_away_when_it_comes_back(env: Env) -> None:
    number = env.slave()
    env.runner_ended(number, hung_up=False)
    env.leave()
    assert env.record(number).life is Life.READY, "its connection is not read to its end yet"
    reply = env.enlist([number], run=RUN, connection=2)
    assert reply.done and not reply.numbers
    assert not env.state.roster.agents and env.record(number).life is Life.ENDED


def test_a_process_is_blamed_though_the_next_one_joins_while_its_last_words_are_awaited(env: Env) -> None:
    """The next one waits for its agent's word, which comes late, and has waited for long enough before this has."""
    number = env.slave()
    env.add()
    assert env.fetched(number) == [1]
    next_one = env.join(number, PID + 1)
    env.pass_time(1.0)
    env.runner_ended(number, 1, hung_up=False)
    env.nothing_left()
    env.pass_time(1.0)
    assert env.take_answer(next_one) is True and env.record(number).pid == PID + 1
    assert env.lease_of(number) == [] and len(env.task(1).ends or ()) == 1

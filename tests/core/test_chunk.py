"""Inputs of a map that stand together: tasks like others, in fewer objects."""

from __future__ import annotations

import itertools
import weakref

import pytest

from parallel.core.chunk import NO_TASK, Chunk, Inputs
from parallel.core.effects import Deliver, Values
from parallel.core.moves import IllegalMove
from parallel.core.pacing import MOST_TASKS
from parallel.core.task import Move, Task
from slave.protocol import FAILURE, GIVEN_UP, TIME_LIMIT, TIMED_OUT, StopTasks
from tests.core.fake import Env


def several(env: Env, count: int) -> list[int]:
    """So many inputs; the time of one is known, so that a lease holds many."""
    env.state.pace.learn(1, 1000, 0.01)
    return env.add(count, as_inputs=True, timeout=2.0, payload=b"input")


def test_inputs_become_chunks_with_their_indices_and_none_of_what_cannot_be_pickled() -> None:
    inputs, ids = Inputs(3, 1.5, 2), itertools.count(10)
    inputs.listed = True
    inputs.payloads.extend([b"0", b"1", NO_TASK, b"3", NO_TASK])
    first, second = inputs.take(ids)
    assert not inputs.listed and not inputs.payloads
    assert (first.inputs, first.ids) == ([b"0", b"1"], range(10, 12)) and first.offset == -10
    assert (second.inputs, second.ids) == ([b"3"], range(12, 13)) and 12 + second.offset == 3
    assert (first.context, first.timeout, first.retries) == (3, 1.5, 2)
    inputs.payloads.extend([NO_TASK, b"6"])
    (third,) = inputs.take(ids)
    assert (third.inputs, third.ids) == ([b"6"], range(13, 14)) and 13 + third.offset == 6, "indices go on"
    inputs.payloads.append(NO_TASK)
    assert inputs.take(ids) == [] == inputs.take(ids)


def test_what_is_put_in_while_it_is_taken_out_is_listed_anew() -> None:
    """The user's thread looks at `listed` after it has put something in."""

    class Interrupting(Inputs):
        @property
        def listed(self) -> bool:
            return self._listed

        @listed.setter
        def listed(self, value: bool) -> None:
            self._listed = value
            if not value and hasattr(self, "taken"):
                self.payloads.append(b"late")

    inputs = Interrupting(1, None, 0)
    inputs.payloads.clear()
    assert [chunk.inputs for chunk in inputs.take(itertools.count(1))] == [[b"late"]]


def test_a_chunk_is_no_longer_than_a_lease() -> None:
    inputs = Inputs(3, None, 0)
    inputs.payloads.extend([b""] * (MOST_TASKS + 2))
    first, second = inputs.take(itertools.count(1))
    assert len(first.inputs) == MOST_TASKS and list(second.ids) == [MOST_TASKS + 1, MOST_TASKS + 2]
    assert second.id + second.offset == MOST_TASKS


@pytest.mark.parametrize("as_inputs", [True, False])
def test_what_is_given_back_waits_in_the_leases_order(env: Env, as_inputs: bool) -> None:
    number, other = env.slave(), env.slave("b")
    env.state.pace.learn(1, 1000, 0.01)
    ids = env.add(4, as_inputs=as_inputs)
    held = env.fetched(number)
    assert held == ids[: len(held)] and len(held) > 2
    env.give_back(number, env.state.leases.by_slave[number].id, [held[2], held[0], held[1]])
    env.effects.clear()
    assert env.fetched(other)[:3] == ids[:3]


def test_the_front_of_a_long_chunk_is_taken_without_a_copy_of_the_rest_which_does_not_keep_it() -> None:
    class Payload:
        def __len__(self) -> int:
            return 10

    chunk = Chunk(1, 1, [Payload() for _ in range(1000)], False, 0, None, 0)
    first = weakref.ref(chunk.inputs[0])
    inputs = chunk._inputs
    rest = chunk.split(4).split(10)
    assert rest._inputs is inputs and (rest.ids, len(rest.inputs), rest.size) == (range(10, 1001), 991, 9910)
    assert (chunk.ids, len(chunk.inputs), chunk.within(11, 4), chunk.within(1, 4)) == (range(1, 4), 3, 3, 2)
    del chunk
    assert first() is None


def test_thousands_of_inputs_are_a_few_objects(env: Env) -> None:
    number = env.slave()
    ids = several(env, 3000)
    assert env.fetched(number) == ids
    lease = env.state.leases.by_slave[number]
    assert len({id(task) for task in lease.tasks.values()}) == 1
    env.post(number, *ids[:1000])
    env.effects.clear()
    assert env.lease_of(number) == ids[1000:] and isinstance(lease.tasks[ids[1000]], Chunk)
    env.scheduler.check()


def test_values_come_together_with_their_indices(env: Env) -> None:
    number = env.slave()
    ids = several(env, 5)
    assert env.fetched(number) == ids
    values = [part for id in ids[1:3] for part in (id, b"%d" % id)]
    env.scheduler.runners.outcomes([(number, env.lease_id(number), 1, values)], env.now)
    effects, _ = env.scheduler.take(env.now)
    ((found,),) = [effect.outcomes for effect in effects if isinstance(effect, Deliver)]
    assert isinstance(found, Values)
    assert list(found.tasks) == ids[1:3] == list(found.indices) and found.data == [b"%d" % id for id in ids[1:3]]
    assert env.state.contexts[1].tally.done == 2


def test_the_input_that_ran_is_blamed_and_no_other(env: Env) -> None:
    number = env.slave()
    ids = several(env, 10)
    for attempt in range(3):
        assert env.fetched(number, pid=4711 + attempt) == (ids if not attempt else [ids[2], *ids[:2], *ids[3:]])
        env.runner_ended(number, ids[2], pid=4711 + attempt)
        if attempt < 2:
            env.joined(number, pid=4712 + attempt)
    (outcome,) = env.take_delivered(1)
    assert (outcome.task, outcome.kind, len(outcome.data), outcome.tag) == (ids[2], GIVEN_UP, 3, ids[2])
    assert outcome.payload == b"input", "by which the user is told which it was"
    env.joined(number, pid=4714)
    assert env.fetched(number, pid=4714) == [*ids[:2], *ids[3:]]


def test_the_input_that_ran_too_long_is_timed_out_and_the_others_go_on(env: Env) -> None:
    number = env.slave()
    ids = several(env, 10)
    assert env.fetched(number) == ids
    env.runner_ended(number, ids[3], cause=TIME_LIMIT)
    (outcome,) = env.take_delivered(1)
    assert (outcome.task, outcome.kind, outcome.data, outcome.tag) == (ids[3], TIMED_OUT, 2.0, ids[3])
    env.joined(number, pid=4712)
    assert env.fetched(number, pid=4712) == [*ids[:3], *ids[4:]]


def test_an_input_that_raises_is_its_own_failure(env: Env) -> None:
    number = env.slave()
    ids = several(env, 4)
    assert env.fetched(number) == ids
    env.post(number, ids[1], kind=FAILURE)
    (outcome,) = env.take_delivered(1)
    assert (outcome.task, outcome.kind, outcome.tag) == (ids[1], FAILURE, ids[1])
    assert env.lease_of(number) == [ids[0], *ids[2:]]


def test_what_stands_behind_a_long_input_goes_to_another_slave(env: Env) -> None:
    busy = env.slave()
    ids = several(env, 10)
    assert env.fetched(busy) == ids
    idle = env.slave("b")
    waits = env.fetch(idle)
    env.post(busy, ids[0])
    env.effects.clear()
    env.recalled(busy, env.lease_id(busy), ids[1])
    assert env.take_granted(waits) == ids[2:] and env.lease_of(busy) == [ids[1]]


def test_one_of_a_chunk_that_waits_can_be_taken_out_wherever_it_stands(env: Env) -> None:
    for place in range(3):
        ids = several(env, 3)
        table = env.state.table
        env.enter()
        task = table.find(1, ids[place])
        assert isinstance(task, Task) and table.find(1, ids[place]) is task and task.tag == ids[place]
        table.check()
        assert [env.state.table.drop_task(1, id) is not None for id in ids] == [True] * 3


def test_a_cancelled_map_stops_what_runs_of_it(env: Env) -> None:
    number = env.slave()
    commands = env.commands()
    ids = several(env, 5)
    assert env.fetched(number) == ids
    env.post(number, ids[0])
    env.effects.clear()
    assert env.cancel() == 4
    assert env.take_answer(commands) == (1, [StopTasks(number, 1, ids[1:])])
    assert env.state.backlog.contexts == {}


def test_a_move_that_the_table_does_not_have_changes_nothing() -> None:
    chunk = Chunk(1, 1, [b""], False, 0, None, 0)
    with pytest.raises(IllegalMove, match="LOSE of <Chunk of 1 inputs of context 1, attempt 0>, which is WAITING"):
        chunk.move(Move.LOSE)

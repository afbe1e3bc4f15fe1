"""Some hundred seeds, the same story on every Python, and plans that told a bug before."""

from __future__ import annotations

import hashlib
import itertools
import os
from typing import Any, Callable
from unittest import mock

import pytest

from tests.simulation.makespan import Mix, Site, measure
from tests.simulation.plan import (
    KILLED,
    OUT_OF_REACH,
    Act,
    AgentPlan,
    ContextPlan,
    Plan,
    TaskPlan,
    make_plan,
    make_restart,
)
from tests.simulation.planted_bugs import BUGS, find
from tests.simulation.run import Run
from tests.simulation.runner import Conversation
from tests.simulation.shrink import shrink, story

SEEDS = int(os.environ.get("PARALLEL_TEST_SEEDS", "200"))
_OF_ONE_TEST = 25

# of the first of these seeds' stories: on every Python and machine
_STORIES = range(40)


@pytest.mark.parametrize("first", range(0, SEEDS, _OF_ONE_TEST))
def test_all_is_well_with_seeds_from(first: int) -> None:
    for seed in range(first, min(SEEDS, first + _OF_ONE_TEST)):
        run = Run(make_plan(seed))
        failure = run.to_the_end()
        assert failure is None, f"seed {seed}: {failure.text}. See python3 tools/simulate.py --seed {seed}"


@pytest.mark.parametrize("first", range(0, SEEDS // 4, _OF_ONE_TEST))
def test_all_is_well_with_another_master_after_one_that_was_killed(first: int) -> None:
    """Each seed's story, and in the midst of it the script is started again: runners that have waited change hands."""
    for seed in range(first, first + _OF_ONE_TEST):
        failure = Run(make_restart(seed)).to_the_end()
        assert failure is None, f"seed {seed}: {failure.text}. See python3 tools/simulate.py --restart --seed {seed}"


def told(seed: int) -> str:
    return hashlib.sha256("\n".join(story(make_plan(seed))).encode()).hexdigest()


def test_a_seed_tells_the_same_story_each_time() -> None:
    assert [told(seed) for seed in _STORIES] == [told(seed) for seed in _STORIES]


def test_random_numbers_are_the_same_on_every_python_and_machine() -> None:
    """And so is all that is made of them: no set's order, no hash, no float's text is used."""
    text = repr([make_restart(seed) for seed in range(100)])
    assert hashlib.sha256(text.encode()).hexdigest() == PLANS


PLANS = "e6626ab34dee5bd068d226ffee9796ad437b3168fa4aeebb14b374af821a4df5"


def test_what_a_plan_leaves_out_changes_nothing_else() -> None:
    """Else a story could not be shortened: the plan without its last fault tells the same until then."""
    plan = next(plan for plan in map(make_plan, itertools.count()) if len(plan.acts) > 2 and plan.acts[-1].at > 1.0)
    shorter = plan._replace(acts=plan.acts[:-1])
    last = plan.acts[-1].at

    def until_then(some: Plan) -> list[str]:
        run = Run(some, tells=True)
        run.to_the_end()
        return [text for time, text in run.world.story or () if time < last]

    assert until_then(plan) == until_then(shorter)


@pytest.mark.parametrize(
    "words",
    [
        "an outage is an attempt",
        "one attempt too late",
        "what a slave is to forget",
        "never gives a master up",
    ],
)
def test_a_planted_bug_is_found_and_its_story_is_short(words: str) -> None:
    ((text, plant),) = [one for one in BUGS if words in one[0]]
    found = find(plant)
    assert found is not None, f"not found: {text}"
    with plant():
        plan, failure = shrink(make_plan(found.seed), found.failure, most=300)
        lines = story(plan)
    assert failure.kind == found.failure.kind and "WRONG: " in lines[-1]
    assert len(lines) < 60, lines
    assert story(plan)[-1] == "all is well", "without the bug"


def kept_by_number(self: Conversation, context: int, setup: bytes) -> Any:
    """Contexts of another run with the same number."""
    return made(self, context, f"setup {context - 1}".encode())


def never_kept(self: Conversation, context: int, setup: bytes) -> Any:
    self._kept.clear()
    return made(self, context, setup)


def any_program(self: Conversation, method: str, *arguments: Any) -> Any:
    answer = yield from ask(self, method, *arguments)
    return "a program" if method == "environment" else answer


made, ask = Conversation._made, Conversation._ask


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "said"),
    [
        (Conversation, "_made", kept_by_number, "has not returned in its process"),
        (Conversation, "_made", never_kept, "and runs it again"),
        (Conversation, "_ask", any_program, "and runs tasks of another program"),
    ],
)
def test_what_may_go_wrong_when_runners_change_hands_is_seen(owner: Any, name: str, wrong: Any, said: str) -> None:
    with mock.patch.object(owner, name, wrong):
        failures = (Run(make_restart(seed)).to_the_end() for seed in range(200))
        assert any(failure is not None and said in failure.text for failure in failures)


@pytest.mark.parametrize("count", [100, 150, 290])
def test_nobody_waits_for_the_slowest_slave_where_tasks_may_be_started_twice(count: int) -> None:
    """A second at the end is what it costs that a task cannot be cut in two."""
    mix, machines = Mix("", [1.0] * count), [(0.0, 7, 1.0), (0.0, 1, 0.25)]
    found = measure(mix, Site("", machines, speculates=True))
    assert found.ratio < 1.05, found


# -- what was found before, as plans


def told_well(plan: Plan) -> None:
    lines = story(plan)
    assert lines[-1] == "all is well", "\n".join(lines)


ONE = [AgentPlan(0.0, 1)]
TWO = [AgentPlan(0.0, 2)]
PLAIN = [ContextPlan()]


@pytest.mark.parametrize("seed", range(10))
def test_a_process_that_dies_when_it_has_posted_is_not_blamed_on_what_it_posted(seed: int) -> None:
    """Found with seeds 905 and 1691: its agent's word overtook the outcome."""
    tasks = [TaskPlan(0, 0.0, 0.5), TaskPlan(0, 0.0, 0.5)]
    act = Act(0.3, "a runner dies when it has posted")
    told_well(Plan(seed, max_attempts=1, slowness=0.02, agents=ONE, contexts=PLAIN, tasks=tasks, acts=[act]))


@pytest.mark.parametrize("seed", range(10))
def test_the_answer_that_tells_a_slave_to_forget_a_context_may_be_lost(seed: int) -> None:
    """Found with seed 120."""
    acts = [Act(1.0, "an answer to a runner is lost"), Act(1.1, "a context is dropped")]
    told_well(Plan(seed, agents=ONE, contexts=[ContextPlan("returns")], tasks=[TaskPlan(0, 0.0, 0.1)], acts=acts))


@pytest.mark.parametrize("seed", range(5))
def test_what_a_runner_posted_is_read_before_its_agents_goodbye_counts(seed: int) -> None:
    """Found with seed 5299: the agent left when its last slave had ended, and the finished task ran again."""
    acts = [Act(1.2 + 0.02 * step, "a slave is dismissed", step) for step in range(4)]
    tasks = [TaskPlan(0, 0.0, 0.003), TaskPlan(0, 1.15, 0.003), TaskPlan(0, 1.2, 0.003)]
    told_well(
        Plan(seed, slowness=0.3, agents=[AgentPlan(0.0, 1), AgentPlan(0.0, 1)], contexts=PLAIN, tasks=tasks, acts=acts)
    )


@pytest.mark.parametrize("step", range(12))
def test_an_agents_late_word_over_an_older_connection_cuts_off_nobody(step: int) -> None:
    """Found with seed 200854: the end of that connection was taken for the agent's."""
    acts = [Act(1.0, "an agent's cable is cut", 0, 0.9), Act(1.3 + 0.05 * step, "an agent's cable is cut", 13, 27.0, 2)]
    tasks = [TaskPlan(0, 0.0, 40.0)]
    told_well(Plan(step, term=30.0, slowness=0.3, agents=ONE, contexts=PLAIN, tasks=tasks, acts=acts))


def test_a_task_that_crashed_while_its_agent_was_stopped_was_not_late() -> None:
    """Found with seed 3867."""
    task = TaskPlan(0, 0.0, 0.5, "dies", 1, limit=2.0)
    act = Act(0.3, "an agent is stopped", seconds=4.0)
    told_well(Plan(1, term=30.0, agents=ONE, contexts=PLAIN, tasks=[task], acts=[act]))


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("number", range(6))
def test_a_failure_that_is_told_twice_costs_one_retry(which: int, number: int) -> None:
    """Its connection breaks when it was posted, and it is posted again."""
    task = TaskPlan(0, 0.0, 0.5, "raises", 1, retries=1)
    acts = [Act(0.6 + 0.05 * step, "a runner's cable is cut", which, 0.9, number) for step in range(4)]
    told_well(Plan(3, slowness=0.3, agents=ONE, contexts=PLAIN, tasks=[task], acts=acts))


@pytest.mark.parametrize("seed", range(5))
def test_three_outages_are_no_attempt(seed: int) -> None:
    acts = [Act(5.0 + 20.0 * number, "a machine is silent", seconds=15.0) for number in range(3)]
    told_well(Plan(seed, max_attempts=1, agents=ONE, contexts=PLAIN, tasks=[TaskPlan(0, 0.0, 12.0)], acts=acts))


@pytest.mark.parametrize("seed", range(5))
def test_a_new_runner_joins_before_its_agents_word_on_the_former_one(seed: int) -> None:
    """That word was neither told nor blamed on a busy master (2a07cd5)."""
    tasks = [TaskPlan(0, 0.0, 0.5, "dies", 1), TaskPlan(0, 0.0, 0.1)]
    acts = [Act(0.55, "the master is stopped", seconds=1.5)]
    agents = [AgentPlan(0.0, 1, output=True, kind="launched")]
    told_well(Plan(seed, max_attempts=2, agents=agents, contexts=PLAIN, tasks=tasks, acts=acts))


@pytest.mark.parametrize("seed", range(3))
def test_whoever_has_let_go_of_a_context_adds_nothing_to_it(seed: int) -> None:
    """Found with seed 97278265451: the master, stopped meanwhile, hears later that the context is dropped."""
    contexts = [ContextPlan("none", feeds=True, maps=True)]
    acts = [Act(6.0, "the master is stopped", seconds=33.0), Act(7.0, "a context is dropped")]
    tasks = [TaskPlan(0, at, 0.5) for at in (0.0, 6.5, 9.0)]
    told_well(Plan(seed, term=30.0, agents=ONE, contexts=contexts, tasks=tasks, acts=acts))


@pytest.mark.parametrize("seed", range(3))
def test_what_an_agent_said_first_may_be_read_when_it_has_come_on_another_connection(seed: int) -> None:
    """Found with seed 740607550838: it was taken for another process of that agent, and its slaves for gone."""
    acts = [Act(0.02 + 0.002 * step, "an agent's cable is cut", 13, 9.0, 3) for step in range(8)]
    agents = [AgentPlan(0.005, 1)]
    told_well(Plan(seed, agents=agents, contexts=PLAIN, tasks=[TaskPlan(0, 0.0, 12.0)], acts=acts))


@pytest.mark.parametrize("seed", range(3))
def test_an_agent_may_learn_that_it_has_lost_the_master_while_it_carries_out_a_command(seed: int) -> None:
    """Found with seed 829562452487."""
    acts = [
        Act(0.25, "an agent is stopped", seconds=12.5),
        Act(0.5, "a slave is dismissed", seconds=4.5),
        Act(0.7, "an agent is half cut", seconds=12.5),
    ]
    contexts = [ContextPlan("none", speculates=True)]
    told_well(Plan(seed, agents=ONE, contexts=contexts, tasks=[TaskPlan(0, 0.0, 12.9)], acts=acts))


@pytest.mark.parametrize("at", [1.052, 1.16, 1.4])
def test_a_slave_that_is_given_to_an_agent_that_ends_ends_with_it(at: float) -> None:
    """Found with seed 613116932092: it was started, outlived all others, and with its agent the master."""
    acts = [Act(1.053, "an agent is asked to end", seconds=0.9), Act(at, "a local slave is added")]
    agents = [AgentPlan(0.0, 1, kind="local")]
    tasks = [TaskPlan(0, 0.97, 0.5)]
    told_well(Plan(1, agents=agents, contexts=PLAIN, tasks=tasks, acts=acts, end="the master is killed"))


def test_tasks_are_added_when_the_master_is_stopped_before_there_is_a_context() -> None:
    """Found with seed 112311318676."""
    acts = [Act(0.0002, "the master is stopped", seconds=30.0)]
    told_well(Plan(1, contexts=PLAIN, tasks=[TaskPlan(0, 0.0, 0.5)], acts=acts))


def test_a_failure_may_be_on_its_way_when_a_launcher_says_that_the_slave_has_ended() -> None:
    """Found with seed 925700978846: it counts for nothing then, and the task runs again."""
    whens = {0.1774: 0.9, 0.9498: 1.2, 1.0963: 0.9, 1.1811: 33.0}
    acts = [Act(at, "a slave is dismissed", seconds=seconds, number=at > 1.1) for at, seconds in whens.items()]
    agents = [AgentPlan(0.058562327987272594, 2, "open-ended", 0.3)]
    task = TaskPlan(0, 0.0, 0.05214487569177313, "raises", 1, retries=1)
    told_well(Plan(925700978846, max_attempts=2, slowness=0.3, agents=agents, contexts=PLAIN, tasks=[task], acts=acts))


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1e9])
def test_what_ends_because_somebody_asked_is_blamed_on_nothing(seconds: float) -> None:
    """ae96553."""
    number = {0.0: 0, 0.3: 1, 1e9: 2}[seconds]
    acts = [Act(0.4, "a slave is dismissed", number=number), Act(0.6, "an agent is asked to end", number=1)]
    told_well(Plan(2, max_attempts=1, agents=TWO, contexts=PLAIN, tasks=[TaskPlan(0, 0.0, 2.0)] * 3, acts=acts))


@pytest.mark.parametrize("what", ["a machine is switched off", "a job is started again", "an agent is killed"])
def test_a_launched_slave_vanishes_while_it_works(what: str) -> None:
    agents = [AgentPlan(0.0, 2, "launched")]
    told_well(Plan(4, agents=agents, contexts=PLAIN, tasks=[TaskPlan(0, 0.0, 2.0)] * 4, acts=[Act(1.5, what)]))


@pytest.mark.parametrize("kind", ["by hand", "launched", "local"])
@pytest.mark.parametrize("end", [KILLED, OUT_OF_REACH])
def test_everybody_ends_when_the_master_ends_without_a_word(end: str, kind: str) -> None:
    agents = [AgentPlan(0.0, 2, kind), AgentPlan(0.1, 1, kind)]
    told_well(Plan(5, agents=agents, contexts=PLAIN, tasks=[TaskPlan(0, 0.0, 0.5)] * 4, end=end))


def test_who_never_met_the_master_may_look_for_it_for_ever() -> None:
    """Its machine cannot be reached from its start on."""
    acts = [Act(0.0, "a machine is silent", 0, 0.5)]
    agents = [AgentPlan(0.0, 1, "launched")]
    told_well(Plan(6, term=2.0, agents=agents, contexts=PLAIN, acts=acts, end=OUT_OF_REACH))


def late_tasks(seed: int) -> Plan:
    """With some seeds their agent is held up between its look at the clock and the end of the process."""
    tasks = [TaskPlan(0, 0.0, 0.001), *[TaskPlan(0, 0.0, 0.45, limit=0.4)] * 3, TaskPlan(0, 0.0, 0.3)]
    return Plan(seed, agents=ONE, contexts=PLAIN, tasks=tasks)


def failing_setup(seed: int) -> Plan:
    """With some seeds a slave holds several tasks of the context that it cannot set up."""
    contexts = [ContextPlan(), ContextPlan("raises here")]
    tasks = [TaskPlan(0, 0.0, 0.001), *[TaskPlan(1, 0.0, 0.001)] * 20]
    return Plan(seed, agents=TWO, contexts=contexts, tasks=tasks)


@pytest.mark.parametrize(
    "words, make, said",
    [
        ("the time limit of one task ends the next one", late_tasks, "timed out, and took no longer than it may"),
        ("gives only the first task back", failing_setup, "and it has not given back"),
    ],
)
def test_a_bug_that_few_seeds_meet_is_found_by_its_plan(words: str, make: Callable[[int], Plan], said: str) -> None:
    ((_, plant),) = [one for one in BUGS if words in one[0]]
    with plant():
        failures = [Run(make(seed)).to_the_end() for seed in range(20)]
    assert any(failure is not None and said in failure.text for failure in failures), failures
    assert [Run(make(seed)).to_the_end() for seed in range(20)] == [None] * 20

"""What agents are told of the master's surroundings."""

from __future__ import annotations

import pytest

from parallel.core.scheduler import Scheduler
from parallel.core.task import Task
from parallel.launch.slave_service import ExpectedSlave
from slave.protocol import EnlistRequest


@pytest.mark.parametrize("host, argv", [("here", ["fit.py", "--token", "secret"]), ("elsewhere", ["fit.py"])])
def test_the_command_line_stays_on_its_machine(host: str, argv: list[str]) -> None:
    environment = {"host": "here", "argv": ["fit.py", "--token", "secret"], "path": ["/home/me"]}
    scheduler = Scheduler(10.0, 3, run="a run", environment=environment, may_join=True)
    reply = scheduler.agents.enlist(EnlistRequest("agent", "", host, 1, "3.11", 1, [None], []), 1, 0.0)
    assert reply.environment == {**environment, "argv": argv} and environment["argv"][1:], "ours is as it was"


def test_variables_are_for_local_slaves_alone() -> None:
    environment = {"host": "here", "argv": ["fit.py"], "variables": {"TOKEN": "secret"}}
    scheduler = Scheduler(10.0, 3, run="a run", environment=environment, may_join=True)
    scheduler.launches.expect("local", [ExpectedSlave("LocalSlave()", has_launcher=False)], 0.0)
    scheduler.launches.expect("batch", [ExpectedSlave("Batch()")], 0.0)
    told = {}
    for agent, number in (("local", 0), ("batch", 1), ("by hand", None)):
        reply = scheduler.agents.enlist(EnlistRequest(agent, "", "here", 1, "3.11", 1, [number], []), 1, 0.0)
        told[agent] = [reply.environment, scheduler.state.environment_of(reply.numbers[0])]
    assert told["local"] == [environment] * 2
    assert told["batch"] == told["by hand"] == [{"host": "here", "argv": ["fit.py"]}] * 2
    assert "variables" not in scheduler.state.environment_of(99)


def test_what_the_first_tasks_need_is_told_where_it_may_be_imported_ahead() -> None:
    told = {}
    for preload in (True, False):
        scheduler = Scheduler(10.0, 3, run="a run", environment={"preload": preload}, may_join=True)
        first, second, _ = (scheduler.users.make_context(setup, 0.0) for setup in (b"setup", None, b"large" * 20_000))
        for task, (context, payload) in enumerate([(first, b"1"), (first, b"2"), (second, b"large" * 20_000)], 1):
            scheduler.state.incoming.append(Task(task, context, payload, None, 0))
        scheduler.state.take_in()
        scheduler.state.incoming.append(Task(4, first, b"3", None, 0))
        told[preload] = scheduler.agents.enlist(EnlistRequest("agent", "", "here", 1, "3.11", 1, [None], []), 1, 0.0)
    assert told[True].environment["first"] == [b"setup", b"1", b"3"], "one of each context, and none that is large"
    assert "first" not in told[False].environment and "first" not in scheduler.state.environment_of(0)


@pytest.mark.parametrize("run", ["another run", "a run"])
def test_an_agent_that_is_not_taken_learns_nothing(run: str) -> None:
    scheduler = Scheduler(10.0, 3, run="a run", environment={"argv": ["fit.py", "secret"]}, may_join=True)
    reply = scheduler.agents.enlist(EnlistRequest("agent", run, "here", 1, "3.11", 1, [None], []), 1, 0.0)
    assert reply.environment == {}

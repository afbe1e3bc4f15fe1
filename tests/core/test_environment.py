"""What agents are told of the master's surroundings."""

from __future__ import annotations

import pytest

from parallel.core.scheduler import Scheduler
from slave.protocol import EnlistRequest


@pytest.mark.parametrize("host, argv", [("here", ["fit.py", "--token", "secret"]), ("elsewhere", ["fit.py"])])
def test_the_command_line_stays_on_its_machine(host: str, argv: list[str]) -> None:
    environment = {"host": "here", "argv": ["fit.py", "--token", "secret"], "path": ["/home/me"]}
    scheduler = Scheduler(10.0, 3, run="a run", environment=environment, may_join=True)
    reply = scheduler.agents.enlist(EnlistRequest("agent", "", host, 1, "3.11", 1, [None], []), 0.0)
    assert reply.environment == {**environment, "argv": argv} and environment["argv"][1:], "ours is as it was"

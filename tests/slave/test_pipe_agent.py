"""The relay of a slave program that came over a pipe."""

from __future__ import annotations

from pathlib import Path

from tests.support.programs import script


def printed(frames: str) -> dict[int, str]:
    """What each slot printed, in however many frames."""
    found: dict[int, str] = {}
    while frames:
        head, _, frames = frames.partition("\n")
        slot, size = map(int, head.split())
        found[slot] = found.get(slot, "") + frames[:size]
        frames = frames[size:]
    return found


def test_output_is_relayed_over_descriptors_that_select_does_not_take(own_folder: Path) -> None:
    """As with more than a thousand slaves behind one pipe."""
    program = script(
        own_folder / "script.py",
        """
import os, resource, subprocess, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096 if hard < 0 else min(hard, 4096), hard))
taken = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]
from slave.pipe_agent import Relay
reading, writing = os.pipe()
os.dup2(reading, 0)  # the master's end of it stays open
relay = Relay()
path = relay.pipe('.', 1)
code = 'import sys; print("of the slave", file=open(sys.argv[1], "w"), flush=True); print("of the agent"); sys.exit(5)'
with subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code, path], stdout=subprocess.PIPE) as agent:
    relay.take(agent.stdout.fileno(), 0)
    assert agent.stdout.fileno() > 1024
    ended = relay.run(agent)
    relay.flush()
sys.exit(ended)
""",
    )
    assert program.ends() == 5, program.err
    assert printed(program.out) == {0: "of the agent\n", 1: "of the slave\n"}, program.out
    assert program.err == ""

"""The command line of the slave program."""

from __future__ import annotations

import json
import logging
import multiprocessing.process
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from . import limits, process_tree, streams
from .agent import Agent
from .agent_config import AgentConfig
from .errors import MasterFinished, MasterGone, OutOfResources, SlaveError, Unreachable
from .find_master import find_master
from .keys import Key, forget_variable
from .output_tail import SAYS
from .private_files import append_to
from .signals import Quit

log = logging.getLogger("slave")

_LAUNCHED = ["--launched"]  # a master started us: all else comes on stdin
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)  # -qq, -q, as a rule, -v


def main(arguments: list[str] | None = None) -> int:
    """Run the slave program; returns its exit code."""
    try:
        if (sys.argv[1:] if arguments is None else arguments) == _LAUNCHED:
            _tell(logging.INFO)
            return _serve_launched()
        return _serve_by_hand(arguments)
    except Quit as quit_:
        log.info("ended by %s", quit_)
        return 128 + quit_.signum
    except KeyboardInterrupt:
        log.info("ended by Ctrl-C")
        return 128 + signal.SIGINT
    except MasterFinished as error:
        log.info("%s", error)
        return error.exit_code
    except SlaveError as error:
        log.error("%s", error)
        return error.exit_code
    except (MemoryError, OSError, ImportError, RuntimeError, LookupError) as error:
        if not limits.no_memory(error) and not limits.no_descriptor(error):
            raise
        log.error("this slave cannot go on: %s", limits.explained(error))
        return OutOfResources.exit_code


def _tell(level: int) -> None:
    """Have our own words on stderr, and leave the root logger alone: the first to configure it is to be a task."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{SAYS}%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def _serve_by_hand(arguments: list[str] | None) -> int:
    from .by_hand import serve_by_hand  # slow to import, and of no use to a slave that was launched
    from .options import options_of

    options = options_of(arguments)
    _tell(_LEVELS[min(3, max(0, 2 + options.verbose - options.quiet))])
    return serve_by_hand(options)


def _serve_launched() -> int:
    """Read who we are from stdin, where no other user can see the key, and serve."""
    with open(0, "rb", closefd=False) as stdin:  # sys.stdin is what PYTHONIOENCODING or a sitecustomize made of it
        line = stdin.readline()
    if not line:
        raise SlaveError("no orders came on standard input: whoever has started this slave has ended, or sent none")
    told = json.loads(line)
    if "output" in told:
        _speak_there(told["output"])
    forget_variable()
    if told.get("quiet"):
        log.setLevel(logging.WARNING)  # what it says stands between the user's own lines
    addresses = [(str(host), int(port)) for host, port in told["addresses"]]
    slaves = [(number, output) for number, output in told["slots"]]
    if "authkey" in told:
        multiprocessing.process.current_process().authkey = bytes.fromhex(told["authkey"])
    config = AgentConfig(told["agent"], addresses, Key(bytes.fromhex(told["key"])), slaves)
    config = config._replace(stays=told["stays"], shielded=told["shielded"], tied=told.get("tied", False))
    config = config._replace(master=told.get("master"), encrypt=told.get("encrypt", True))
    master = told.get("master_pid", 0)  # of a local slave
    outlives = float(told.get("outlives", 0.0))  # seconds
    config = config._replace(outlives=outlives)
    try:
        agent = find_master(
            config, told["wait"], told["wait_refused"], master_lives=lambda: process_tree.exists(master)
        )
    except Unreachable as error:
        if outlives:
            return _serve_next(Agent(config), told, outlives)
        if not error.others and not master:  # a job that the queue starts when the run is over has not failed
            raise MasterFinished(f"the master has finished: nobody listens there any more ({error})") from None
        raise
    log.info("connected: %d slave%s", len(slaves), "" if len(slaves) == 1 else "s")
    try:
        log.info("%s", agent.serve())
    except MasterGone:
        if not outlives:
            raise
        return _serve_next(agent, told, outlives)
    return 0


def _speak_there(path: str) -> None:
    """Have what we say go to that file, which was not known yet when we were started."""
    try:
        with append_to(path, 0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        log.warning("what this slave program says does not go to %s: %s", path, error)


def _serve_next(agent: Agent, told: Mapping[str, Any], seconds: float) -> int:
    """The master was killed, and its slaves are to wait for the next run of its program."""
    from .next_master import serve_next  # of no use to most

    log.info("%s", serve_next(agent, str(told.get("program", "")), seconds))
    return 0


def run() -> NoReturn:
    """The entry point of the command ``parallel-slave``."""
    streams.fill_gaps()
    streams.make_steady()
    process_tree.adopt_orphans()
    sys.exit(main())

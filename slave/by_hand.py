"""A slave that somebody starts by hand: where it gets the key or a token from, and which master it serves.

Without ``--keep`` it serves one master and ends with it; with it, one after the other.  If a master was killed whose
slaves are to wait for its program (``Manager(slaves_wait=...)``), it does so with its runners as they are.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import time
from collections.abc import Sequence

from .agent import OWNER_SECONDS
from .agent_config import AgentConfig
from .certificate import need_tls
from .cpus import usable_cpus
from .dial import Address, format_address
from .errors import (
    Incompatible,
    Intercepted,
    KeyTrouble,
    MasterFinished,
    MasterGone,
    NotStartedAgain,
    ProtocolError,
    Rejected,
    Unreachable,
    WrongKey,
)
from .find_master import Errors, find_master
from .keys import VARIABLE, Key, ask_for_key, can_ask, find_key, forget_variable
from .look_around import look_around
from .machine import Owner, be_nice, use_cpus
from .token import Token, check_token, is_once, read_token

log = logging.getLogger("slave")

_AFTER_REJECTION = 10.0  # seconds before a master is looked for again that does not want this slave
_KEPT_WAIT = 3600.0  # seconds to look for a master, again and again, after the first one


def serve_by_hand(options: argparse.Namespace) -> int:
    """Serve as the command line says; returns the exit code.  Raises `SlaveError`, `Quit`."""
    asks = options.key_file is None and VARIABLE not in os.environ and can_ask()  # else nobody could say another one
    token = _token_of(find_key(key_file=options.key_file, ask=True, check=check_token))
    forget_variable()
    if not options.no_encryption:
        need_tls()
    if options.nice:
        be_nice(options.nice)
    if options.cpus:
        use_cpus(options.cpus)
    options.runners = options.runners or usable_cpus()
    owner = None if options.idle_only is None else Owner(lambda: [os.getpid()], usable_cpus() / 4)
    keep, wait = _keeps(options, token), options.wait
    served: list[str] = []  # fingerprints of masters, the one that was served last at the end
    while True:
        if owner is not None:
            _wait_until_away(owner, options.idle_only)
        try:
            if _serve_one(options, token, wait, (WrongKey,) if asks else (), served, owner):
                continue
        except (MasterFinished, MasterGone) as error:
            if not keep or isinstance(error, NotStartedAgain):
                raise
            log.warning("%s", error)
        except (Unreachable, Intercepted, WrongKey, Incompatible) as error:
            if asks and isinstance(error, WrongKey):
                token = _token_of(ask_for_key(str(error), check_token))
                keep = _keeps(options, token)
                continue
            if not keep:
                raise
            if isinstance(error, Rejected):  # at once, so that it was not looked for, and waited, for `wait` seconds
                log.warning("%s; looking for another master", error)
                time.sleep(_AFTER_REJECTION)
        except ProtocolError as error:  # of one master, which need not be the next one's
            if not keep:
                raise
            log.warning("%s; looking for another master", error)
            time.sleep(_AFTER_REJECTION)
        if not keep:
            return 0
        wait = _KEPT_WAIT


def _wait_until_away(owner: Owner, seconds: float) -> None:
    """Wait until nobody else has used this machine for so long."""
    told = False
    owner.look()
    while True:
        time.sleep(min(OWNER_SECONDS, max(0.3, seconds)))
        owner.look()
        left = seconds - owner.away_for()
        if left <= 0:
            return
        if not told:
            log.warning("somebody uses this machine (%s): waiting until nobody has for %g s", owner.sign, seconds)
            told = True


def _token_of(key: Key) -> Token:
    return read_token(key.decode("utf-8", "surrogateescape")) or Token(key)


def _keeps(options: argparse.Namespace, token: Token) -> bool:
    if options.keep and is_once(token.key.ident):
        raise KeyTrouble(
            "--keep serves one master after the other, and this token holds for one of them; python3 -m parallel key "
            "--token, on the master's machine, shows one that holds for all of the same key"
        )
    return bool(options.keep)


def _serve_one(
    options: argparse.Namespace, token: Token, wait: float, at_once: Errors, served: list[str], owner: Owner | None
) -> bool:
    """Serve one master until it is done; True if the machine's owner came back before that."""
    addresses: Sequence[Address] = options.address or token.addresses
    wanted = master = options.master or token.master or ""
    if not addresses:
        found = look_around(token.key, wait, master, served, choose=not options.keep)
        addresses, master = found.addresses, found.master
        served[:] = [*(one for one in served if one != master), master]
    config = AgentConfig(
        secrets.token_hex(16),
        addresses,
        token.key,
        [(None, None)] * options.runners,
        options.grace,
        master=master or None,
        encrypt=not options.no_encryption,
        tags=options.tag,
        max_memory=options.max_memory,
        owner=owner,
        outlives=None if options.keep and not wanted and owner is None else 0.0,
    )
    agent = find_master(config, wait, at_once=at_once)
    names = ", ".join(map(format_address, addresses))
    log.info("connected: %d slave%s for the master at %s", options.runners, "" if options.runners == 1 else "s", names)
    try:
        log.info("%s", agent.serve())
    except MasterGone as error:
        if not agent.outlives:
            raise
        from .next_master import serve_next  # of no use to most

        log.warning("%s", error)
        log.info("%s", serve_next(agent, agent.program, agent.outlives, others=True))
    return agent.stepped_back

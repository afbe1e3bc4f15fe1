"""Manager: opens the server, launches slaves, makes contexts."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Literal, TypeVar

import slave as slave_package
from slave import limits
from slave.cpus import usable_cpus
from slave.errors import KeyTrouble
from slave.plain_numbers import whole
from slave.signals import came_from_handler

from .checks import (
    check_arguments,
    check_bytes,
    check_count,
    check_forward_logging,
    check_from_0,
    check_label,
    check_lease,
    check_memory,
    check_most_tasks,
    check_output,
    check_progress,
    check_python,
    check_seconds,
    check_ship,
    check_show_output,
    check_tags,
    check_timeout,
    check_trace,
    check_wait,
    name_of,
    refuse_inside_slave,
)
from .errors import InputError, InputTypeError, LaunchError, ManagerClosed, NetworkError, NoMoreSlavesError
from .launch.ahead import Ahead
from .launch.job import INHERITED, flags_elsewhere
from .stays_here import stays_here

# What is missing here is imported in the methods: the first manager starts the agent's interpreter (launch/ahead.py),
# and then imports most of the master's modules, side by side with that.

if TYPE_CHECKING:
    import ssl

    from slave.dial import Address
    from slave.keys import Key

    from .checkpoint.store import Stores
    from .context import Context
    from .core.events import Event
    from .core.users import SlaveInfo
    from .entrance import Record
    from .launch.base import Slave, SlaveArray
    from .monitor.output import ShowOutput
    from .monitor.recorder import Source
    from .monitor.records import ForwardLogging
    from .monitor.status import Status
    from .monitor.watcher import Progress
    from .service.monitor_service import Controls
    from .service.publisher import Subscription
    from .watched import Registration

log = logging.getLogger("parallel")

_LEASE = 30.0
_LARGE = float(1 << 20)  # bytes of a setup from which on it goes once to each machine, and not to each runner
_USER = "LOGNAME", "USER", "LNAME", "USERNAME"  # where getpass.getuser looks first
_TOKEN_HERE = "this shows one on this machine: python3 -m parallel key --token"
_TOKEN_BY_CODE = "the manager's make_token() gives one"

SomeManager = TypeVar("SomeManager", bound="Manager")


class Manager:
    """Farms tasks out to slaves.

    ``python``: shell fragment that starts Python on the slaves ('nice python3'); default: this interpreter,
    and ``python3`` for `SSHSlave` and `HTCondorSlaveArray`, whose machines share nothing with this one.
    ``host``: the name by which slaves reach this machine; default: every address of it, tried by the slave.
    ``output``: pattern for the name of each launched slave's output file, given the slave's number; None: no file;
    '-': no file, and what tasks on local slaves print appears where this program's own output does.
    What is relative is so to the working folder of now; a % in the folder stands for itself.
    ``port``: given, slaves started by hand may join there (0: any free port).  Not given, and only local slaves: the
    server listens on the loopback alone.  ``authkey``: the key, bytes; default see slave/keys.py.
    ``lease``: seconds without a sign of life after which a slave's tasks go elsewhere.
    ``max_attempts``: how often a task may end its slave before it is given up.  ``result_bytes``: how many bytes of
    results, in each context, may wait to be read before the slaves pause.
    ``encrypt``: False for what comes over the network to be authenticated only, and readable.  ``tls``: a server's
    context of your own, with its certificate; default: TLS 1.3 with a certificate that is made for this manager.
    ``max_memory``: bytes that a slave's process and what it started may use, '2G' say; a task during which it grows
    beyond that is ended.
    ``ship``: slaves get the modules that this program can import and they cannot, but no installed packages; these are
    names of installed pure-Python packages that they get, too (False: they get nothing).  ``share_bytes``: a setup, or
    the function of a map, of so many bytes or more crosses the network once for all runners of a machine.
    ``preload``: False has each slave process import all for itself.  Else, on Linux, a machine imports the installed
    packages that the first tasks need once for all its slaves, where that is safe: slave/template.py.
    ``slaves_wait``: if this program is killed, the slaves of its batch jobs, and those that were started by hand with
    --keep, stay for so many seconds, and serve the next run of it: they find it where this one was (give it a
    ``port``), or on the local network.  They keep what their setups have returned, if arguments, folder, flags and
    modules are the same.  Without it those of batch jobs end within 5 s.  It implies ``port=0``.
    ``announce``: whether slaves of the same key that look for a master on the local network, by UDP, are answered.
    ``trace``: name of a file that tells what ran when and where, for viewers of Chrome traces (ui.perfetto.dev) and
    ``python3 -m parallel report``.
    ``progress``: how far a run is that takes longer than a second is told, and what became of it, on stderr: on a
    terminal in its last line, which is given back at the end; in a notebook under the cell; elsewhere by a plain line
    after a minute, two, four ... (True: after 10 s, 20 s ...).  False: not at all.  A callable is given the `status`
    instead, a few times a second at the most, in a thread of its own.
    ``page``: True: a page for a browser on this machine shows what goes on, at `page_url`, which is logged too; whoever
    knows that address can look, and nobody can change anything.
    ``show_output``: each line that tasks print is shown here, too, on stderr (in a notebook under the cell) behind the
    slave's number, as far as the network bears it: what is left out is counted, and stands in the slave's output file.
    Default: where stderr is a terminal or a notebook, the first 1,000 lines of a run; so a print is not looked for in
    vain, and many do not bury what the program itself prints.  A callable is given the slave's number and the line.
    A warning is shown once, and not once a slave.  Of slaves without an output file, those that were started by hand or
    over a pipe, it is what Python prints, and not what programs do that tasks start.
    ``forward_logging``: what tasks log goes to the loggers of this process instead, with the attributes ``slave`` and
    ``task_id``.  True: at the levels that loggers have here when the run begins; a level: of the root logger there.

    Two class attributes may be set until the run begins, also on an instance or in a derived class, in seconds:
    ``heartbeat_timeout`` is the lease, ``connect_timeout`` how long a launched slave may take to connect (7,200: queues
    are slow) before it is given up.

    Raises `InputError` (`InputTypeError`) and `NetworkError` for what cannot be, `Error` in a slave.  Use it as a
    context manager, or call `shutdown`; a manager that is garbage-collected or still open when the interpreter exits is
    shut down too.
    """

    heartbeat_timeout: float = _LEASE
    connect_timeout: float = 7200.0

    __reduce__ = stays_here

    def __init__(
        self,
        python: str | None = None,
        host: str | None = None,
        output: str | os.PathLike[str] | None = "slave%d.output",
        *,
        port: int | None = None,
        authkey: bytes | None = None,
        lease: float = _LEASE,
        max_attempts: int = 3,
        result_bytes: float = 512e6,
        encrypt: bool = True,
        tls: ssl.SSLContext | None = None,
        announce: bool = True,
        max_memory: str | float | None = None,
        ship: Sequence[str] | Literal[False] = (),
        share_bytes: float = _LARGE,
        trace: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        show_output: ShowOutput = None,
        page: bool = False,
        preload: bool = True,
        forward_logging: ForwardLogging = None,
        slaves_wait: float = 0.0,
    ) -> None:
        refuse_inside_slave()
        wait = check_wait(slaves_wait)
        if wait and port is None:
            port = 0  # the next run's slaves join as those do that are started by hand
        if lease != _LEASE:
            self.heartbeat_timeout = lease
        check_python(python)
        pattern = check_output(output)
        trace_file = None if trace is None else check_trace(trace)
        port, seconds, max_attempts = check_arguments(host, port, self.heartbeat_timeout, max_attempts)
        result_bytes = check_bytes(result_bytes, "result_bytes")
        share_bytes = check_bytes(share_bytes, "share_bytes")
        check_progress(progress)
        check_show_output(show_output)
        check_forward_logging(forward_logging)
        memory = 0 if max_memory is None else check_memory(max_memory)
        self._python, self._port, self._pid = python, port, os.getpid()
        self._root = os.path.dirname(os.path.dirname(os.path.realpath(slave_package.__file__)))
        likely_local = python is None and host is None and port is None and pattern != INHERITED
        ahead = Ahead.begin(self._root) if likely_local and f"{__package__}.assembly" not in sys.modules else None
        try:
            from .assembly import Options, assemble  # nearly all there is, which takes its time: hence `Ahead`
            from .closer import close_weakly

            self._name = _name()
            options = Options(
                python,
                host,
                pattern,
                port,
                _key(authkey, port is not None),
                seconds,
                max_attempts,
                result_bytes,
                encrypt,
                tls,
                announce,
                memory,
                check_ship(ship),
                share_bytes,
                progress,
                bool(preload),
                wait,
            )
            parts = assemble(options, weakref.ref(self), self._name, self._root, sys._getframe(1), ahead)
        except BaseException:
            if ahead is not None:
                ahead.end()
            raise
        self.program, self._source, self.dispatcher = parts.program, parts.source, parts.dispatcher
        self._endpoint, self._launcher, self._watcher = parts.endpoint, parts.launcher, parts.watcher
        self._closer = parts.closer
        self._begun = False
        self._checkpoints: Stores | None = None
        self._registration: Registration | None = None
        try:
            parts.publisher.start()
            self.dispatcher.start()
        except BaseException as error:
            self.dispatcher.stop()  # a signal's handler may have come when it ran already
            self.dispatcher.forsake()
            parts.publisher.stop(0.0)
            self._launcher.stop(0.0)
            if not isinstance(error, RuntimeError) or came_from_handler(error):
                raise
            raise NetworkError(f"cannot make a manager: {limits.explained(error)}") from None  # no thread to be had
        weakref.finalize(self, self._closer.close_elsewhere).atexit = False
        atexit.register(close_weakly, weakref.ref(self._closer))
        from .monitor.records import Recorder, levels_of

        self._forward_logging = forward_logging
        self.dispatcher.scheduler.state.levels = levels = levels_of(forward_logging)
        try:
            self._show(show_output)
            if levels is not None:
                parts.publisher.subscribe(Recorder())
        except BaseException:
            self._closer.close_elsewhere()
            raise
        self.page_url: str | None = None
        if trace_file is not None:
            self._trace(trace_file)
        if page:
            self._serve_page(parts.controls)
        if port is not None:
            try:
                self._open()
            except BaseException:  # whose traceback holds this manager for as long as somebody keeps it
                self._closer.close_elsewhere()
                raise
            log.warning("parallel: slaves may join; on another machine run: %s", self.join_command)
            log.warning("parallel: it asks there for a token; %s", _TOKEN_HERE if authkey is None else _TOKEN_BY_CODE)

    @classmethod
    def local(cls: type[SomeManager], n: int | None = None, **options: Any) -> SomeManager:
        """A manager with ``n`` local slaves (see `add_slaves`).  ``options``: as of `Manager`.  Raises as both do."""
        if n is not None:
            n = check_count(n, "n")
        manager = cls(**options)
        manager.add_slaves(n)
        return manager

    def __repr__(self) -> str:
        from slave.dial import format_address

        where = (
            f"at {format_address(self._endpoint.addresses(local=False)[0])}"
            if self._endpoint.open
            else "not listening yet"
        )
        return f"<{type(self).__name__} {where}>"

    def __enter__(self: SomeManager) -> SomeManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    # -- where it is

    @property
    def address(self) -> Address:
        """``(host, port)`` where slaves reach this manager: the first address that they are told.

        If all slaves are local and no port was given, no other machine can reach it: it is a Unix socket,
        ``("unix:...", 0)``, or the loopback.  It listens from now on.  Raises `NetworkError` if it cannot,
        `ManagerClosed`.
        """
        self._open()
        return self._endpoint.addresses(local=False)[0]

    @property
    def join_command(self) -> str:
        """The command that starts a slave by hand on another machine, where only Python need be.

        It fetches the slave program from this manager, and asks for a token or the key.  Raises `InputError` if no port
        was given.
        """
        from slave.dial import format_address

        from .launch.join import join_command
        from .launch.slave_file import slave_file_hash
        from .service.identity import SHOWN

        self._open_for_others()
        addresses = [format_address(address) for address in self._endpoint.addresses(local=False)]
        master, encrypt = self._endpoint.fingerprint(local=False)[:SHOWN], self._endpoint.identity.encrypt
        return join_command(addresses, master, encrypt, slave_file_hash(), flags_elsewhere())

    def make_token(self, *, reusable: bool = False) -> str:
        """A join token: what a slave that is started by hand asks for, in one word.

        The first slave program that uses it makes it worthless for others, unless it is ``reusable``: that one holds
        for all managers of the same key.  Whoever has it can join, and so run code here: treat it as the key.
        Raises `InputError` if no port was given.
        """
        from slave.token import Token

        from .service.identity import SHOWN

        self._open_for_others()
        secret = self._endpoint.keyring.new_token(reusable)
        if reusable:
            return Token(secret).text()
        return Token(
            secret, self._endpoint.addresses(local=False), self._endpoint.fingerprint(local=False)[:SHOWN]
        ).text()

    def _open_for_others(self) -> None:
        if self._port is None:
            raise InputError("slaves may not join this manager by hand: give it a port, Manager(port=5757)")
        self._open()

    # -- slaves

    def add_slave(self, slave: Slave | SlaveArray) -> None:
        """Add a slave or an array of them; it starts when results are first asked for, or at once if a run is on.

        Raises `InputTypeError` for what is neither, `InputError` (a ValueError) for one that was added before or that
        cannot be started, as its class says, `ManagerClosed`; if a run is on also what `begin` raises.
        """
        from slave import shared_memory

        from .launch.local import LocalSlave
        from .part_memory import PartMemory

        self._check_open()
        self._launcher.add(slave)
        if isinstance(slave, LocalSlave) and shared_memory.possible and self.program.part_memory is None:
            self.program.part_memory = PartMemory()
            self._closer.last.append(self.program.part_memory.close)
        if self._begun:
            self.tell_slaves()  # of variables, too
            self.begin()

    def add_slaves(self, n: int | None = None) -> None:
        """Add ``n`` local slaves; default: as many as the CPUs that this process may use.

        Raises `InputError` unless ``n`` is a whole number from 1 on.
        """
        from .launch.local import LocalSlave

        for _ in range(usable_cpus() if n is None else check_count(n, "n")):
            self.add_slave(LocalSlave())

    def remove_slave(self, slave: Slave | SlaveArray | SlaveInfo | int, grace: float | None = None) -> None:
        """Have a slave end: one that was added, or by its number or entry in `slaves` one that was started by hand.

        Returns at once.  The slave gets no more tasks, those that it has not started go to others, and the one that it
        runs may go on for ``grace`` seconds (None: as long as it takes) before it is stopped and goes to another slave.
        Raises `InputError` if there is no such slave, or for another ``grace`` than seconds from 0 on; `ManagerClosed`.
        """
        from .launch.base import SlaveArray

        self._check_open()
        if grace is not None:
            grace = check_seconds(grace, "grace")
        members = slave.slaves if isinstance(slave, SlaveArray) else [slave]
        for number in [number for one in members for number in self._numbers_of(one)]:
            if not self._launcher.withdraw(number):
                self.dispatcher.call(self.dispatcher.scheduler.users.dismiss, number, grace)

    def _numbers_of(self, slave: object) -> list[int]:
        from .core.users import SlaveInfo
        from .launch.base import Slave

        number = slave.number if isinstance(slave, SlaveInfo) else slave
        numbers = self._launcher.numbers_of(slave) if isinstance(slave, Slave) else [number]
        every = {info.number for info in self.slaves}
        known = [one for one in map(whole, numbers) if one in every]
        if not known:
            had = f"{min(every)} to {max(every)}" if every else "none so far"
            raise InputError(
                f"this manager has no slave {slave!r}; its slaves: {had} (manager.slaves; python3 -m parallel status)"
            )
        return known

    @property
    def slaves(self) -> list[SlaveInfo]:
        """All slaves as they are now, by their numbers: those that have ended, too.  May be asked after a shutdown."""
        infos: list[SlaveInfo] = self.dispatcher.call(self.dispatcher.scheduler.users.infos)
        return infos

    def wait_for_slaves(self, n: int, timeout: float | None = None) -> None:
        """Start the slaves and wait until ``n`` are connected.

        Raises TimeoutError after ``timeout`` seconds (None: never), `NoMoreSlavesError` if there can never be so many,
        `ManagerClosed` when the manager is shut down meanwhile, `InputError` unless ``n`` is a whole number from 0 on
        and ``timeout`` a number of seconds, and what `begin` raises.
        """
        from .core.effects import Closed, NoSlaves
        from .service.messages import how_all_ended
        from .service.ticket import Ticket

        n = check_from_0(n, "n")
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        self.begin()
        users = self.dispatcher.scheduler.users
        ticket = Ticket()
        try:
            self.dispatcher.ask(ticket, users.wait_for_slaves, n)
            came = self.dispatcher.wait_for(ticket, timeout)
        except BaseException:
            self.dispatcher.tell(users.stop_waiting_for_slaves, ticket)
            raise
        if not came:
            connected = self.dispatcher.call(users.stop_waiting_for_slaves, ticket)
            if connected >= n:
                return  # they are there, and it had not come to say so
            raise TimeoutError(f"{connected} of {n} slaves are connected after {timeout:g} s")
        verdict = ticket.result()
        if isinstance(verdict, Closed):
            raise ManagerClosed("the manager was shut down while slaves were waited for")
        if isinstance(verdict, NoSlaves):
            raise NoMoreSlavesError(f"{n} slaves cannot come: {how_all_ended(verdict)}")

    def status(self) -> Status:
        """How things are: contexts, slaves, the last events, as plain data (parallel/monitor/status.py).

        May be asked at any time, by a signal handler too, and when the manager was shut down.
        """
        from .monitor.survey import status_of

        return status_of(self.dispatcher, self._name)

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Have ``callback`` called with each event (parallel/core/events.py) from now on, in a thread of its own.

        A slow callback holds up nobody: when 100,000 events wait for it, it misses those that come then, and a `Missed`
        event tells how many.  One that raises is logged and told no more.  ``close()`` of what is returned ends it.
        Raises `InputTypeError` if it is not callable, `ManagerClosed`.
        """
        self._check_open()
        if not callable(callback):
            raise InputTypeError(f"subscribe takes a function to be called with each event, and {callback!r} is none")
        subscription = self.dispatcher.publisher.subscribe(callback)
        self.dispatcher.call(self._watch)
        return subscription

    def _trace(self, path: str) -> None:
        from .monitor.trace import Trace

        try:
            trace = Trace(path, _name())
        except BaseException:
            self._closer.close_elsewhere()
            raise
        self.dispatcher.scheduler.state.traced = True  # nobody has come yet
        self._closer.when_told(trace.close)
        self.subscribe(trace)

    def _show(self, wanted: ShowOutput) -> None:
        """Show what tasks print, if it is wanted; before a slave is started."""
        from .monitor.output import Shower, output_is_wanted

        state = self.dispatcher.scheduler.state
        if output_is_wanted(wanted):
            state.shows = True
            shower = Shower(wanted)
            self.dispatcher.publisher.subscribe(shower, when_over=shower.tell_left_out)

    def _serve_page(self, controls: Callable[[], Controls]) -> None:
        from .monitor.live_page import LivePage
        from .service.endpoint import reason_of

        dispatcher, name = self.dispatcher, self._name

        def source() -> Source:
            from .monitor.own_source import OwnSource

            return OwnSource(dispatcher, controls(), name)

        try:
            page = LivePage(source)
        except OSError as error:
            self._closer.close_elsewhere()
            if came_from_handler(error):
                raise
            raise NetworkError(f"the live page cannot be served: {reason_of(error)}") from None
        self._closer.when_told(page.close)
        page.start()
        self.page_url = page.url
        log.warning("parallel: the live page of this run, for a browser on this machine: %s", page.url)

    def _watch(self, now: float) -> None:
        self.dispatcher.scheduler.state.watched = True

    # -- contexts

    def get_context(
        self,
        setup: Callable[[], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        needs: Collection[str] = (),
        max_tasks_per_slave: int | None = None,
        label: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        code: Literal["check", "ignore"] = "check",
        durable: bool = False,
        speculate: bool = False,
    ) -> Context[Any]:
        """A context: tasks with a common ``setup``, a callable without arguments or None.

        ``timeout``: seconds that one task may run (setup not counted); then the slave's process is killed, and the
        task's outcome is a `TaskTimeout`.  ``retries``: how often a task that raised is run again, at once and
        maybe on another slave, before its exception is its outcome.  ``needs``: tags of a slave that may run its tasks
        (``slave.pyz --tag gpu``).  ``max_tasks_per_slave``: after so many of its tasks a slave's process is replaced by
        a fresh one.  ``label``: the name by which errors and whoever watches call it; default: that of ``setup``.

        ``checkpoint``: the name of a file.  Each result is written there before it is given, and a task whose result an
        earlier run has left there is not run: see the package `parallel.checkpoint`.  Results of code that has changed
        since are not used, unless ``code`` is "ignore".  ``durable``: each is on the disk, whatever then happens to the
        machine, before it is given; otherwise within a second.

        ``speculate``: when no task waits and a slave idles, the task that has run longest is started once more there,
        if it runs for so long, or on so slow a slave, that this may be done before.  The first outcome counts, be it a
        result, an exception or a `TaskTimeout`, and the process of the other copy is killed.  So tasks may run on two
        slaves at a time, and be ended anywhere: for tasks that do not mind.  In a run of equal tasks on slaves of which
        one is slow nobody waits for that one at the end.

        Raises `InputTypeError` if setup is not callable, `UnpicklableError` if it cannot be pickled, `InputError` for
        an impossible timeout, number or tag, `CheckpointError` for a file that cannot be used.
        """
        from .context import Context
        from .core.state import ContextRules

        self._check_open()
        if setup is not None and not callable(setup):
            raise InputTypeError(f"setup must be a callable without arguments, or None; {setup!r} is neither")
        retries = check_from_0(retries, "retries")
        most = check_most_tasks(max_tasks_per_slave)
        if not isinstance(speculate, bool):
            raise InputError(f"speculate={speculate!r} is neither True nor False")
        rules = ContextRules(check_tags(needs), most, 0, check_label(label), name_of(setup), speculate)
        if code not in ("check", "ignore"):
            raise InputError(f"code={code!r} is neither 'check' nor 'ignore'")
        limit = None if timeout is None else check_timeout(timeout)
        record = None if checkpoint is None else self._open_checkpoint(checkpoint, code == "ignore", durable)
        return Context(self, setup, limit, retries, rules, record)

    def _open_checkpoint(self, path: str | os.PathLike[str], any_code: bool, durable: bool) -> Record:
        from .checkpoint.recorder import Recorder, Rules  # which most programs do not need
        from .checkpoint.store import Stores

        if self._checkpoints is None:
            self._checkpoints = Stores(_user_key, self.program, lambda text: log.warning("parallel: %s", text))
            self._closer.last.append(self._checkpoints.close)
            if self.dispatcher.scheduler.state.closing:  # just now, and nobody may see them any more
                self._checkpoints.close()
        store, rules = self._checkpoints.open(path), Rules(durable, any_code)
        return lambda mailbox, setups, begin: Recorder(store, rules, mailbox, setups, begin)

    # -- begin and end

    def begin(self) -> None:
        """Open the server and start the slaves that were added; done by the first call for results.

        Raises `NetworkError` if it cannot listen, `LaunchError` if what starts slaves refuses, `InputError` for a slave
        that cannot be started or a ``heartbeat_timeout`` that cannot be, `InternalError`, `ManagerClosed`.  Not raised
        for slaves that are started and end: see `NoMoreSlavesError`.
        """
        new = not self._begun or self._launcher.has_new
        if new:
            self._open()
            check_lease(self.heartbeat_timeout)
            check_seconds(self.connect_timeout, "connect_timeout")
        else:
            self._check_open()
        self.dispatcher.check_alive()
        program = self.program
        if not program.watching or program.may_have_changed() or program.may_have_moved():
            program.watching = True
            self.tell_slaves()
        if self.heartbeat_timeout != self.dispatcher.scheduler.state.leases.term:
            term = check_lease(self.heartbeat_timeout)
            self.dispatcher.call(self.dispatcher.scheduler.set_term, term)
        self._begun = True
        if self._forward_logging:
            from .monitor.records import levels_of

            self.dispatcher.scheduler.state.levels = levels_of(self._forward_logging)
        try:
            self._watcher.begin()
            if new:
                self._launcher.start(self.connect_timeout)
        except RuntimeError as error:
            if not limits.shortage(error):
                raise
            raise LaunchError(f"slaves cannot be started: {limits.explained(error)}") from error

    def tell_slaves(self) -> None:
        """Have slaves learn what has changed in this program since they were told last, before their next task."""
        changed = self.program.look()
        if changed is not None:
            self._source.forget([name for name, number in changed["changed"].items() if number == changed["number"]])
            self.dispatcher.call(self.dispatcher.scheduler.users.set_environment, changed)

    def shutdown(self, *, wait: bool = True) -> None:
        """End slaves and jobs, and give up what is unfinished.  May be called again, and from any thread.

        ``wait``: return when that is done, and not when it has begun.
        """
        if wait:
            self._closer.close()
        else:
            self._closer.close_elsewhere()

    @property
    def closed(self) -> bool:
        """Whether it has been shut down, and its slaves have ended."""
        return self._closer.done

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise ManagerClosed(f"this manager belongs to process {self._pid}, of which this one is a fork")
        if self.dispatcher.scheduler.state.closing:
            raise ManagerClosed("the manager was shut down")

    def _open(self) -> None:
        """Listen, if that has not begun, where the slaves added so far can reach it."""
        from .watched import Registration

        self._check_open()
        lan = self._port is not None or self._launcher.leaves_this_machine
        self._endpoint.listen(lan, self.heartbeat_timeout)
        if self._registration is None:
            self._registration = Registration(self._endpoint, self._name)
            self._closer.when_told(self._registration.close)
            if self.dispatcher.scheduler.state.closing:  # just now, and nobody may see it any more
                self._registration.close()


def _key(given: bytes | None, lasts: bool) -> Key:
    """The key of a manager: ``given``, or the user's own if others are to know it, or one for this run."""
    from slave.keys import find_key, new_key

    try:
        return find_key(given, create=True) if given is not None or lasts else new_key()
    except KeyTrouble as error:
        raise InputError(str(error)) from None


def _user_key() -> bytes:
    """The key with which the user's files are sealed: the same in each run, whichever key the slaves have."""
    from slave.keys import find_key

    try:
        return find_key(create=True)
    except KeyTrouble as error:
        raise InputError(str(error)) from None


def _name() -> str:
    """What a slave that finds several masters shows of this one."""
    try:
        user = next(filter(None, map(os.environ.get, _USER)), "")
        if not user:
            import getpass  # slow to import

            user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        user = "somebody"
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return f"{program or 'a session'} of {user} on {socket.gethostname()}, process {os.getpid()}"

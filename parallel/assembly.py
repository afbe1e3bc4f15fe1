"""What a manager consists of, put together.  Nearly all of the master's modules are imported with this one."""

from __future__ import annotations

import secrets
from types import FrameType
from typing import TYPE_CHECKING, Callable, cast

from slave.keys import Key
from slave.named import NamedTuple
from slave.signals import came_from_handler

from .closer import Closer
from .core.scheduler import Scheduler
from .errors import NetworkError
from .launch.ahead import Ahead
from .launch.config import LaunchConfig
from .launch.launcher import Launcher
from .launch.slave_file import slave_file
from .launch.slave_service import SlaveService
from .monitor.watcher import Progress, Watcher
from .program import Program, hidden_main
from .service.agent_service import AgentService
from .service.dispatcher import Dispatcher
from .service.endpoint import Endpoint, reason_of
from .service.identity import Identity
from .service.keyring import Keyring
from .service.launch_service import LaunchService
from .service.module_service import ModuleService
from .service.module_source import ModuleSource
from .service.monitor_service import Controls, MonitorService
from .service.publisher import Publisher
from .service.result_queue import ResultQueue
from .service.server import Served
from .service.task_queue import TaskQueue
from .watched import controls_of

if TYPE_CHECKING:
    import ssl


class Options(NamedTuple):
    """What `Manager` was given, checked; by the same names."""

    python: str | None
    host: str | None
    output: str | None
    port: int | None
    key: Key
    lease: float
    max_attempts: int
    result_bytes: float
    encrypt: bool
    tls: ssl.SSLContext | None
    announce: bool
    max_memory: int
    ship: tuple[str, ...] | None  # None: no modules
    share_bytes: float
    progress: Progress
    preload: bool
    slaves_wait: float


class Parts(NamedTuple):
    """See the classes.  ``controls``: makes what commands on this machine may do with the manager."""

    program: Program
    source: ModuleSource
    dispatcher: Dispatcher
    publisher: Publisher
    endpoint: Endpoint
    launcher: Launcher
    watcher: Watcher
    closer: Closer
    controls: Callable[[], Controls]


def assemble(
    options: Options, manager: Callable[[], object], name: str, root: str, caller: FrameType, ahead: Ahead | None
) -> Parts:
    """The parts of a manager; none of them runs yet.

    ``manager``: gives it, or None if it is no more.  ``root``: the folder of the package ``slave``.  ``caller``: of
    `Manager`.  Raises `NetworkError`.
    """
    program = Program(hidden_main(caller), options.ship, options.preload)
    source = ModuleSource(options.ship or (), lambda: program.environment["main_path"])
    program.was_missed, program.sent_and_edited = source.was_missed, source.edited
    program.watching = options.port is not None
    config = LaunchConfig(options.python, root, options.key, options.output, lambda local: [])
    config.slaves_wait, config.program = options.slaves_wait, name
    scheduler = Scheduler(
        options.lease,
        options.max_attempts,
        run=secrets.token_hex(8),  # tells this master from the one that had the same port before
        environment=program.environment,
        may_join=options.port is not None,
        result_bytes=options.result_bytes,
        max_memory=options.max_memory,
        output_of=config.output_of,
    )
    scheduler.state.outlives = options.slaves_wait, name
    scheduler.state.local_output_shows = config.inherits
    publisher = Publisher(program.edited_files)
    try:
        dispatcher = Dispatcher(scheduler, publisher)
    except OSError as error:
        if came_from_handler(error):
            raise  # a TimeoutError of the user's alarm
        raise NetworkError(f"cannot make a manager: {reason_of(error)}") from None
    keyring = Keyring(options.key, scheduler.state.run)
    objects: list[Served] = [TaskQueue(scheduler), ResultQueue(scheduler), AgentService(scheduler, keyring)]
    objects.append(ModuleService(scheduler, None if options.ship is None else source, options.share_bytes))
    endpoint = Endpoint(
        keyring,
        options.host,
        options.port,
        objects,
        dispatcher,
        Identity(options.encrypt, options.tls),
        slave_file,
        name if options.announce else None,
    )
    controls = controls_of(manager, dispatcher, endpoint, name, options.ship is not None)
    objects.append(MonitorService(controls))
    config.addresses, config.encrypt = endpoint.addresses, options.encrypt
    config.master_of = endpoint.fingerprint
    launcher = Launcher(cast(SlaveService, LaunchService(dispatcher)), config, ahead)
    watcher = Watcher(dispatcher, options.progress, name)
    closer = Closer(dispatcher, launcher, endpoint, publisher, watcher)
    return Parts(program, source, dispatcher, publisher, endpoint, launcher, watcher, closer, controls)

"""What tasks log, given to the loggers of this process: as if they ran here, and with the slave and the task."""

from __future__ import annotations

import json
import logging
from typing import Any, Union

from slave.protocol import RECORD

from ..core.events import Event, TaskRecord

log = logging.getLogger("parallel")

ForwardLogging = Union[None, bool, int, str]

_MOST_LOGGERS = 200  # whose levels slaves are told


def levels_of(wanted: ForwardLogging) -> dict[str, int] | None:
    """The levels of loggers in slaves, by name, '' for the root; None: their records are not wanted."""
    if wanted is None or wanted is False:
        return None
    root = logging.getLogger()
    if wanted is not True:
        return {"": getattr(logging, wanted) if isinstance(wanted, str) else int(wanted)}
    levels = {"": root.getEffectiveLevel()}
    for name, logger in list(root.manager.loggerDict.items())[:_MOST_LOGGERS]:
        if isinstance(logger, logging.Logger) and logger.level and name not in ("parallel", "slave"):
            levels[name] = logger.level
    return levels


class Recorder:
    """A subscriber of the events."""

    def __call__(self, event: Event) -> None:
        """Something has happened."""
        if not isinstance(event, TaskRecord) or event.kind != RECORD:
            return
        if event.left_out:
            log.warning("%d log records of slave %d were left out: there were too many", event.left_out, event.slave)
        record = record_of(event.data, event.slave) if event.data else None
        if record is not None:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)


def record_of(data: bytes, slave: int) -> logging.LogRecord | None:
    """The record of which a slave has told; None if it makes no sense.

    Its time is that at which it came here, by this machine's clock; ``slave_created`` is the slave's.
    """
    try:
        told: dict[str, Any] = json.loads(data)
        texts = {name: str(told[name]) for name in _TEXTS}
        numbers = {name: int(told[name]) for name in ("level", "line", "process", "task")}
        created = float(told["created"])
    except (ValueError, KeyError, TypeError):
        return None
    record = logging.LogRecord(
        texts["name"], numbers["level"], texts["path"], numbers["line"], texts["message"], None, None, texts["function"]
    )
    record.levelname = texts["level_name"]
    record.exc_text, record.stack_info = texts["trace"] or None, texts["stack"] or None
    record.threadName, record.process = texts["thread"], numbers["process"]
    record.slave, record.task_id, record.slave_created = slave, numbers["task"], created
    return record


_TEXTS = "name", "level_name", "message", "path", "function", "thread", "trace", "stack"

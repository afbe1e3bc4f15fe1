"""An outcome as the user gets it: a value, or an error to raise."""

from __future__ import annotations

import pickle
from typing import Any

from slave.foreign import message_of, set_cause, traceback_of
from slave.missing import master_has, missing_module
from slave.moved import is_moved
from slave.outcome import unpack_failure
from slave.protocol import ATOMS, FAILURE, GIVEN_UP, TIMED_OUT, VALUE
from slave.shared_memory import as_sent
from slave.signals import came_from_handler

from .core.effects import Outcome
from .core.task import Label
from .errors import RemoteError, ResultError, TaskGivenUp, TaskTimeout
from .pickled import describe
from .program import Program


def rebuild(outcome: Outcome, program: Program) -> tuple[bool, Any]:
    """Whether the outcome is an error to raise, and that error or the value.

    Raises what a signal handler of the user's raises meanwhile, and KeyboardInterrupt.
    """
    kind, slave, data = outcome.kind, outcome.slave, outcome.data
    if kind == VALUE:
        if type(data) in ATOMS:
            return False, data
        try:
            buffers = outcome.buffers and [as_sent(one) for one in outcome.buffers]
            if program.main_is_hidden:
                return False, program.loads(lambda: pickle.loads(data, buffers=buffers))
            return False, pickle.loads(data, buffers=buffers)
        except BaseException as error:  # sys.exit too: that is one result's own affair, and the others come
            if came_from_handler(error):
                raise
            if is_moved(error):
                return rebuild(outcome, program)
            return True, cannot_be_rebuilt(outcome, error)
    if kind == TIMED_OUT:
        return True, _of_task(TaskTimeout("a task", slave, data), outcome)
    if kind == GIVEN_UP:
        return True, _of_task(TaskGivenUp("a task", slave, data), outcome)
    assert kind == FAILURE, f"an outcome of the unknown kind {kind}"
    failure = unpack_failure(data)
    exception = program.loads(failure.exception)
    ours = master_has(missing_module(exception))
    trace = failure.traceback + (f"{ours[0].upper()}{ours[1:]}\n" if ours else "")
    what = "a task" if outcome.tries == 1 else f"a task (tried {outcome.tries} times)"
    remote = RemoteError(what, failure.type_name, failure.message, trace, slave, exception)
    remote.unpicklable = failure.pickled is None
    return True, _of_task(remote, outcome)


def _of_task(error: RemoteError, outcome: Outcome, described: str = "") -> RemoteError:
    label = outcome.tag if type(outcome.tag) is Label else ""
    return error.of_task(outcome.task, described or describe(outcome.payload), str(label))


def cannot_be_rebuilt(outcome: Outcome, error: BaseException) -> ResultError:
    """What to raise for a value that raised ``error``, when it was to be rebuilt."""
    what = "a task's result cannot be rebuilt in this process"
    trace = traceback_of(error)
    result_error = ResultError(what, type(error).__name__, message_of(error), trace, outcome.slave, error)
    _of_task(result_error, outcome, "it ran, and is not kept")
    return result_error


def original(error: BaseException) -> BaseException:
    """What the task raised, whose cause is then the error that tells where; or that error, where there is no other."""
    if not isinstance(error, RemoteError) or error.exc is None or isinstance(error, ResultError):
        return error
    found, error.exc = error.exc, None  # no circle
    set_cause(found, error)
    return found

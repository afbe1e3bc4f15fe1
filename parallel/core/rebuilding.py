"""Whether slaves can rebuild the tasks they get, and who is to blame if one cannot: the slave, or the task.

A module is missing on a machine, or is older there; or the task's own class refuses to be rebuilt anywhere.  From one
failure nobody can tell which it is.  A task that cannot be rebuilt has not begun, so nothing is lost by asking others:

- the task goes to the others, and to that slave never again (`LeaseTable.refuse`);
- a slave that could rebuild none of the context's tasks, and failed with three, is out for the context, as with setup;
  one that could rebuild some is not: a bad task among good ones costs it nothing but the try;
- when all slaves that are there have refused a task, the error is the task's, which counts no longer against them:
  the one that was out because of it is in again;
- before that is said, or when only such are left as are out, these get another chance.
"""

from __future__ import annotations

from slave.named import NamedTuple
from slave.protocol import FAILURE, RebuildFailure

from . import events as ev
from .effects import Outcome
from .slave import Contact, SlaveRecord
from .state import ContextRecord, State
from .task import Task

_OUT_AFTER = 3  # tasks that a slave could not rebuild, and none that it could


class Refusal(NamedTuple):
    """The last of a task: the packed failure, and the slave as text."""

    data: bytes
    slave: str


class Rebuilding:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state

    def failed(self, slave: SlaveRecord, failure: RebuildFailure, type_name: str, message: str) -> None:
        """The slave cannot rebuild a task of its lease."""
        state = self._state
        context = state.contexts.get(failure.context)
        task = state.table.refuse(slave.number, failure.lease, failure.context, failure.task)
        if context is None or task is None:
            return  # it was cancelled, or has an outcome, or is another's by now
        slave.picky = True
        context.refusals[task.id] = Refusal(bytes(failure.data), str(slave))
        first = slave.number not in context.refused
        against = context.refused.setdefault(slave.number, set())
        against.add(task.id)
        out = (
            slave.number not in context.rebuilt_by and len(against) >= _OUT_AFTER and context.id not in slave.unfit_for
        )
        if out:
            slave.unfit_for.add(context.id)
        told = (context.id, task.id, type_name, message, failure.module, failure.remedy, first, out)
        state.tell(ev.TaskNotRebuilt(state.now, slave.number, str(slave), *told))
        state.picky_contexts.add(context.id)
        state.slaves_changed()

    def judge_all(self) -> None:
        """The state of slaves or of refused tasks has changed: see for which tasks no slave is left."""
        for id in list(self._state.picky_contexts):
            context = self._state.contexts.get(id)
            if context is None:
                self._state.picky_contexts.discard(id)
            else:
                self._judge(context)

    def _judge(self, context: ContextRecord) -> None:
        here = [
            slave
            for slave in self._state.roster.slaves.values()
            if slave.contact is not Contact.LOST and not slave.leaving and slave.number not in context.failures
        ]
        in_ = {slave.number for slave in here if context.id not in slave.unfit_for}
        if here and not in_:  # then those that are out get what nobody has tried, too
            for slave in here:
                self._readmit(slave, context)
            in_ = {slave.number for slave in here}
        for unfit, tasks in self._state.backlog.refused(context.id):
            if in_ - unfit or not any(slave.number in unfit for slave in here):
                continue
            others = [slave for slave in here if slave.number not in unfit]
            for slave in others:
                self._readmit(slave, context)
            for task in [] if others else tasks:
                self._settle(context, task)

    def _readmit(self, slave: SlaveRecord, context: ContextRecord) -> None:
        slave.unfit_for.discard(context.id)
        context.refused.get(slave.number, set()).clear()

    def _settle(self, context: ContextRecord, task: Task) -> None:
        """No slave is left that could rebuild it."""
        state = self._state
        state.table.settle(context.id, task.id)
        last = context.refusals.pop(task.id)
        size, tries = len(last.data), 1 + task.failures
        outcome = Outcome(task.id, FAILURE, last.slave, last.data, (), size, tries, task.payload, task.tag)
        state.deliver_failure(context.id, outcome, None)
        for number in task.unfit:
            against = context.refused.get(number, set())
            against.discard(task.id)
            slave = state.roster.slaves.get(number)
            if slave is not None and len(against) < _OUT_AFTER:
                slave.unfit_for.discard(context.id)

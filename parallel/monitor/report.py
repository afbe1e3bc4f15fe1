"""Where the time of a traced run went, as text."""

from __future__ import annotations

from .advice import advice
from .trace_reader import PARTS, Summary
from .units import show_time
from .words import copies_in_words


def text_of(run: Summary, most_slaves: int = 20) -> str:
    """The report."""
    lines = [run.program] if run.program else []
    state = "" if run.finished else " (the trace has no end: the master was killed, or still runs)"
    failed = f", {run.failed} of them failed" if run.failed else ""
    lost = f", {_counted(run.lost, 'slave')} lost" if run.lost else ""
    on = f"{show_time(run.seconds)} on {_counted(len(run.slaves), 'slave')}"
    lines.append(f"{_counted(run.tasks, 'task')}{failed} in {on}{lost}{state}")
    if run.longest[2] >= 0:
        seconds, name, slave = run.longest
        lines.append(f"the slowest task: {name}, {show_time(seconds)} on slave {slave}")
    if run.copies:
        lines.append(copies_in_words(run.copies, run.copies_first))
    if run.missing:
        lines.append(f"{run.missing} events or tasks are missing in the trace: the numbers below are too small")
    lines += ["", "where the slaves' time went:"]
    for part in PARTS:
        total = run.total(part)
        if total > 0 or part in ("work", "set-up", "sending", "waiting", "idle tail"):
            lines.append(
                f"  {part:<10} {show_time(total):>9} {run.share(part):>6.1%}  {'#' * round(40 * run.share(part))}"
            )
    lines += ["", *_slave_lines(run, most_slaves), "", "what would have helped:"]
    lines += [f"  - {text}" for text in advice(run)] or ["  - nothing stands out"]
    return "\n".join(lines) + "\n"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _slave_lines(run: Summary, most: int) -> list[str]:
    shown = ("work", "set-up", "sending", "waiting", "idle tail")
    lines = ["slave by slave, in % of its time:", "  " + " ".join(f"{part:>9}" for part in shown)]
    order = sorted(run.slaves.items(), key=lambda item: item[1].parts["work"])
    for number, slave in sorted(order[:most]):
        shares = (slave.parts[part] / run.seconds if run.seconds else 0.0 for part in shown)
        lines.append("  " + " ".join(f"{share:>9.1%}" for share in shares) + f"  {slave.name or f'slave {number}'}")
    if len(order) > most:
        lines.append(f"  ({len(order) - most} more, which worked for longer than these)")
    return lines

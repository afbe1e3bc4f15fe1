"""Which tests are not to run beside each other, where several processes run the tests (pytest-xdist)."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

# by words in the names of tests; there is one of each engine
_ENGINES = {
    "sge": ("sge", "qstat", "qsub"),
    "slurm": ("slurm", "squeue", "sbatch"),
    "htcondor": ("condor",),
}
_HEAVY = ("test_strangers.py", "test_mutated_frames", "over_2_gib")  # they flood a master, or take gigabytes


def group_of(test: str) -> str:
    """The group of a test, by its node id; of most tests its own."""
    file, _, _ = test.partition("::")
    if "tests/engines/" in file:
        return next((engine for engine, words in _ENGINES.items() if any(word in test for word in words)), "ssh")
    return "heavy" if any(word in test for word in _HEAVY) else test


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # it has no type hints
    """Hands out groups, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """A process has ended: its test is not tried again (pytest-xdist would, and the next process ended, too)."""
        crashed: str | None = super().remove_node(node)
        for group in [group for group, tests in self.workqueue.items() if crashed in tests]:
            self.workqueue[group][crashed] = True
            if all(self.workqueue[group].values()):
                del self.workqueue[group]
        return crashed

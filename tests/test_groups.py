"""Tests that cannot run beside each other are of one group."""

from __future__ import annotations

import pytest

pytest.importorskip("xdist")

from tests.support.groups import group_of


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/engines/test_batch.py::test_a_job[sge-killed]", "sge"),
        ("tests/engines/test_sge_hosts.py::test_an_array", "sge"),
        ("tests/engines/test_queue_words.py::test_a_file_that_filters_qstat[-s r]", "sge"),
        ("tests/engines/test_queue_words.py::test_sbatch_that_waits_for_the_end", "slurm"),
        ("tests/engines/test_ssh.py::test_no_ssh", "ssh"),
        ("tests/whole/test_values.py::test_result_over_2_gib", "heavy"),
        ("tests/core/test_tags.py::test_one", "tests/core/test_tags.py::test_one"),
    ],
)
def test_groups(test: str, group: str) -> None:
    assert group_of(test) == group

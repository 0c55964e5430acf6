"""Who srun saw end first, and by what: the others are ended because of it."""

from __future__ import annotations

import signal

import pytest

from megdet.launchers.slurm.job_log import first_to_end


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        ("srun: error: node1: task 1: Killed", (1, 128 + signal.SIGKILL)),
        ("srun: error: node1: task 3: Segmentation fault (core dumped)", (3, 128 + signal.SIGSEGV)),
        ("srun: error: node1: task 0: Terminated", (0, 128 + signal.SIGTERM)),
        ("srun: error: node1: task 0: Exited with exit code 3", (0, 3)),
        ("srun: error: node1: tasks 0-1: Exited with exit code 1", (0, 1)),
        ("srun: error: node1: task 2: Out Of Memory", (2, None)),
        ("srun: Job step aborted: Waiting up to 12 seconds for job step to finish.", (None, None)),
    ],
)
def test_the_first_rank_to_end_is_known_with_what_ended_it(said: str, ended: tuple[int | None, int | None]) -> None:
    later = "srun: error: node2: task 7: Terminated"
    assert first_to_end(["loading", said, *([later] if ended[0] is not None else [])]) == ended

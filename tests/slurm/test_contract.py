"""The contract of all launchers (`tests/launchers/test_contract.py`), kept by a real Slurm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launchers.test_contract import *  # noqa: F403
from tests.launchers.test_contract import Place, ready
from tests.slurm.cluster import SlurmCluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture
def place(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A login node of the cluster."""
    environment = {**slurm.environment, "CUDA_VISIBLE_DEVICES": "", "PATH": os.environ["PATH"]}
    yield from ready(Place("slurm", tmp_path, environment, timeout_s=120), monkeypatch)
    slurm.call("scancel", "--user=root")

"""A real Slurm for the tests of this folder, where its packages are installed; elsewhere they skip and say how."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import NoSlurm, SlurmCluster


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: starts a real Slurm on this host; skipped where it is not installed")


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """The paper's cluster, 16 nodes of 8 GPUs, without accounting: sacct fails."""
    yield from _cluster(nodes=16, accounting=False)


@pytest.fixture(scope="session")
def slurm_accounting() -> Iterator[SlurmCluster]:
    """4 nodes of 8 GPUs with accounting: sacct knows every job."""
    yield from _cluster(nodes=4, accounting=True)


def _cluster(*, nodes: int, accounting: bool) -> Iterator[SlurmCluster]:
    # Not pytest's own temporary folder: its path may be too long for sockets.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        cluster = SlurmCluster(Path(folder) / "cluster")
        Path(folder).chmod(0o755)
        try:
            cluster.up(nodes=nodes, accounting=accounting)
        except NoSlurm as error:
            pytest.skip(str(error))
        try:
            yield cluster
        finally:
            cluster.down()

"""MLflow's database at first use: whoever makes it may die, and many may want it at once."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.runs.folder import RunFolder
from megdet.tracking.client import prepare
from megdet.tracking.mirror import mirror
from megdet.tracking.uri import default_uri
from tests.runs.fabricate import fabricate_run

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, when it loads

PREPARE = "import sys; from megdet.tracking.client import prepare; sys.exit(not prepare(sys.argv[1], 'megdet'))"


def preparing(uri: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PREPARE, uri], stderr=subprocess.DEVNULL)


def test_a_database_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the last moment before it is in its place, its maker leaves nothing that the next one stumbles over."""
    (tmp_path / ".mlflow.db.making-1").write_bytes(b"half of a database")
    (tmp_path / ".mlflow.db.making-1-journal").write_bytes(b"its journal")
    real = Path.replace

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(default_uri(tmp_path), "megdet")
    assert not (tmp_path / "mlflow.db").exists()
    monkeypatch.setattr(Path, "replace", real)
    assert prepare(default_uri(tmp_path), "megdet")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_kills_while_the_database_is_made_cost_nothing(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    for after_s in (1.0, 2.0, 2.5, 3.0, 3.5, 4.0):
        maker = preparing(uri)
        time.sleep(after_s)
        os.kill(maker.pid, signal.SIGKILL)
        maker.wait()
    assert preparing(uri).wait(timeout=120) == 0


@pytest.mark.slow
def test_sixteen_first_users_at_once_all_have_it(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    makers = [preparing(uri) for _ in range(16)]
    assert [maker.wait(timeout=200) for maker in makers] == [0] * 16
    assert [found.name for found in MlflowClient(tracking_uri=uri).search_experiments()] == ["megdet", "Default"]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""], ids=["garbage", "half_made"])
def test_a_damaged_database_is_named_with_the_way_out(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(fabricate_run(tmp_path / "runs", {}))
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    if not content:  # as a maker leaves it that was killed between two tables
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with caplog.at_level(logging.WARNING):
        assert not mirror(run, default_uri(tmp_path), "megdet")
    assert f"{path} is damaged, or was never made whole: move it away and `megdet sync`" in caplog.text
    path.rename(tmp_path / "away.db")
    sync = [sys.executable, "-m", "megdet.cli", "sync", str(run.path.parent), "--uri", default_uri(tmp_path)]
    subprocess.run(sync, check=True, capture_output=True, timeout=60)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT COUNT(*) FROM tags WHERE value = ?", [run.name]).fetchone() == (1,)

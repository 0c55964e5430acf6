"""docs/programs.md beside what the commands print: the keys are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from megdet import cli
from megdet.launchers.slurm import client
from megdet.launchers.slurm.discovery import Cluster, NodeShape
from megdet.launchers.slurm.limits import Limits
from tests.cli.test_advise import measured_run
from tests.data.own_set import write_own_set
from tests.docs.pages import ROOT
from tests.runs.fabricate import fabricate_run
from tests.test_launch import launch

PAGE = (ROOT / "docs" / "programs.md").read_text()


def documented(heading: str) -> set[str]:
    """The keys in the first column of a section's table."""
    [section] = [part for part in PAGE.split("\n## ") if part.startswith(f"`{heading}")]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    cli.main(list(words))
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found.pop("format") == 1
    return found


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_run(
        tmp_path / "runs", {"batch": 32, "bn_size": 32}, status="failed", epochs=2, reason="CUDA out of memory"
    )
    return tmp_path / "runs"


def test_status_why_and_du(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys, "status", str(runs), "--json")["runs"]
    assert [set(row) for row in rows] == [documented("megdet status")] * 2
    assert {row["status"]: row["mmAP"] for row in rows} == pytest.approx({"finished": 37.0, "failed": 2 * 37 / 11})
    [group] = printed(capsys, "why", str(runs), "--json")["groups"]
    assert set(group) == documented("megdet why")
    assert group["cause"] == "CUDA out of memory" and "sweep.on_existing=retry_failed" in group["advice"]
    sizes = printed(capsys, "du", str(runs), "--json")
    assert set(sizes) == documented("megdet du") and sizes["runs"][0]["rest"] > 1000


def test_advise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured_run(tmp_path / "runs", [64.0] * 11)
    found = printed(capsys, "advise", str(run), "--json")
    assert set(found) == documented("megdet advise")


def test_data_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_set(tmp_path)
    overrides = [
        "data=custom", "data.train.annotations=labels/learn.json", "data.train.images=pictures",
        "data.val.annotations=labels/check.json", "data.val.images=elsewhere",
    ]  # fmt: skip
    found = printed(capsys, "data", "check", *overrides, "--json")
    assert set(found) == documented("megdet data check") and found["classes"] == ["pen", "cup"]
    assert found["splits"]["training"]["images"] == 8 and found["splits"]["validation"]["unusable"] == {}


def test_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shape = NodeShape("gpu", True, 4, 8, "a100", 64, 512.0, (), None)
    monkeypatch.setattr("megdet.launchers.slurm.discovery.discover", lambda call: Cluster((shape,), 1001, None, None))
    monkeypatch.setattr(client.SlurmClient, "__init__", lambda self: None)
    monkeypatch.setattr("megdet.launchers.slurm.limits.read_limits", lambda call: Limits())
    found = printed(capsys, "cluster", "--json")
    assert set(found) == documented("megdet cluster") and found["shapes"][0]["gpus_per_node"] == 8


def test_a_plan_and_its_run_have_one_plan_sha256(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("-m", "batch=16,7", "bn_size=16", "cluster=paper", "tracking.enabled=false")
    done = launch(tmp_path, *words, "sweep.dry_run=json")
    first, second = json.loads(done.stdout)["points"]
    assert set(first) == set(second) == documented("sweep.dry_run=json")
    assert (first["status"], second["status"], second["plan"]) == ("new", "invalid", None)
    assert not (tmp_path / "runs").exists()
    folder = tmp_path / "elsewhere" / first["run"]
    folder.mkdir(parents=True)
    plan = {**first["plan"], "commit": "another", "notes": ["another"]}
    (folder / "plan.json").write_text(json.dumps(plan))
    [row] = printed(capsys, "status", str(folder), "--json")["runs"]
    assert row["plan_sha256"] == first["plan_sha256"] and len(row["plan_sha256"]) == 12

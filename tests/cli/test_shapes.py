"""`megdet shapes`: layouts by their end, with Slurm's starts, and plain words for what is not known."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from megdet import cli
from tests.launchers.conftest import Command, command  # noqa: F401
from tests.launchers.slurm.test_discovery import SINFO
from tests.launchers.slurm.test_limits import SCONTROL

ON_SLURM = ["batch=16", "bn_size=4", "hydra/launcher=submitit_slurm", "cluster.partition=gpu", "cluster.time_min=1440"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SBATCH_QOS", "SBATCH_ACCOUNT", "SBATCH_PARTITION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def slurm(command: Command) -> None:  # noqa: F811
    """One node is free at once, two are free in four weeks."""
    command("sinfo", SINFO)
    command("scontrol", SCONTROL)
    command("sacctmgr", "exit 1")
    late = "grep -q -- '--nodes=1$' script && day=2026-11-28 || day=2026-12-26"
    command("sbatch", f'cat > script; echo $@ >> asked; {late}; echo "sbatch: Job 7 to start at ${{day}}T08:00:00" >&2')


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["shapes", *words, "--json"]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


@pytest.mark.usefixtures("slurm")
def test_the_layout_that_ends_first_comes_first_though_others_are_faster(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    layouts = answer(capsys, *ON_SLURM)["layouts"]
    ends = [datetime.fromisoformat(one["end"]) for one in layouts]
    assert ends == sorted(ends)
    first, fastest = layouts[0], min(layouts, key=lambda one: float(one["hours_left"]))
    assert first["layout"]["nodes"] == 1 and fastest["layout"]["nodes"] > 1
    assert first["hours_left"] > fastest["hours_left"]
    # Slurm is asked once for equal needs.
    needs = {(one["layout"]["nodes"], one["layout"]["gpus_per_node"]) for one in layouts}
    assert len(needs) <= len((tmp_path / "asked").read_text().splitlines()) < len(layouts)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("slurm")
def test_slurms_word_on_a_start_that_it_does_not_know_is_passed_on(
    capsys: pytest.CaptureFixture[str],
    command: Command,  # noqa: F811
) -> None:
    command("sbatch", "cat > script; echo 'sbatch: error: Requested nodes are busy' >&2; exit 1")
    layouts = answer(capsys, *ON_SLURM)["layouts"]
    assert {one["start"] for one in layouts} == {None}
    assert all(
        "no start: allocation failure" in one["why_unknown"][0] or "busy" in one["why_unknown"][0] for one in layouts
    )
    hours = [one["hours_left"] for one in layouts]
    assert hours == sorted(hours)


def test_without_slurm_the_papers_cluster_is_planned_for_and_no_start_is_made_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = answer(capsys, "batch=64", "bn_size=16", "cluster=paper")
    layouts = found["layouts"]
    assert [one["layout"]["gpus"] for one in layouts if one["is_chosen"]] == [32]
    assert {one["start"] for one in layouts} == {None} and "this machine has no GPUs" in layouts[0]["why_unknown"][0]
    # Table 3: 8 GPUs would take 268 GPU-hours, 32 take 371.
    assert {one["predicted_from"] for one in layouts} == {"Table 3"}


def test_the_table_says_what_was_not_predicted_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    own = ["model.backbone.name=mine", "model.backbone.custom={_target_: torch.nn.Identity}"]
    assert cli.main(["shapes", "experiment=tiny", "batch=8", "bn_size=4", *own]) == 0
    said = capsys.readouterr().out
    assert "no hours: no run of this model, data and precision is finished on such hardware" in said
    assert "no memory: it is not known for parts of this model" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch=16", "bn_size=24", "cluster=paper"], "BN batch cannot exceed the batch"),
        (["batch=16,32"], "one value is needed"),
        (["sweep=table3"], "name one experiment"),
    ],
)
def test_what_is_no_experiment_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shapes", *words]) == 2
    assert said in capsys.readouterr().err

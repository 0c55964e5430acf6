"""`megdet publish`: records that anybody can make the same tables of, and nothing that is nobody's business."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from megdet.analysis import make_tables
from megdet.cli import main
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from tests.runs.fabricate import fabricate_run

PRIVATE = {
    "cluster.account": "my-account",
    "cluster.partition": "my-partition",
    "cluster.mail_user": "me@my-site",
    "cluster.setup": ["source /home/me/env"],
    "cluster.sbatch_options": {"reservation": "my-reservation"},
    "tracking.uri": "http://me:my-password@my-server:5000",
    "data.root": "/home/me/coco",
    "data.train.annotations": "/home/me/train.json",
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed in (0, 1):
        trained = fabricate_run(folder, {"batch": 16, "seed": seed, **PRIVATE}, mmAP=36.0 + seed)
        (trained / "checkpoint.pt").write_bytes(b"weights")
        (trained / "log-rank0.txt").write_text("/home/me\n")
    fabricate_run(folder, {"batch": 64, "bn_size": 0, **PRIVATE}, status="diverged", epochs=1, reason="loss is NaN")
    return folder


def tables(source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    make_tables.main(["--from", str(source), "--provenance"])
    return capsys.readouterr().out


def test_tables_of_published_runs_are_those_of_the_runs_to_the_last_hash(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(runs), "--out", str(tmp_path / "evidence")]) == 0
    assert "3 runs" in capsys.readouterr().out
    assert tables(tmp_path / "evidence", capsys) == tables(runs, capsys)


def test_what_is_published_has_no_weights_and_no_word_of_the_place(runs: Path, tmp_path: Path) -> None:
    main(["publish", str(runs), "--out", str(tmp_path / "evidence")])
    files = [path for path in (tmp_path / "evidence").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"plan.json", "metrics.jsonl", "state.json"}
    text = "".join(path.read_text() for path in files)
    assert "36.0" in text
    for word in ("my-", "/home", str(tmp_path)):
        assert word not in text


def test_a_published_plan_is_still_what_its_config_gives(runs: Path, tmp_path: Path) -> None:
    main(["publish", str(runs), "--out", str(tmp_path / "evidence")])
    for folder in (tmp_path / "evidence").iterdir():
        plan, published = (
            Plan.from_json((place / folder.name / "plan.json").read_text()) for place in (runs, folder.parent)
        )
        assert (published.run_id, published.layout, published.schedule) == (plan.run_id, plan.layout, plan.schedule)
        assert published.config.data.root == "coco" and published.config.data.train.annotations == "train.json"


def test_runs_without_a_result_are_left_out_by_name_and_alone_they_are_a_mistake(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_run = fabricate_run(runs, {"batch": 32, "bn_size": 32}, status="interrupted", epochs=2)
    assert main(["publish", str(runs), "--out", str(tmp_path / "evidence")]) == 0
    assert f"left out: {open_run.name} has no result (interrupted)" in capsys.readouterr().err
    assert not (tmp_path / "evidence" / open_run.name).exists()
    assert main(["publish", str(open_run), "--out", str(tmp_path / "other")]) == 2
    assert "finished or diverged" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_run_with_a_damaged_plan_is_left_out_and_the_others_are_published(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, *others = sorted(path.parent for path in runs.glob("*/plan.json"))
    (damaged / "plan.json").write_text("{")
    assert main(["publish", str(runs), "--out", str(tmp_path / "evidence")]) == 0
    said = capsys.readouterr().err
    assert "left out: " in said and str(damaged / "plan.json") in said
    assert sorted(path.name for path in (tmp_path / "evidence").iterdir()) == [run.name for run in others]


def test_publishing_again_replaces_the_records_and_keeps_those_of_other_runs(runs: Path, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    main(["publish", str(runs), "--out", str(evidence)])
    first, *others = sorted(runs.iterdir())
    for other in others:
        shutil.rmtree(other)
    RunFolder(first).write_study("bn_study.json", {"groups": [1, 4]})
    main(["publish", str(runs), "--out", str(evidence)])
    assert (evidence / first.name / "bn_study.json").exists()
    assert len(list(evidence.iterdir())) == 3


def test_publishing_onto_the_runs_themselves_is_refused_and_loses_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert main(["publish", str(runs), "--out", str(runs)]) == 2
    assert "publish to another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_written_is_one_message(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["publish", str(runs), "--out", str(tmp_path / "taken")]) == 2
    assert f"--out {tmp_path / 'taken'}: cannot be written" in capsys.readouterr().err

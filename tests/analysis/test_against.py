from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.analysis import make_tables
from megdet.runs.folder import RunFolder
from megdet.runs.sweep_folder import record_sweep
from megdet.tracking.mirror import mirror
from tests.analysis.test_tables import LONG
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def move_to_experiment(folder: Path, experiment: str) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["config"]["tracking"]["experiment"] = experiment
    (folder / "plan.json").write_text(json.dumps(plan))


def blocks(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[dict[str, str]]]:
    assert make_tables.main(["--format", "csv", *arguments]) == 0
    return [list(csv.DictReader(io.StringIO(block))) for block in capsys.readouterr().out.split("\n\n")]


def test_a_second_folder_is_further_columns_of_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "first", {"batch": 16}, mmAP=37.0)
    fabricate_run(tmp_path / "first", {"batch": 32, "bn_size": 32}, mmAP=37.5)
    fabricate_run(tmp_path / "low", {"batch": 16, "precision": "bf16"}, mmAP=36.66, hours=5.0)
    fabricate_run(tmp_path / "low", {"batch": 48, "bn_size": 16, "precision": "bf16"}, mmAP=30.0)
    (rows,) = blocks(capsys, "--from", str(tmp_path / "first"), "--against", str(tmp_path / "low"), "--table", "3")
    by_name = {(row["Batch size"], row["BN size"]): row for row in rows}
    both = by_name["16", "16"]
    assert (both["mmAP"], both["mmAP (low)"], both["difference (low)"]) == ("37.0", "36.7", "+0.3")
    assert (both["Time (h)"], both["Time (h) (low)"], both["mmAP (paper)"]) == ("10.0", "5.0", "37.0")
    assert by_name["32", "32"]["mmAP (low)"] == ""
    assert (by_name["48 †", "16"]["mmAP"], by_name["48 †", "16"]["mmAP (low)"]) == ("", "30.0")
    assert "against low: precision bf16 (not fp32)" in both["runs"]
    assert list(both)[2:-1] == [
        "Batch size", "BN size", "mmAP", "mmAP (low)", "difference (low)", "Time (h)", "Time (h) (low)", "mmAP (paper)"
    ]  # fmt: skip


def test_what_was_published_is_not_repeated_for_the_second_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "first", {"batch": 16}, mmAP=37.0)
    fabricate_run(tmp_path / "low", {"batch": 16, "precision": "bf16"}, mmAP=36.5)
    (rows,) = blocks(capsys, "--from", str(tmp_path / "first"), "--against", str(tmp_path / "low"), "--table", "4")
    shown = {row["name"]: (row["mmAP"], row["mmAP (low)"]) for row in rows}
    assert shown["MegDet (Ensemble)"] == ("52.5", "")
    assert shown["16, BN 16 †"] == ("37.0", "36.5")


def test_against_an_experiment_takes_its_runs_out_of_the_first_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=37.0)
    move_to_experiment(fabricate_run(tmp_path, {"batch": 16, "seed": 1}, mmAP=35.0), "other")
    (rows,) = blocks(capsys, "--from", str(tmp_path), "--against", "other", "--table", "3")
    (row,) = [row for row in rows if (row["Batch size"], row["BN size"]) == ("16", "16")]
    assert (row["mmAP"], row["mmAP (other)"], row["difference (other)"]) == ("37.0", "35.0", "+2.0")
    assert "against other: the same settings" in row["runs"]


@pytest.mark.parametrize("tag", ["precision=bf16", "commit=bbbb", "sweep=again", "seed=1"])
def test_against_a_setting_a_commit_or_a_sweep_takes_the_runs_that_have_it_out_of_the_first_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str
) -> None:
    first = fabricate_run(tmp_path, {"batch": 16}, mmAP=37.0, commit="a" * 40)
    second = fabricate_run(tmp_path, {"batch": 16, "precision": "bf16", "seed": 1}, mmAP=35.0, commit="b" * 40)
    for name, folder in (("once", first), ("again", second)):
        record_sweep(tmp_path, name=name, command="", run_ids=[folder.name], uri=None, experiment="megdet", settings={})
    (rows,) = blocks(capsys, "--from", str(tmp_path), "--against", tag, "--table", "3")
    (row,) = [row for row in rows if (row["Batch size"], row["BN size"]) == ("16", "16")]
    assert (row["mmAP"], row[f"mmAP ({tag})"], row[f"difference ({tag})"]) == ("37.0", "35.0", "+2.0")
    assert "precision bf16 (not fp32)" in row["runs"] and "commit bbbbbbbbbb (not commit aaaaaaaaaa)" in row["runs"]


def test_a_tag_that_somebody_set_in_mlflow_names_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = new_database(tmp_path)
    for seed, mmAP in enumerate((37.0, 35.0)):
        assert mirror(
            RunFolder(fabricate_run(tmp_path / "runs", {"batch": 16, "seed": seed}, mmAP=mmAP)), uri, "megdet"
        )
    client = MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("megdet").experiment_id], "params.seed = '1'")
    client.set_tag(found.info.run_id, "paper", "v2")
    (rows,) = blocks(capsys, "--from", uri, "--against", "paper=v2", "--table", "3")
    (row,) = [row for row in rows if (row["Batch size"], row["BN size"]) == ("16", "16")]
    assert (row["mmAP"], row["mmAP (paper=v2)"]) == ("37.0", "35.0")


def test_the_second_set_is_that_which_differs_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path / "first", {"batch": 16}, mmAP=37.0)
    others = {"lr.base": 0.01, "precision": "bf16"}, {"lr.base": 0.01}, {"data.name": "x", "data.min_size": 600}
    for place, asked in enumerate(others):
        fabricate_run(tmp_path / "low", {"batch": 16, "seed": place, **asked}, mmAP=30.0 + place)
    (rows,) = blocks(capsys, "--from", str(tmp_path / "first"), "--against", str(tmp_path / "low"), "--table", "4")
    assert [row["mmAP (low)"] for row in rows if row["mmAP"] == "37.0"] == ["31.0"]


def test_what_of_the_second_set_stands_beside_nothing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "first", {"batch": 16}, mmAP=37.0)
    fabricate_run(tmp_path / "low", {"batch": 16}, mmAP=36.0)
    for seed in range(2):
        fabricate_run(tmp_path / "low", {"batch": 16, "bn_size": 0, "precision": "bf16", "seed": seed}, mmAP=35.0)
    arguments = ["--from", str(tmp_path / "first"), "--against", str(tmp_path / "low"), "--table"]
    left = (
        "not shown: 2 of low (data coco2017, model r50_fpn, precision bf16, normal schedule 11 epochs (drops at 8, 10))"
    )
    (rows,) = blocks(capsys, *arguments, "4")
    assert rows[0]["runs"].endswith(f"; {left}") and "against low: the same settings; " in rows[0]["runs"]
    (rows,) = blocks(capsys, *arguments, "2")  # the first set has no run in it
    assert rows[0]["runs"] == f"no run yet; {left}"


def test_the_place_of_a_claim_is_not_repeated_for_the_second_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed})
    (rows,) = blocks(capsys, "--from", str(tmp_path), "--against", "seed=1", "--table", "claims")
    assert list(rows[0]) == ["table", "runs", "Claim", "Where", "Verdict", "Verdict (seed=1)", "note"]
    assert make_tables.main(["--from", str(tmp_path), "--table", "claims", "--all"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    assert notes and not any(", 4.1, Table 2:" in note for note in notes)


def test_schedules_are_compared_where_both_sets_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path / "first", {"batch": 16})
    fabricate_run(tmp_path / "first", {"batch": 16, **LONG})
    fabricate_run(tmp_path / "second", {"batch": 16})
    arguments = ["--from", str(tmp_path / "first"), "--against", str(tmp_path / "second"), "--table", "4"]
    (rows,) = blocks(capsys, *arguments)
    assert rows[0]["runs"].endswith("; against second: the same settings")
    fabricate_run(tmp_path / "second", {"batch": 16, **LONG, "schedule.warmup_epochs": 0.0})
    (rows,) = blocks(capsys, *arguments)
    assert "warmup_epochs 0 (not epochs 18" in rows[0]["runs"]


def swept(folder: Path, runs: list[Path], name: str) -> None:
    ids = [run.name for run in runs]
    record_sweep(folder, name=name, command="", run_ids=ids, uri=None, experiment="megdet", settings={})


def test_a_sweep_is_wanted_of_both_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, mmAP in (("first", 37.0), ("second", 35.0)):
        run = fabricate_run(tmp_path / place, {"batch": 16}, mmAP=mmAP)
        fabricate_run(tmp_path / place, {"batch": 16, "seed": 1}, mmAP=1.0)
        swept(tmp_path / place, [run], "mine")
    arguments = ["--from", str(tmp_path / "first"), "--against", str(tmp_path / "second"), "--table", "3"]
    (rows,) = blocks(capsys, *arguments, "sweep=mine")
    (row,) = [row for row in rows if (row["Batch size"], row["BN size"]) == ("16", "16")]
    assert (row["mmAP"], row["mmAP (second)"]) == ("37.0", "35.0")
    swept(tmp_path / "first", [run], "here")
    assert make_tables.main([*arguments, "sweep=here"]) == 2
    message = f"make_tables: --against {tmp_path / 'second'}: sweep=here: no such run; there is sweep=mine\n"
    assert capsys.readouterr().err == message


def test_failed_runs_of_the_second_set_stay_out_as_well_and_folders_called_runs_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("first", "second"):
        fabricate_run(tmp_path / place / "runs", {"batch": 16}, mmAP=35.0)
        fabricate_run(tmp_path / place / "runs", {"batch": 32, "bn_size": 32}, status="failed", reason="RuntimeError")
    arguments = ["--from", str(tmp_path / "first" / "runs"), "--against", str(tmp_path / "second" / "runs")]
    assert make_tables.main([*arguments, "--table", "3"]) == 0
    printed = capsys.readouterr()
    assert "mmAP (second/runs)" in printed.out and "RuntimeError" not in printed.out
    assert printed.err.count("left out: 1 of 2 runs failed") == 2


def test_what_against_itself_names_is_wanted_of_the_first_set_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [fabricate_run(tmp_path, {"batch": 16, "seed": seed}, mmAP=35.0 + seed) for seed in range(3)]
    for run, name in zip(runs, "abc", strict=True):
        move_to_experiment(run, name)
        swept(tmp_path, [run], f"sweep-{name}")
    for wanted, against in (("experiment=a", "c"), ("sweep=sweep-a", "sweep=sweep-c")):
        (rows,) = blocks(capsys, "--from", str(tmp_path), wanted, "--against", against, "--table", "3")
        (row,) = [row for row in rows if (row["Batch size"], row["BN size"]) == ("16", "16")]
        assert (row["mmAP"], row[f"mmAP ({against})"]) == ("35.0", "37.0")


@pytest.mark.parametrize(
    "name, message",
    [
        ("nobody", "experiment or KEY=VALUE; there is megdet"),
        ("megdet", "name another one"),
        ("precision=bf16", "there is precision=fp32"),
        ("precison=bf16", "did you mean precision?"),
        ("nothing=1", "sweep, run_id"),
    ],
)
def test_a_set_that_is_not_there_is_a_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    assert make_tables.main(["--from", str(tmp_path), "--against", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"make_tables: --against {name}: ") and message in error and len(error.splitlines()) == 1


def test_provenance_names_each_run_of_the_table_with_its_commit_and_hashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        fabricate_run(tmp_path, {"batch": 16, "seed": seed}, commit=letter * 40) for seed, letter in enumerate("ab")
    ]
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, status="diverged", epochs=1)
    three, provenance = blocks(capsys, "--from", str(tmp_path), "--table", "3", "--provenance")
    assert len(three) == 20 and provenance[0]["table"] == "Provenance of Table 3"
    rows = {row["run"]: row for row in provenance}
    plan = json.loads((folders[0] / "plan.json").read_text())
    assert [rows[folder.name]["commit"] for folder in folders] == ["a" * 10, "b" * 10]
    assert {rows[folder.name]["experiment hash"] for folder in folders} == {plan["experiment_id"]}
    assert sorted(row["status"] for row in provenance) == ["diverged", "finished", "finished"]


def test_the_same_run_of_two_commits_is_in_the_provenance_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, letter in (("first", "a"), ("second", "b")):
        fabricate_run(tmp_path / place, {"batch": 16}, commit=letter * 40)
    arguments = ["--from", str(tmp_path / "first"), "--against", str(tmp_path / "second"), "--provenance"]
    _, provenance = blocks(capsys, *arguments, "--table", "3")
    assert [row["commit"] for row in provenance] == ["a" * 10, "b" * 10]

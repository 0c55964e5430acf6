from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from megdet import cli
from megdet.analysis import make_figures, make_report, make_tables
from tests.runs.fabricate import fabricate_run

PROGRAMS: dict[str, tuple[Callable[[Sequence[str] | None], int], str]] = {
    "make_tables": (make_tables.main, "folder"),
    "make_report": (make_report.main, "folder"),
    "make_figures": (make_figures.main, "file"),
}
"""Each with what it cannot write to."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_output_that_cannot_be_written_is_a_message_and_exit_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, wrong = PROGRAMS[name]
    fabricate_run(tmp_path / "runs", {"batch": 16})
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    figure = ["--figure", "loss"] if name == "make_figures" else []
    for out in (tmp_path / wrong, tmp_path / "file" / "below"):
        assert main(["--from", str(tmp_path / "runs"), "--out", str(out), *figure]) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"{name}: --out {out}: cannot be written") and len(said.err.splitlines()) == 1
        assert said.out == "" and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("key", ["sweep", "experiment", "model", "seed", "optimizer.momentum"])
def test_every_program_chooses_runs_by_the_words_of_launch_py(
    name: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    main, _ = PROGRAMS[name]
    assert main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), f"{key}=7"]) == 2
    assert capsys.readouterr().err.startswith(f"{name}: {key}=7: no such run; ")
    assert not (tmp_path / "out").exists()


def test_failed_runs_are_counted_among_those_asked_for_and_shown_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}, status="failed", reason="a disk was full")
    source = ["--from", str(tmp_path), "--table", "3"]
    assert make_tables.main([*source, "batch=16"]) == 0 and "left out" not in capsys.readouterr().err
    assert make_tables.main([*source, "batch=32"]) == 2
    assert "all 1 runs failed, were cancelled or lost; --all shows them" in capsys.readouterr().err
    assert make_tables.main([*source, "status=failed"]) == 0 and "a disk was full" in capsys.readouterr().out


def test_a_message_begins_with_the_program_that_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("tables", "figures", "report"):
        assert cli.main([command, "--from", "/nowhere"]) == 2
        assert capsys.readouterr().err.startswith(f"megdet {command}: /nowhere")


def test_runs_are_chosen_anywhere_on_the_command_line_and_a_list_is_one_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for batch, seed in ((16, 0), (16, 1), (16, 2), (32, 0)):
        fabricate_run(tmp_path / "runs", {"batch": batch, "seed": seed, "schedule.milestones": [8, 10]})
    words = ["batch=16", "--from", str(tmp_path / "runs"), "schedule.milestones=[7,9],[8,10]", "--format", "csv"]
    assert make_tables.main([*words, "--table", "3", "seed=0,2"]) == 2
    assert "schedule.milestones=[7,9]: no such run; there is schedule.milestones=[8, 10]" in capsys.readouterr().err
    words[3] = "schedule.milestones=[8,10]"
    assert make_tables.main([*words, "--table", "3", "seed=0,2"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["Batch size"]: row["mmAP"] for row in rows if row["mmAP"]} == {"16": "37.0 ± 0.0 (2)"}

"""A user's own sweep file becomes a table of its own."""

from __future__ import annotations

import csv
import io
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from megdet.analysis import make_tables
from megdet.analysis.table_spec import read_spec
from megdet.config.compose import compose
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError
from tests.analysis.test_tables import LONG, TINY
from tests.runs.fabricate import fabricate_run

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs/sweep-files.md"


def write(folder: Path, rows: str, *, more: str = "measure: {mmAP: mmAP}") -> Path:
    file = folder / "mine.yaml"
    file.write_text(f"title: Mine\n{more}\nrows:\n" + "".join(f"  - {row}\n" for row in rows.strip().splitlines()))
    return file


def blocks(file: Path, runs: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[dict[str, str]]]:
    """The rows of each table in CSV, by column."""
    assert make_tables.main(["--table", str(file), "--from", str(runs), "--format", "csv", *arguments]) == 0
    return [list(csv.DictReader(io.StringIO(block))) for block in capsys.readouterr().out.split("\n\n")]


def cells(rows: list[dict[str, str]], column: str = "mmAP") -> list[str]:
    return [row[column] for row in rows]


def fabricate(runs: Path, overrides: list[str], **how: Any) -> Path:
    """A run of what Hydra composes."""
    where = ("cluster", "sweep", "runs_dir")
    values = {key: value for key, value in flat(asdict(compose(overrides))) if key.partition(".")[0] not in where}
    return fabricate_run(runs, values, **how)


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in values.items()
        for pair in (flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)])
    ]


def test_rows_have_the_runs_with_the_settings_that_they_ask_for_whatever_these_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, """
{ask: {model.roi_heads.nms: 0.5, gpus: 8}, label: as usual}
{ask: {model.roi_heads.nms: 0.7, cluster.nodes: 2}, label: looser}
{ask: {model.roi_heads.nms: 0.9}, label: not run}
{ask: {model.roi_heads.nms: 0.7, precision: bf16}, label: "looser, bf16"}
""")  # fmt: skip
    fabricate_run(tmp_path / "runs", {"model.roi_heads.nms": 0.5}, mmAP=36.0)
    for seed, mmAP in enumerate((37.0, 39.0)):
        fabricate_run(tmp_path / "runs", {"model.roi_heads.nms": 0.7, "seed": seed}, mmAP=mmAP)
    fabricate_run(tmp_path / "runs", {"model.roi_heads.nms": 0.7, "precision": "bf16"}, status="diverged", epochs=1)
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    assert cells(rows, "Name") == ["as usual", "looser", "not run", "looser, bf16"]
    assert cells(rows) == ["36.0", "38.0 ± 1.4 (2)", "", "failed"]


def test_runs_that_differ_in_what_no_row_asks_for_have_tables_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "{ask: {model.roi_heads.nms: 0.5}}\n{ask: {model.roi_heads.nms: 0.7}}")
    for nms, mmAP in ((0.5, 36.0), (0.7, 37.0)):
        fabricate_run(tmp_path / "runs", {"model.roi_heads.nms": nms, "batch": 16}, mmAP=mmAP)
        fabricate_run(tmp_path / "runs", {"model.roi_heads.nms": nms, "batch": 32, "seed": 1}, mmAP=mmAP - 10)
    small, large = blocks(file, tmp_path / "runs", capsys)
    assert "batch 16" in small[0]["runs"] and cells(small) == ["36.0", "37.0"]
    assert "batch 32" in large[0]["runs"] and cells(large) == ["26.0", "27.0"]


def test_a_group_is_asked_for_by_its_name_and_what_belongs_to_it_varies_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "{ask: {schedule: normal}}\n{ask: {schedule: long}}\n{ask: {schedule: long, model: tiny}}")
    fabricate_run(tmp_path / "runs", {}, mmAP=36.0)
    fabricate_run(tmp_path / "runs", LONG, mmAP=37.0)
    fabricate_run(tmp_path / "runs", {**LONG, **{k: v for k, v in TINY.items() if k.startswith("model")}}, mmAP=7.0)
    fabricate_run(tmp_path / "runs", {**LONG, "schedule.warmup_epochs": 0.0, "seed": 1}, mmAP=1.0)
    first, odd = blocks(file, tmp_path / "runs", capsys)
    assert cells(first) == ["36.0", "37.0", "7.0"]
    assert cells(odd) == ["", "1.0", ""], "one name means one schedule"


@pytest.mark.parametrize(
    ("seen", "shown"),
    [([None, 5.0], None), ([5.0, 9.0, 9.0], 9.0), ([7.0, 5.0], 7.0), ([5.0], "")],
    ids=["the_default", "what_most_have", "the_only_other", "nothing_else"],
)
def test_a_row_that_leaves_a_setting_out_has_its_usual_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seen: list[float | None], shown: float | str | None
) -> None:
    file = write(tmp_path, "{ask: {bn_size: 16}}\n{ask: {bn_size: 16, optimizer.clip_grad_norm: 5}}")
    results = {None: 30.0, 5.0: 35.0, 7.0: 37.0, 9.0: 39.0}
    for seed, clip in enumerate(seen):
        asked = {"optimizer.clip_grad_norm": clip, "seed": seed, **LONG}
        fabricate_run(tmp_path / "runs", asked, mmAP=results[clip])
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    usual = "" if shown == "" else f"{results[shown]:.1f}"  # type: ignore[index]
    assert cells(rows)[0].split(" ")[0] == usual and cells(rows)[1] == "35.0"


def test_nothing_numbers_as_text_and_seeds_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path,
        """
{ask: {optimizer.clip_grad_norm: null}}
{ask: {optimizer.clip_grad_norm: 1e-3}}
{ask: {optimizer.clip_grad_norm: null, seed: 1}}
""",
    )
    for seed, clip in enumerate((None, None, 0.001)):
        fabricate_run(tmp_path / "runs", {"optimizer.clip_grad_norm": clip, "seed": seed}, mmAP=30.0 + seed)
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    assert cells(rows) == ["30.5 ± 0.7 (2)", "32.0", "31.0"]


def test_an_experiment_is_asked_for_by_what_tells_it_from_the_other_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What all rows have of it the command line may have changed: here the number of training images."""
    file = write(tmp_path, "{ask: {experiment: tiny, bn_size: 0}}\n{ask: {experiment: tiny, lr.base: 0.01}}")
    also = ["experiment=tiny", "data.train_images=64"]
    fabricate(tmp_path / "runs", [*also, "bn_size=0"], mmAP=3.0)
    fabricate(tmp_path / "runs", [*also, "lr.base=0.01"], mmAP=4.0)
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    assert cells(rows) == ["3.0", "4.0"]
    file = write(tmp_path, "{ask: {experiment: tiny}}\n{ask: {experiment: demo}}")
    fabricate(tmp_path / "runs", ["experiment=tiny"], mmAP=5.0)
    fabricate(tmp_path / "runs", ["experiment=demo"], mmAP=6.0)
    found = [cells(rows) for rows in blocks(file, tmp_path / "runs", capsys)]
    assert ["5.0", "6.0"] in found


def test_a_part_of_the_model_is_asked_for_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "{ask: {batch: 16}}\n{ask: {batch: 16, model/backbone: resnet18}}")
    for overrides, mmAP in ((["batch=16"], 36.0), (["batch=16", "model/backbone=resnet18"], 30.0)):
        fabricate(tmp_path / "runs", overrides, mmAP=mmAP)
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    assert cells(rows, "Name") == ["batch 16", "batch 16, model/backbone resnet18"] and cells(rows) == ["36.0", "30.0"]


def test_columns_are_the_names_the_gpus_and_what_is_measured_with_what_was_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path,
        """
{ask: {batch: 16, gpus: 8}, label: small, paper: {mmAP: 36.5, Loss: 0.05}, note: of the talk}
{ask: {batch: 256}, label: large, paper: {mmAP: failed}}
{label: somebody's, paper: {mmAP: 40}}
""",
        more="""names: {Name: label, Batch: batch}
gpus: GPUs
measure: {mmAP: mmAP, Time (min): train_s, Loss: {number: loss, better: down, digits: 3}}""",
    )
    fabricate_run(tmp_path / "runs", {"batch": 16}, mmAP=36.0, hours=0.5)
    fabricate_run(tmp_path / "runs", {"batch": 256}, mmAP=37.0, hours=2.0)
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    assert list(rows[0])[2:] == [
        "Name", "Batch", "GPUs", "GPUs (paper)", "mmAP", "mmAP (paper)", "difference", "Time (min)", "Loss",
        "Loss (paper)", "note",
    ]  # fmt: skip
    assert list(rows[0].values())[2:] == [
        "small", "16", "8", "8", "36.0", "36.5", "-0.5", "30.0", "0.091", "0.050", "of the talk"
    ]  # fmt: skip
    assert list(rows[1].values())[2:] == ["large", "256", "128", "", "37.0", "failed", "", "120.0", "0.091", "", ""]
    assert list(rows[2].values())[2:] == ["somebody's", "", "", "", "", "40.0", "", "", "", "", ""]


def test_before_any_run_is_there_the_rows_are_shown_with_what_was_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "{ask: {batch: 48}, label: ours, paper: {mmAP: 36.5}}")
    fabricate_run(tmp_path / "runs", {"batch": 16})
    (rows,) = blocks(file, tmp_path / "runs", capsys)
    assert [(row["runs"], row["mmAP"], row["mmAP (paper)"]) for row in rows] == [("no run yet", "", "36.5")]


def test_a_second_set_stands_beside_the_first_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "{ask: {model.roi_heads.nms: 0.5}}\n{ask: {model.roi_heads.nms: 0.7}}")
    for place, mmAP in (("first", 36.0), ("second", 35.0)):
        fabricate_run(tmp_path / place, {"model.roi_heads.nms": 0.5}, mmAP=mmAP)
    (rows,) = blocks(file, tmp_path / "first", capsys, "--against", str(tmp_path / "second"))
    assert [(row["mmAP"], row["mmAP (second)"], row["difference (second)"]) for row in rows] == [
        ("36.0", "35.0", "+1.0"), ("", "", "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [{ask: {batch: 16}}]", "nothing is to be shown"),
        ("measure: {mmAP: mmAP}", "`rows`, a list"),
        ("- 1", "`rows`, a list"),
        ("a: [", "line 1: expected the node content"),
        ("{measures: {mmAP: mmAP}, rows: [{ask: {batch: 16}}]}", "no such key; did you mean measure?"),
        ("{measure: {mmAP: {of: mmAP}}, rows: [{}]}", "measure mmAP: of: there is no such key"),
        ("{measure: {mmAP: 3}, rows: [{}]}", "measure mmAP: number=3"),
        ("{measure: {mmAP: {number: mmAP, better: more}}, rows: [{}]}", "better=more; write up or down"),
        ("{measure: {mmAP: {number: mmAP, digits: -1}}, rows: [{}]}", "mine.yaml, measure mmAP: digits=-1"),
        ("{measure: {mmAP: {number: mmAP, digits: true}}, rows: [{}]}", "digits=true; write how many"),
        ("{measure: {mmAP: {number: mmAP, digits: 99999}}, rows: [{}]}", "digits=99999; write how many"),
        ("{measure: {mmAP: mmAP}, names: {A: zip}, rows: [{ask: {batch: 16}}]}", "A is to show zip, which no row asks"),
        ("{measure: {mmAP: mmAP}, rows: [16]}", "mine.yaml, row 1: cannot be read"),
        ("{measure: {mmAP: mmAP}, rows: [{asks: {batch: 16}}]}", "row 1: asks: there is no such key; did you mean"),
        ("{measure: {mmAP: mmAP}, rows: [{ask: {bath: 16}}]}", "row 1: bath"),
        ("{measure: {mmAP: mmAP}, rows: [{ask: {experiment: demi}}]}", "row 1: experiment=demi: there is no such"),
        ("{measure: {mmAP: mmAP}, rows: [{paper: {mAP: 36}}]}", "row 1, paper: mAP: there is no such key"),
        ("{measure: {mmAP: mmAP}, rows: [{paper: {mmAP: good}}]}", "mmAP is good; write a number, or failed"),
        ("{measure: {mmAP: mmAP}, rows: [{paper: {mmAP: true}}]}", "mmAP is true; write a number, or failed"),
        ("{measure: {mmAP: mmAP}, rows: [{paper: {mmAP: .nan}}]}", "mmAP is nan; write a number, or failed"),
        ("{measure: {difference: loss, mmAP: mmAP}, rows: [{paper: {mmAP: 36}}]}", "two columns are called difference"),
    ],
)  # fmt: skip
def test_what_a_sweep_file_cannot_say_is_one_message_with_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert make_tables.main(["--table", str(tmp_path / "mine.yaml"), "--from", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("make_tables: ") and message in error and len(error.splitlines()) == 1


def test_a_table_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked, message in (("5", "use one of 1, 2, 3, 4, claims, bn, variance, or the path"), ("x.yaml", "x.yaml")):
        assert make_tables.main(["--table", asked, "--from", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_the_files_of_the_papers_tables_are_read_as_anybodys(tmp_path: Path) -> None:
    from megdet.config.locations import SWEEPS

    for name, rows in (("table2", 5), ("table3", 20), ("table4", 7), ("figure1", 2), ("figure4", 2)):
        assert len(read_spec(SWEEPS / f"{name}.yaml").rows) == rows
    with pytest.raises(UserError):  # its numbers are by epoch
        read_spec(SWEEPS / "table1.yaml")


def test_the_documentations_example_does_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fenced = dict(re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENTATION.read_text(), re.DOTALL | re.MULTILINE))
    file, commands, shown = fenced["yaml"], fenced["bash"], fenced["text"]
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    Path("sweeps/clipping.yaml").write_text(file)
    launch, tables = (shlex.split(line) for line in commands.splitlines())
    overrides = [word for word in launch[3:] if not word.startswith("sweep.rows=")]
    results = {cells[0]: cells[2:] for cells in table_cells(shown)[1:]}
    for row, spec in zip(read_rows("sweeps/clipping.yaml"), read_spec(Path("sweeps/clipping.yaml")).rows, strict=True):
        mmAP, minutes = (cell.replace("*", "") for cell in results[spec.label])
        done = (
            {"status": "diverged", "epochs": 1}
            if mmAP == "failed"
            else {"mmAP": float(mmAP), "hours": float(minutes) / 60}
        )
        fabricate(Path("runs"), [*overrides, *row.overrides], **done)
    assert tables[:2] == ["python", "analysis/make_tables.py"] and make_tables.main(tables[2:]) == 0
    assert table_cells(capsys.readouterr().out) == table_cells(shown)


def table_cells(markdown: str) -> list[list[str]]:
    """The cells of each row of a table, the rule left out."""
    rows = [line.strip("| ").split("|") for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not row[0].startswith(":-")]

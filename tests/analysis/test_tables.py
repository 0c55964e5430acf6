from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from megdet.analysis import cells, make_tables
from megdet.analysis.comparable import comparable_groups
from megdet.analysis.frames import load_runs
from megdet.analysis.paper import paper_rows
from megdet.analysis.tables import table3
from megdet.config.schema import Config
from megdet.model.settings import BackboneSettings
from megdet.planning.plan import make_plan
from megdet.runs.status import Status
from tests.analysis.ratios import with_ratios
from tests.analysis.under_way import being_run
from tests.runs.fabricate import fabricate_run, plan_of

ROOT = Path(__file__).resolve().parents[2]
LONG = {
    "schedule.name": "long", "schedule.epochs": 18, "schedule.milestones": [11, 14, 17],
    "schedule.factors": [0.1, 0.1, 0.5],
}  # fmt: skip
TINY = {
    "model.name": "tiny", "model.backbone": BackboneSettings(name="tiny", weights="none", frozen_stages=0),
    "data.name": "shapes", "data.train_images": 800,
}  # fmt: skip


def table(runs: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    """The rows of the first table in CSV, by column."""
    assert make_tables.main(["--from", str(runs), "--format", "csv", *arguments]) == 0
    first_block = capsys.readouterr().out.split("\n\n")[0]
    return list(csv.DictReader(io.StringIO(first_block)))


def row(rows: list[dict[str, str]], label: str, bn_size: int | None = None) -> dict[str, str]:
    first = next(name for name in rows[0] if name.endswith("atch size"))
    (found,) = [r for r in rows if r[first] == label and (bn_size is None or r["BN size"] == str(bn_size))]
    return found


def test_every_row_of_tables_2_and_3_can_be_planned_on_the_papers_gpus() -> None:
    schedules = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/schedule").glob("*.yaml")}
    for name, count in (("table2", 5), ("table3", 20)):
        rows = paper_rows(name)
        assert len(rows) == count and len({row.key for row in rows}) == count
        for row in rows:
            batch, bn_size, schedule, scale = row.key
            config = Config(batch=batch, bn_size=bn_size, gpus=row.gpus or "auto")
            config.lr.scale = scale
            for name, value in schedules[schedule].items():
                setattr(config.schedule, name, value)
            config.cluster.nodes, config.cluster.gpus_per_node = 16, 8
            # Table 2 does not say; frozen BN has two images on a GPU, as in 16-base.
            assert make_plan(config).layout.gpus == (row.gpus or batch // 2)


def test_the_papers_numbers_are_those_printed_in_the_paper() -> None:
    two, three = paper_rows("table2"), paper_rows("table3")
    assert [(row.label, row.mmAP, row.hours) for row in two] == [
        ("16", 36.2, 33.2), ("32", 36.4, 15.1), ("64", None, None), ("64 (half learning rate)", 36.0, 7.5),
        ("128 (half learning rate)", None, None),
    ]  # fmt: skip
    printed = {(row.label, row.key[1], row.gpus): (row.mmAP, row.hours) for row in three}
    assert printed["16-base", 0, 8] == (36.2, 33.2)
    assert printed["256", 16, 128] == (37.1, 4.1) and printed["256 (long)", 32, 64] == (37.7, 9.4)
    # Sums over the columns as printed.
    assert sum(row.mmAP or 0 for row in three) == pytest.approx(727.7)
    assert sum(row.hours or 0 for row in three) == pytest.approx(744.9)
    assert (sum(row.key[1] for row in three), sum(row.gpus or 0 for row in three)) == (432, 646)


def test_a_finished_run_stands_beside_the_papers_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 256, "bn_size": 32}, mmAP=36.84, hours=7.04)
    fabricate_run(tmp_path, {"batch": 256, "bn_size": 16, **LONG}, mmAP=37.8, hours=5.0)
    rows = table(tmp_path, capsys, "--table", "3")
    assert list(rows[0])[2:] == [
        "Batch size", "BN size", "# of GPUs", "# of GPUs (paper)", "mmAP", "mmAP (paper)", "difference",
        "Time (h)", "Time (h) (paper)", "note",
    ]  # fmt: skip
    ours = row(rows, "256", 32)
    assert (ours["mmAP"], ours["mmAP (paper)"], ours["difference"]) == ("36.8", "37.1", "-0.3")
    assert (ours["# of GPUs"], ours["Time (h)"], ours["Time (h) (paper)"]) == ("64", "7.0", "7.2")
    assert row(rows, "256 (long)", 16)["difference"] == "+0.1"
    assert row(rows, "256", 16)["mmAP"] == "" and row(rows, "256 (long)", 32)["mmAP"] == ""
    assert [r["Batch size"] for r in rows] == [row.label for row in paper_rows("table3")]


def test_a_cell_is_a_number_failed_running_or_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, mmAP=36.3)
    under_way = fabricate_run(tmp_path, {"batch": 32, "bn_size": 0}, status="running", epochs=2)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=2)
    asked = {"batch": 64, "bn_size": 0, "lr.scale": 0.5}
    fabricate_run(tmp_path, asked, status="failed", epochs=2, reason="CUDA out of memory")
    with being_run(under_way):
        rows = table(tmp_path, capsys, "--table", "2", "--all")
    assert [r["mmAP"] for r in rows] == ["36.3", "running", "failed", "", ""]
    assert [r["note"] for r in rows] == ["", "", "", "error (CUDA out of memory)", ""]
    assert [r["mmAP (paper)"] for r in rows] == ["36.2", "36.4", "failed", "36.0", "failed"]
    assert [r["Time (h)"] for r in rows] == ["10.0", "", "", "", ""]
    assert [r["difference"] for r in rows] == ["+0.1", "", "", "", ""]


def test_a_run_that_was_killed_is_not_shown_as_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 16}, status="running", epochs=2)
    for seed in range(2):
        fabricate_run(tmp_path, {"batch": 32, "bn_size": 32, "seed": seed}, status="running", epochs=2)
    rows = table(tmp_path, capsys, "--table", "3")
    assert row(rows, "16", 16)["mmAP"] == "" and row(rows, "16", 16)["note"] == "interrupted (its launcher is gone)"
    assert row(rows, "32", 32)["note"] == "interrupted (its launcher is gone): 2"


@pytest.mark.parametrize("state", sorted(set(Status) - {"finished", "diverged", "running", "new"}))
def test_a_run_in_any_other_state_leaves_its_cell_empty_and_a_note_says_state_and_reason(
    state: str, tmp_path: Path
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, status="interrupted", epochs=2)
    frames = load_runs(str(tmp_path))
    (group,) = comparable_groups(replace(frames, runs=frames.runs.assign(status=state, reason="job 7")))
    made = table3.make(group)
    assert made is not None
    row = made.runs["row"].item()
    assert made.texts()["mmAP"][row] == ""
    assert made.notes[row] == (("error" if state == "failed" else state) + " (job 7)",)


def test_seeds_without_a_result_are_noted_beside_those_that_diverged_or_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=1)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0, "seed": 1}, status="failed", epochs=1, reason="no disk")
    under_way = fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, status="running", epochs=1)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": 1}, status="interrupted", epochs=1)
    with being_run(under_way):
        rows = table(tmp_path, capsys, "--table", "2", "--all")
    assert (row(rows, "64")["mmAP"], row(rows, "64")["note"]) == ("failed", "further seeds error (no disk): 1")
    assert (row(rows, "16")["mmAP"], row(rows, "16")["note"]) == ("running", "further seeds interrupted: 1")


def test_seeds_are_averaged_and_those_that_diverged_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, mmAP in enumerate((36.0, 36.3, 36.9)):
        fabricate_run(tmp_path, {"batch": 32, "bn_size": 0, "seed": seed}, mmAP=mmAP, hours=10 + seed)
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0, "seed": 3}, status="diverged", epochs=1, hours=99)
    for seed in range(2):
        fabricate_run(tmp_path, {"batch": 64, "bn_size": 0, "seed": seed}, status="diverged", epochs=1)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, mmAP=36.3)
    under_way = fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": 1}, status="running", epochs=1)
    with being_run(under_way):
        rows = table(tmp_path, capsys, "--table", "2")
    # mean 36.4, sample standard deviation sqrt((.16 + .01 + .25) / 2)
    assert row(rows, "32")["mmAP"] == "36.4 ± 0.5 (3); 1 of 4 failed"
    assert row(rows, "32")["difference"] == "0.0" and row(rows, "32")["Time (h)"] == "11.0 ± 1.0 (3) (16 GPUs)"
    assert row(rows, "64")["mmAP"] == "failed (2 of 2)"
    assert row(rows, "16")["mmAP"] == "36.3" and row(rows, "16")["note"] == "further seeds running: 1"


def test_hours_on_different_numbers_of_gpus_are_never_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (gpus, hours) in enumerate(((8, 9.0), (16, 4.0), (16, 6.0))):
        fabricate_run(tmp_path, {"batch": 64, "bn_size": 32, "seed": seed, "gpus": gpus}, hours=hours)
    fabricate_run(tmp_path, {"batch": 128, "bn_size": 32, "gpus": 16}, hours=3.0)
    rows = table(tmp_path, capsys, "--table", "3")
    # The sample standard deviation of 4 and 6 is the root of 2.
    assert row(rows, "64", 32)["Time (h)"] == "9.0 (8 GPUs), 5.0 ± 1.4 (2) (16 GPUs)"
    assert row(rows, "128", 32)["Time (h)"] == "3.0"


@pytest.mark.parametrize("gpus, hours", [(16, ["8.0 (8 GPUs)", "4.0 (16 GPUs)"]), (8, ["8.0", "4.0"])])
def test_table_2_which_has_no_column_of_gpus_says_them_where_its_rows_differ(
    gpus: int, hours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "gpus": 8}, hours=8.0)
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0, "gpus": gpus}, hours=4.0)
    assert [r["Time (h)"] for r in table(tmp_path, capsys, "--table", "2")][:2] == hours


def test_rows_that_the_paper_has_not_follow_its_own_and_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 512, "bn_size": 32, "cluster.nodes": 16})
    fabricate_run(tmp_path, {"batch": 48, "bn_size": 0, "lr.scale": 0.25})
    rows = table(tmp_path, capsys, "--table", "3")
    assert [r["Batch size"] for r in rows[20:]] == ["512 †"] and rows[20]["mmAP (paper)"] == ""
    rows = table(tmp_path, capsys, "--table", "2")
    assert [r["Mini-Batch size"] for r in rows[5:]] == ["48 (0.25x learning rate) †"]


def test_a_frozen_run_of_ours_is_the_baseline_of_table_3_where_the_papers_was_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bn_size in (0, 4):
        fabricate_run(tmp_path, {"batch": 4, "bn_size": bn_size})
    fabricate_run(tmp_path, {"batch": 12, "bn_size": 0})
    assert [r["Batch size"] for r in table(tmp_path, capsys, "--table", "3")[20:]] == ["4-base †"]
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0})
    assert [r["Batch size"] for r in table(tmp_path, capsys, "--table", "3")[20:]] == []


def test_runs_that_are_not_comparable_are_never_in_one_table(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 32, "seed": 4, "lr.scale": 0.5, "gpus": 16})
    fabricate_run(tmp_path, {"batch": 16, **LONG})
    for asked in (
        {"optimizer.weight_decay": 0.0005}, {"precision": "bf16"}, {"model.backbone.frozen_stages": 0},
        {"lr.base": 0.01}, {"data.min_size": 600}, {"optimizer.clip_grad_norm": 10.0}, {"schedule.epochs": 12}, TINY,
    ):  # fmt: skip
        fabricate_run(tmp_path, {"batch": 16, **asked})
    groups = comparable_groups(load_runs(str(tmp_path)))
    assert [len(group.runs) for group in groups] == [3] + 8 * [1]
    assert len({group.title for group in groups}) == 9
    assert all("r50_fpn" in group.title for group in groups[:-1]) and "data shapes; model tiny" in groups[-1].title
    titles = " | ".join(group.title for group in groups)
    for difference in (
        "optimizer.weight_decay 0.0005", "precision bf16", "lr.base 0.01", "optimizer.clip_grad_norm 10",
        "optimizer.clip_grad_norm not set", "normal schedule 12 epochs",
    ):  # fmt: skip
        assert difference in titles


def test_each_group_has_its_own_table_with_a_header_that_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=37.0)
    fabricate_run(tmp_path, {"batch": 16, **TINY}, mmAP=12.0, hours=0.0123)
    assert make_tables.main(["--from", str(tmp_path), "--table", "3"]) == 0
    said = capsys.readouterr()
    assert said.out.count("### ") == 1 and "left out: data shapes; model tiny" in said.err and "(--all)" in said.err
    assert make_tables.main(["--from", str(tmp_path), "--table", "3", "--all"]) == 0
    first, second = capsys.readouterr().out.split("### ")[1:]
    assert "data coco2017; model r50_fpn" in first and "37.0" in first and "12.0" not in first
    assert "data shapes; model tiny" in second and "12.0" in second and "0.0123" in second
    assert "not the paper's data or model" in second and "not the paper's data or model" not in first
    rows = table(tmp_path, capsys, "--table", "3", "data=shapes")
    assert row(rows, "16", 16)["mmAP"] == "12.0"


def test_a_cell_from_two_commits_has_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, letter in enumerate("ab"):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed}, commit=letter * 40)
    folder = fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}, commit="c" * 40)
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"dirty": True}))
    assert make_tables.main(["--from", str(tmp_path), "--table", "3"]) == 0
    out = capsys.readouterr().out
    assert "- 16, BN size 16: runs of different commits: aaaaaaaaaa, bbbbbbbbbb" in out
    assert "- 32, BN size 32: commit cccccccccc" in out and "- 32, BN size 32: run with uncommitted changes" in out
    assert "not of one code: commits aaaaaaaaaa (1 run), bbbbbbbbbb (1 run), cccccccccc (1 run); 1 of 3 with" in out


@pytest.mark.parametrize("number", ["1", "2", "3", "4"])
def test_every_table_of_two_commits_says_which_rows_are_of_which(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_ratios(fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, commit="a" * 40), rpn=1, roi=1)
    with_ratios(fabricate_run(tmp_path, {"batch": 32, "bn_size": 0}, commit="b" * 40), rpn=1, roi=1)
    with_ratios(fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}, commit="b" * 40), rpn=1, roi=1)
    rows = table(tmp_path, capsys, "--table", number)
    notes = {row["note"] for row in rows if "commit" in row["note"]}
    assert notes == {"commit aaaaaaaaaa", "commit bbbbbbbbbb"} and "not of one code" in rows[0]["runs"]


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_run_that_diverged_carries_its_commit_too(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_ratios(fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, commit="a" * 40), rpn=1, roi=1)
    diverged = fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, commit="b" * 40, status="diverged", epochs=1)
    with_ratios(diverged, rpn=1, roi=1)
    rows = table(tmp_path, capsys, "--table", number)
    assert any("failed" in row.values() and row["note"] == "commit bbbbbbbbbb" for row in rows)


@pytest.mark.parametrize(
    "hours, text", [(33.24, "33.2"), (1.0, "1.0"), (0.5, "0.5"), (0.01234, "0.0123"), (0.00051, "0.00051")]
)
def test_hours_of_a_demo_are_not_rounded_away(hours: float, text: str) -> None:
    assert cells.hours([hours]) == text


def test_hours_over_seeds_have_as_many_digits_as_their_mean_needs() -> None:
    # Sample standard deviation of two: their distance over the root of 2.
    assert cells.hours([0.056, 0.058]) == "0.0570 ± 0.0014 (2)"
    assert cells.hours([9.0, 11.0]) == "10.0 ± 1.4 (2)" and cells.hours([0.0, 0.0]) == "0"


def test_markdown_is_one_aligned_table_per_title(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0})
    assert make_tables.main(["--from", str(tmp_path)]) == 0
    blocks = re.findall(r"(?:^\|.*\n)+", capsys.readouterr().out, flags=re.MULTILINE)
    assert [len(block.splitlines()) for block in blocks] == [2 + 6, 2 + 5, 2 + 20, 2 + 7 + 1]
    for block in blocks:
        assert len({len(line) for line in block.splitlines()}) == 1
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_html_is_a_page_on_its_own_with_text_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = fabricate_run(tmp_path, {"batch": 16, "data.name": "odd"}) / "plan.json"
    plan.write_text(plan.read_text().replace('"odd"', '"<b>odd & new</b>"'))  # no name that can be asked for
    out = tmp_path / "deep" / "tables.html"
    assert make_tables.main(["--from", str(tmp_path), "--format", "html", "--out", str(out)]) == 0
    page = out.read_text()
    assert page.startswith("<!DOCTYPE html>") and "&lt;b&gt;odd &amp; new" in page and "<b>" not in page
    assert "src=" not in page and "href=" not in page

    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.rows = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.rows += tag == "tr"
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.rows == (1 + 6) + (1 + 5) + (1 + 20) + (1 + 7 + 1)


def test_the_script_runs_from_the_repository_root_and_reports_mistakes_with_exit_code_2(tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16}, mmAP=37.0)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "analysis/make_tables.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    done = run("--from", str(tmp_path / "runs"), "--table", "3")
    assert (done.returncode, done.stderr) == (0, "") and "| 16 " in done.stdout
    for wrong in (["--from", str(tmp_path)], ["--from", str(tmp_path / "runs"), "model=nobody"]):
        failed = run(*wrong)
        assert failed.returncode == 2 and failed.stdout == ""
        assert len(failed.stderr.splitlines()) == 1 and failed.stderr.startswith("make_tables: ")


def test_planned_runs_leave_their_cells_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of({"batch": 16}, "c")
    (tmp_path / plan.run_id).mkdir()
    (tmp_path / plan.run_id / "plan.json").write_text(plan.to_json())
    rows = table(tmp_path, capsys, "--table", "3")
    assert row(rows, "16", 16)["mmAP"] == "" and len(rows) == 20


def test_failed_runs_stay_out_unless_asked_for_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=37.0)
    fabricate_run(tmp_path, {"batch": 16, "seed": 1}, status="failed", epochs=1, reason="no disk")
    assert make_tables.main(["--from", str(tmp_path), "--table", "3"]) == 0
    said = capsys.readouterr()
    assert "left out: 1 of 2 runs failed, were cancelled or lost (--all)" in said.err and "no disk" not in said.out
    assert make_tables.main(["--from", str(tmp_path), "--table", "3", "--all"]) == 0
    said = capsys.readouterr()
    assert "left out" not in said.err and "no disk" in said.out


def test_where_all_runs_failed_a_message_says_how_to_see_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, status="failed", epochs=1, reason="no disk")
    assert make_tables.main(["--from", str(tmp_path)]) == 2
    assert "all 1 runs failed, were cancelled or lost; --all shows them" in capsys.readouterr().err


def test_claims_that_nothing_can_judge_are_one_line_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=37.0)
    arguments = ["--from", str(tmp_path), "--table", "claims"]
    assert make_tables.main(arguments) == 0
    folded = [line for line in capsys.readouterr().out.splitlines() if "not testable here" in line]
    assert make_tables.main([*arguments, "--all"]) == 0
    whole = [line for line in capsys.readouterr().out.splitlines() if "not testable here" in line]
    assert len(folded) == 1 and f"{len(whole)} claims (--all lists them)" in folded[0] and len(whole) > 10

"""The table of a sweep: what it will take, what it has taken, and a budget that refuses it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.model.settings import ModelSettings
from megdet.planning.cost import TABLE3
from megdet.runs.status import Status
from megdet.sweep.plan_table import describe, print_table
from megdet.sweep.points import Point
from tests.runs.fabricate import fabricate_run, plan_of
from tests.test_launch import launch


def point_of(runs: Path, asked: dict[str, object], state: str) -> Point:
    plan = plan_of({**asked, "runs_dir": str(runs)}, "")
    return Point(Asked(("batch=16",), plan.config), plan, Status(state) if state in set(Status) else None)


def rows_of(out: str) -> dict[int, list[str]]:
    return {int(m.group(1)): m.group(0).split() for m in re.finditer(r"^ *(\d+)  b\d+.*$", out, re.MULTILINE)}


def test_the_table_predicts_what_is_to_do_and_shows_what_was_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"model.name": "mine", "runs_dir": str(tmp_path)}, hours=20.0)
    points = [
        point_of(tmp_path, {"batch": 16}, "new"),
        point_of(tmp_path, {"model.name": "mine"}, "finished"),
        point_of(tmp_path, {"model.name": "mine", "seed": 1}, "new"),
        point_of(tmp_path, {"batch": 16}, "repeated"),
        point_of(tmp_path, {"model.name": "other"}, "new"),
    ]
    print_table(points)
    out = capsys.readouterr().out
    rows = rows_of(out)
    assert points[0].plan
    hours = TABLE3.hours(points[0].plan)
    assert rows[1][-4:] == [f"~{hours:.3g}", "h", f"~{8 * hours:.0f}", "new"]
    assert rows[2][-4:] == ["20.2", "h", "161", "finished"], "as measured, evaluation included"
    assert rows[3][-4:] == ["~20.2", "h", "~161", "new"]
    assert rows[4][-3:] == ["81312", "~3.2", "repeated"] and rows[5][-3:] == ["81312", "~3.2", "new"]
    total = f"3 to do: ~{8 * (hours + 20.183):,.0f} GPU-hours"
    assert total in out, out and "1 not predicted" in out and "Table 3 and finished runs" in out


def test_what_is_to_do_follows_on_existing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"runs_dir": str(tmp_path)}, hours=20.0)
    for on_existing, states, to_do in (
        ("resume", ("failed", "finished"), None),
        ("retry_failed", ("failed", "finished"), "1 to do"),
        ("force", ("failed", "finished"), "2 to do: ~323 GPU-hours"),
        ("force", ("running", "queued"), None),
    ):
        asked = {"sweep.on_existing": on_existing}
        print_table([point_of(tmp_path, asked, states[0]), point_of(tmp_path, asked, states[1])])
        out = capsys.readouterr().out
        assert to_do in out if to_do else "to do" not in out, (on_existing, out)


def test_a_single_run_says_what_it_will_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(point_of(tmp_path, {"batch": 16}, "new"))
    assert re.search(r"about 41\.\d h, 329 GPU-hours \(predicted from Table 3\)", capsys.readouterr().out)
    describe(Point(Asked((), plan_of({}, "").config), plan_of({"model": ModelSettings(name="mine")}, ""), Status.NEW))
    out = capsys.readouterr().out
    assert "predicted from" not in out and "about 3.2 GB of memory a GPU (predicted)" in out


def test_table_3_is_planned_with_its_gpu_hours_and_refused_by_a_smaller_budget(tmp_path: Path) -> None:
    arguments = ("-m", "sweep=table3", "cluster=paper", "sweep.dry_run=true")
    done = launch(tmp_path, *arguments, "sweep.max_gpu_hours=8600", "sweep.fork=false")
    assert done.returncode == 0 and "20 to do: ~8,500 GPU-hours" in done.stdout, done.stdout + done.stderr
    shared = launch(tmp_path, *arguments, "sweep.max_gpu_hours=7000")
    assert shared.returncode == 0, shared.stderr
    assert "20 to do: ~6,972 GPU-hours" in shared.stdout
    assert "6 runs take their first epochs from another, to the same bits: ~1,528 GPU-hours less" in shared.stdout
    assert re.search(r"16  b32-bn32-long-s0-\w+ .* new +8 of #7", shared.stdout)
    refused = launch(tmp_path, *arguments, "sweep.max_gpu_hours=5000")
    assert refused.returncode == 2 and "max_gpu_hours=5000: the 20 runs" in refused.stderr, refused.stderr
    assert "b256-bn16-long" in refused.stderr and "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["-m", "sweep=tabel3"], ["sweep=tabel3", "table3"]),
        (["-m", "sweep.rows=tabel3"], ["sweep.rows=tabel3", "table3"]),
        (["sweep=table3"], ["add -m", "sweep.rows=table3"]),
    ],
    ids=" ".join,
)
def test_a_mistake_with_rows_is_one_message_and_exit_code_2(
    arguments: list[str], parts: list[str], tmp_path: Path
) -> None:
    done = launch(tmp_path, *arguments)
    assert done.returncode == 2 and all(part in done.stderr for part in parts), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_thousand_points_are_planned_in_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # `make coverage` would measure itself
    before = os.times()
    done = launch(tmp_path, "-m", "batch=range(16,16001,16)", "bn_size=8", "cluster=paper", "sweep.dry_run=true")
    assert done.returncode == 0 and "1000 to do" in done.stdout, done.stderr
    after = os.times()
    # Processor time, as the host may be busy; about 4 s.
    assert after.children_user - before.children_user < 10

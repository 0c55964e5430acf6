from __future__ import annotations

from pathlib import Path

import pytest

from megdet.analysis.comparable import comparable_groups
from megdet.analysis.runs import load_runs
from megdet.analysis.table4 import make_leaderboard
from tests.runs.fabricate import fabricate_run


def test_the_leaderboard_is_as_published() -> None:
    table = make_leaderboard(None)
    assert table is not None and table.columns == ("name", "mmAP", "mmAR") and table.runs == "no run yet"
    assert table.rows[-1].cells == ("MegDet (Ensemble)", "52.5", "69.0")
    # Sums over the columns as printed.
    assert sum(float(row.cells[1] or 0) for row in table.rows) == pytest.approx(346.0)
    assert sum(float(row.cells[2] or 0) for row in table.rows) == pytest.approx(464.9)


def test_finished_runs_follow_best_first_and_the_table_says_what_they_were_measured_on(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=36.0)
    fabricate_run(tmp_path, {"batch": 16, "seed": 1}, mmAP=38.0)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, mmAP=39.0)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=1)
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    table = make_leaderboard(group)
    assert table is not None
    # The fabricated numbers of an epoch rise by one from metric to metric; mmAR is the ninth.
    assert [row.cells for row in table.rows[7:]] == [
        ("16, frozen BN †", "39.0", "47.0"), ("16, BN 16 †", "37.0 ± 1.4 (2)", "45.0 ± 1.4 (2)")
    ]  # fmt: skip
    assert "ours on 5000 validation images of coco2017" in table.runs and "test-dev" in table.about


def test_a_group_that_has_not_finished_anything_has_no_leaderboard(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, status="running", epochs=2)
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    assert make_leaderboard(group) is None

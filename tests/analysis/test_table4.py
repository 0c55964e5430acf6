from __future__ import annotations

from pathlib import Path

import pytest

from megdet.analysis.comparable import comparable_groups
from megdet.analysis.frames import load_runs
from megdet.analysis.tables import table4
from tests.runs.fabricate import fabricate_run


def test_the_leaderboard_is_as_published() -> None:
    table = table4.make(None)
    assert table is not None and list(table.frame) == ["name", "mmAP", "mmAR"] and table.shown == "no run yet"
    assert list(table.texts().iloc[-1]) == ["MegDet (Ensemble)", "52.5", "69.0"]
    # Sums over the columns as printed.
    assert table.frame["mmAP"].sum() == pytest.approx(346.0)
    assert table.frame["mmAR"].sum() == pytest.approx(464.9)


def test_runs_follow_best_first_with_those_that_failed_and_the_table_says_what_they_were_measured_on(
    tmp_path: Path,
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=36.0)
    fabricate_run(tmp_path, {"batch": 16, "seed": 1}, mmAP=38.0)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, mmAP=39.0)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": 1}, status="diverged", epochs=1)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=1)
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0}, status="running", epochs=1)
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    table = table4.make(group)
    assert table is not None
    # The fabricated numbers of an epoch rise by one from metric to metric; mmAR is the ninth.
    assert table.texts()[7:].to_numpy().tolist() == [
        ["16, frozen BN †", "39.0; 1 of 2 failed", "47.0; 1 of 2 failed"],
        ["16, BN 16 †", "37.0 ± 1.4 (2)", "45.0 ± 1.4 (2)"],
        ["64, frozen BN †", "failed", "failed"],
    ]  # fmt: skip
    assert "ours on 5000 validation images of coco2017" in table.shown and "test-dev" in table.about


def test_a_group_that_has_not_finished_anything_has_no_leaderboard(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, status="running", epochs=2)
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    assert table4.make(group) is None

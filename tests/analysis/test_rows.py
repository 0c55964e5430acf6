from __future__ import annotations

from pathlib import Path

from megdet.analysis.rows import by_row
from tests.analysis.paper_runs import LONG, group_of
from tests.runs.fabricate import fabricate_run


def test_rows_are_in_the_order_of_the_papers_tables_and_seeds_in_their_own(tmp_path: Path) -> None:
    for asked in ({"batch": 16, **LONG}, {"batch": 64, "bn_size": 0, "lr.scale": 0.5}, {"batch": 64, "bn_size": 0},
                  {"batch": 16}, {"batch": 16, "bn_size": 0}, {"batch": 256}):  # fmt: skip
        for seed in (10, 2):
            fabricate_run(tmp_path, {**asked, "seed": seed})
    rows = by_row(group_of(tmp_path).runs)
    assert list(rows) == [
        (16, 0, "normal", 1.0),
        (16, 16, "normal", 1.0),
        (64, 0, "normal", 1.0),
        (64, 0, "normal", 0.5),
        (256, 16, "normal", 1.0),
        (16, 16, "long", 1.0),
    ]
    assert {tuple(runs["seed"]) for runs in rows.values()} == {(2, 10)}

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megdet.analysis.comparable import Group, comparable_groups
from megdet.analysis.frames import load_runs
from megdet.analysis.run_frames import RunFrames
from tests.analysis.test_tables import LONG
from tests.runs.fabricate import fabricate_run

OTHER_SIZE = {"data.min_size": 600, "data.max_size": 1000}


def runs_of(folder: Path, *asked: dict[str, Any]) -> RunFrames:
    """A finished run of each of these."""
    for values in asked:
        fabricate_run(folder, values, epochs=values.get("schedule.epochs"))
    return load_runs(str(folder))


def with_files(frames: RunFrames, **contents: tuple[str, ...]) -> RunFrames:
    """The runs with other files behind them: of each seed, the first digits of the SHA-256."""
    columns = {
        name: frames.runs["seed"].map(lambda seed, digits=digits: digits[seed]) for name, digits in contents.items()
    }
    return replace(frames, runs=frames.runs.assign(**columns))


def group_of(folder: Path, *asked: dict[str, Any]) -> Group:
    (group,) = comparable_groups(runs_of(folder, *asked))
    return group


@pytest.mark.parametrize("field, name", [("data_sha256", "annotations"), ("weights_sha256", "weights")])
def test_runs_on_files_of_other_content_are_not_comparable_and_titles_say_which(
    tmp_path: Path, field: str, name: str
) -> None:
    runs = runs_of(tmp_path, *({"batch": 16, "seed": seed} for seed in range(4)))
    groups = comparable_groups(with_files(runs, **{field: ("1a2b3c", "", "1a2b3c", "9f8e7d")}))
    by_seed = {min(group.runs["seed"]): group.title for group in groups}
    assert sorted(sorted(group.runs["seed"]) for group in groups) == [[0, 2], [1], [3]]
    assert f"; {name} 1a2b3c; " in by_seed[0] and f"; {name} 9f8e7d; " in by_seed[3]
    assert f"; {name} not recorded; " in by_seed[1]


def test_runs_on_unrecorded_files_stay_with_those_that_agree(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, *({"batch": 16, "seed": seed} for seed in range(3)))
    made = with_files(runs, data_sha256=("1a2b3c", "1a2b3c", ""), weights_sha256=("5d", "", ""))
    (group,) = comparable_groups(made)
    assert len(group.runs) == 3 and "annotations" not in group.title and "weights" not in group.title


def test_runs_with_masks_stand_beside_those_with_boxes_alone_unless_their_masks_differ(tmp_path: Path) -> None:
    masks = {"model.mask.name": "head", "data.masks_fingerprint": "ab12"}
    frames = runs_of(tmp_path, {}, masks, {**masks, "seed": 1, "data.masks_fingerprint": "cd34"})
    both = comparable_groups(frames.where(frames.runs["seed"] == 0), ("model.mask",))
    assert [len(group.runs) for group in both] == [2]
    assert len(comparable_groups(frames, ("model.mask",))) > 1


def test_other_files_are_named_only_where_nothing_else_tells_the_groups_apart(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"batch": 16}, {"batch": 16, "seed": 1, **OTHER_SIZE})
    groups = comparable_groups(with_files(runs, data_sha256=("aa", "bb")))
    assert len(groups) == 2 and all("data.min_size" in group.title for group in groups)
    assert not any("annotations" in group.title for group in groups)


def test_titles_tell_schedules_apart_by_whatever_differs_in_them(tmp_path: Path) -> None:
    asked = {"batch": 64, "bn_size": 0}
    variants: tuple[dict[str, Any], ...] = (
        {},
        {"schedule.warmup_epochs": 0.0},
        {"schedule.warmup_epochs": None, "schedule.warmup_images": 1000},
        {"schedule.factors": [0.1, 0.5]},
    )
    seeds = [{**asked, **variant, "seed": seed} for seed, variant in enumerate(variants)]
    runs = runs_of(tmp_path, *seeds, {"batch": 16, "seed": 9, **LONG})
    titles = {seed: group.title for group in comparable_groups(runs) for seed in group.runs["seed"]}
    usual, cold, by_images, slower = (titles[seed] for seed in range(4))
    drops = "normal schedule 11 epochs (drops at 8, 10) with"
    assert f"{drops} factors [0.1, 0.1], warmup_epochs 1, warmup_images not set" in usual
    assert f"{drops} factors [0.1, 0.1], warmup_epochs 0, warmup_images not set" in cold
    assert f"{drops} factors [0.1, 0.1], warmup_epochs not set, warmup_images 1000" in by_images
    assert f"{drops} factors [0.1, 0.5], warmup_epochs 1, warmup_images not set" in slower
    assert titles[9].endswith("long schedule 18 epochs (drops at 11, 14, 17)")  # its only one has nothing to add


def test_titles_say_one_epoch_and_show_what_a_damaged_plan_has_in_its_place(tmp_path: Path) -> None:
    one = {"schedule.epochs": 1, "schedule.milestones": [], "schedule.factors": []}
    frames = runs_of(tmp_path, one)
    (whole,) = comparable_groups(frames)
    (damaged,) = comparable_groups(replace(frames, runs=frames.runs.assign(**{"schedule.epochs": True})))
    assert whole.title.endswith("normal schedule 1 epoch")
    assert damaged.title.endswith("normal schedule true epochs")


def test_the_papers_own_rows_are_like_the_paper(tmp_path: Path) -> None:
    group = group_of(tmp_path, {"batch": 64, "bn_size": 0, "lr.scale": 0.5}, {"batch": 256, "gpus": 64}, LONG)
    assert group.is_like_the_paper and group.heading == group.title


@pytest.mark.parametrize(
    "asked, named",
    [
        ({"model.backbone.frozen_stages": 5}, "model.backbone.frozen_stages"),
        ({"schedule.epochs": 1, "schedule.milestones": [], "schedule.factors": []},
         "schedule.epochs, schedule.factors, schedule.milestones"),
        ({**LONG, "schedule.warmup_epochs": 0.0}, "schedule.warmup_epochs"),
        ({"precision": "bf16", "optimizer.clip_grad_norm": 5.0}, "optimizer.clip_grad_norm, precision"),
        ({**OTHER_SIZE, "data.train_images": 1600, "lr.base": 0.01, "model.roi_heads.nms": 0.6, "precision": "bf16"},
         "data.max_size, data.min_size, data.train_images, lr.base and 2 more"),
    ],
)  # fmt: skip
def test_a_heading_names_the_settings_that_are_not_the_papers(
    tmp_path: Path, asked: dict[str, Any], named: str
) -> None:
    group = group_of(tmp_path, {"batch": 16, **asked})
    assert not group.is_like_the_paper
    assert group.heading == f"{group.title}; not the paper's {named}: the differences may come from that"


def test_other_data_or_another_model_makes_differences_say_little(tmp_path: Path) -> None:
    for asked in ({"data.name": "shapes"}, {"model.name": "r18_fpn", "lr.base": 0.01}):
        group = group_of(tmp_path / str(len(asked)), {"batch": 16, **asked})
        assert group.heading.endswith("; not the paper's data or model, so the differences say little")


def test_a_schedule_that_the_paper_has_not_is_no_difference_from_it(tmp_path: Path) -> None:
    asked = {"schedule.name": "short", "schedule.epochs": 3, "schedule.milestones": [2], "schedule.factors": [0.1]}
    assert group_of(tmp_path, asked).is_like_the_paper


def test_what_is_like_the_paper_comes_first_and_other_data_last(tmp_path: Path) -> None:
    runs = runs_of(
        tmp_path, *({"batch": 16, "seed": seed, "data.name": "shapes"} for seed in range(3)),
        *({"batch": 16, "seed": seed, "precision": "bf16"} for seed in range(2)), {"batch": 16},
    )  # fmt: skip
    assert [len(group.runs) for group in comparable_groups(runs)] == [1, 2, 3]


def test_a_schedule_of_one_epoch_is_named_in_the_singular(tmp_path: Path) -> None:
    group = group_of(tmp_path, {"schedule.epochs": 1, "schedule.milestones": [], "schedule.factors": []})
    assert "normal schedule 1 epoch" in group.title and "1 epochs" not in group.title

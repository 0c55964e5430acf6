"""`model.init_from`: training that begins from another run's weights."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.identity import run_id_of
from megdet.planning.plan import make_plan
from megdet.runs.classes import Classes
from megdet.runs.files import short_sha256
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.publish import publish
from megdet.runs.starting_point import check_start_fits, resolve_start
from megdet.training.assemble import detector_of
from megdet.training.distributed import Ranks
from megdet.training.starting_point import start_from_run
from tests.trained.conftest import Trained
from tests.training.test_run import config_of, folder_of, start, weights_of

ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
PREDICTOR = "roi_heads.box_predictor"


def config_from(trained: Trained, tmp_path: Path, shapes_root: Path) -> Config:
    config = config_of(tmp_path, shapes_root)
    config.model = resolve_start(replace(config.model, init_from=str(trained.folder)), tmp_path)
    return config


def started(config: Config, classes: Classes) -> tuple[torch.nn.Module, list[str]]:
    detector = detector_of(make_plan(config), ALONE)
    return detector, start_from_run(detector, config.model, classes)


def test_a_run_is_found_by_folder_or_name_and_known_by_its_checkpoint(trained: Trained, tmp_path: Path) -> None:
    places = [(str(trained.folder), tmp_path), (trained.folder.name, trained.folder.parent)]
    for named, runs in (*places, (trained.folder.name[:6], trained.folder.parent)):
        found = resolve_start(replace(Config().model, init_from=named), runs)
        assert found.init_from == str(trained.folder)
        assert found.init_sha256 == short_sha256(trained.folder / "checkpoint.pt")
    with pytest.raises(UserError, match=r"model\.init_from=nowhere is no run folder"):
        resolve_start(replace(Config().model, init_from="nowhere"), tmp_path)
    published = publish(RunFolder(trained.folder), tmp_path / "published")
    with pytest.raises(
        UserError, match=r"has no weights, as published: .*checkpoint\.pt is missing; name a run folder"
    ):
        resolve_start(replace(Config().model, init_from=str(published)), tmp_path)
    for path in (tmp_path / "nowhere", Path("/")):
        with pytest.raises(UserError, match=r"model\.init_from=/.* is no run folder"):
            resolve_start(replace(Config().model, init_from=str(path)), tmp_path)
    for name in ("b8-one", "b8-two"):
        shutil.copytree(trained.folder, tmp_path / name)
    with pytest.raises(UserError, match="init_from=b8: b8-one, b8-two begin so; name one"):
        resolve_start(replace(Config().model, init_from="b8"), tmp_path)
    with pytest.raises(UserError, match=r"model\.init_sha256=abc, but .* the run has gone on"):
        resolve_start(replace(Config().model, init_from=str(trained.folder), init_sha256="abc"), tmp_path)
    with pytest.raises(UserError, match=r"init_sha256=abc is of the run in model\.init_from, which is not given"):
        replace(Config().model, init_sha256="abc").check("model.")


def test_what_it_begins_from_is_part_of_what_a_run_is_but_not_where_that_lies(
    trained: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_from(trained, tmp_path, shapes_root)
    elsewhere = Path(shutil.copytree(trained.folder, tmp_path / "copy"))
    copied = replace(config, model=resolve_start(replace(config.model, init_from=str(elsewhere)), tmp_path))
    assert run_id_of(copied) == run_id_of(config) != run_id_of(config_of(tmp_path, shapes_root))
    assert any(str(trained.folder) in note for note in make_plan(config).notes)


def test_heads_of_the_same_classes_come_along_and_others_start_anew(
    trained: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_from(trained, tmp_path, shapes_root)
    source = torch.load(trained.folder / "checkpoint.pt", weights_only=True)["model"]
    same = RunFolder(trained.folder).classes()
    assert same is not None
    detector, anew = started(config, same)
    assert anew == []
    weights = {name: value for name, value in detector.state_dict().items() if "num_batches" not in name}
    assert all(torch.equal(value, source[name]) for name, value in weights.items())

    fresh = detector_of(make_plan(config), ALONE).state_dict()
    renamed = Classes(same.ids, ("zebra", *same.names[1:]))
    detector, anew = started(config, renamed)
    assert anew == [PREDICTOR]
    for name, value in detector.state_dict().items():
        is_fresh = name.startswith(PREDICTOR) or "num_batches" in name
        assert torch.equal(value, (fresh if is_fresh else source)[name]), name

    config.data.num_classes = 2
    detector, anew = started(config, Classes((1, 2), ("cup", "pen")))
    assert anew == [PREDICTOR] and detector.state_dict()[f"{PREDICTOR}.cls_score.weight"].shape[0] == 3

    config.model.anchors.ratios = [1.0]
    assert started(config, same)[1] == ["rpn.head", PREDICTOR]


def test_a_mask_branch_can_begin_on_a_run_that_has_boxes_alone(
    trained: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_from(trained, tmp_path, shapes_root)
    config.model.mask.name = "generator"
    same = RunFolder(trained.folder).classes()
    assert same is not None
    assert started(config, same)[1] == ["mask.grid", "mask.pixels", "mask.classify"]


def test_a_backbone_or_pyramid_that_does_not_fit_is_refused(
    trained: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    classes = RunFolder(trained.folder).classes()
    assert classes is not None
    for change in ({"bn_size": 0}, {"model.fpn.channels": 8}):
        config = config_from(trained, tmp_path, shapes_root)
        if "bn_size" in change:
            config.bn_size = 0
        else:
            config.model.fpn.channels = 8
        with pytest.raises(UserError, match=r"does not fit this detector: \d+ tensors of backbone and pyramid"):
            started(config, classes)


def test_what_can_be_seen_not_to_fit_or_to_be_damaged_is_refused_before_a_run_is_planned(
    trained: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_from(trained, tmp_path, shapes_root)
    check_start_fits(config)
    with pytest.raises(UserError, match=r"has BN in the pyramid \(bn_size above 0\): true, and here it is false"):
        check_start_fits(replace(config, bn_size=0))
    for part, said in (
        ("backbone", "has model.backbone.name: tiny, and here it is resnet18"),
        ("fpn", "has model.fpn.channels: 16, and here it is 8"),
    ):
        other = copy.deepcopy(config)
        other.model.backbone.name = "resnet18" if part == "backbone" else "tiny"
        other.model.fpn.channels = 8 if part == "fpn" else 16
        with pytest.raises(UserError, match=said):
            check_start_fits(other)
    older = Path(shutil.copytree(trained.folder, tmp_path / "older"))
    written = json.loads((older / "plan.json").read_text())
    (older / "plan.json").write_text(json.dumps(written | {"recipe": written["recipe"] - 1}))
    config.model.init_from = str(older)
    check_start_fits(config)  # its weights are as good as ever
    damaged = Path(shutil.copytree(trained.folder, tmp_path / "copy"))
    config.model.init_from = str(damaged)
    checkpoint = damaged / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged"):
        check_start_fits(config)
    (damaged / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"init_from=.*plan\.json is damaged"):
        check_start_fits(config)


def test_a_checkpoint_that_is_no_longer_the_planned_one_is_refused(
    trained: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_from(trained, tmp_path, shapes_root)
    config.model.init_sha256 = "0" * 12
    classes = RunFolder(trained.folder).classes()
    assert classes is not None
    with pytest.raises(UserError, match="000000000000 was planned; launch again"):
        started(config, classes)


def test_a_whole_run_begins_from_another_and_says_so(trained: Trained, tmp_path: Path, shapes_root: Path) -> None:
    config = config_from(trained, tmp_path, shapes_root)
    config.schedule.epochs, config.schedule.milestones, config.schedule.factors = 1, [], []
    config.lr.base = 1e-9  # so that what it began from can still be seen
    config.model.anchors.ratios = [1.0]
    plan = make_plan(config)
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    events = {line["event"]: line for line in read_journal(RunFolder(folder_of(plan)), kinds=("event",))}
    assert events["started"]["weights_sha256"] == config.model.init_sha256
    assert events["heads_start_anew"]["what"].startswith("rpn.head: ")
    source = torch.load(trained.folder / "checkpoint.pt", weights_only=True)["model"]
    for name, value in weights_of(plan).items():
        if "running" not in name and "num_batches" not in name and not name.startswith("rpn.head"):
            assert torch.allclose(value, source[name], atol=1e-5), name

"""Exported detectors: torchvision's own model loads them, and finds the same."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import megdet
from megdet import cli
from megdet.config.compose import compose
from megdet.data.images import load_image
from megdet.errors import UserError
from megdet.model.settings import BackboneSettings, FPNSettings, MaskSettings
from megdet.planning.plan import make_plan
from megdet.runs.classes import Classes
from megdet.trained import torchvision_detector
from megdet.trained.export import numbers_of
from megdet.training.assemble import detector_of, optimizer_of
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import Ranks
from megdet.training.state import TrainingState
from tests.runs.folders import owned
from tests.trained.conftest import Trained
from tests.training.test_run import config_of, folder_of

NAMES = ("circle", "square", "triangle", "cross", "ring", "star")


def resnet_run(tmp_path: Path, *, bn_size: int, mask: MaskSettings | None = None) -> Path:
    """A run of ResNet-18 with weights that find things, and with running statistics of their own."""
    config = config_of(tmp_path, tmp_path)
    config.bn_size = bn_size
    config.model.name = "r18_fpn"
    config.model.backbone = BackboneSettings(name="resnet18", weights="none", frozen_stages=0)
    config.model.fpn = FPNSettings(channels=32)
    config.model.mask = mask or MaskSettings()
    plan = make_plan(config)
    folder = owned(folder_of(plan))
    folder.write_plan(plan.to_json())
    folder.write_classes(Classes((1, 2, 3, 5, 8, 13), NAMES))
    detector = detector_of(plan, Ranks.from_environment(), pretrained=False)
    with torch.no_grad():  # scores that differ, and none so near to 1 that they would be equal
        for name, parameter in detector.named_parameters():
            if name.endswith(("cls_logits.weight", "cls_score.weight", "bbox_pred.weight")):
                parameter.mul_(8.0)
    generator = torch.Generator().manual_seed(0)
    for name, value in detector.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.add_(0.2 * torch.rand(value.shape, generator=generator))
    optimizer = optimizer_of(plan, detector)
    Checkpoint.of(plan.run_id, detector, optimizer, TrainingState(step=12)).write(folder.checkpoint)
    return folder.path


def imported(file: Path) -> ModuleType:
    """A program as somebody else would run it: from its file alone."""
    spec = importlib.util.spec_from_file_location("exported_detector", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("bn_size", [0, 4], ids=["frozen", "cgbn"])
def test_an_exported_detector_finds_the_same_in_image_files(
    bn_size: int, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = resnet_run(tmp_path, bn_size=bn_size)
    out = tmp_path / "exported"
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    assert {file.name for file in out.iterdir()} == {"detector.pt", "detector.json", "detector.py"}
    program = imported(out / "detector.py")
    assert "megdet" not in "".join(line for line in (out / "detector.py").read_text().splitlines() if "import" in line)
    model = program.load(out)
    assert isinstance(model, FasterRCNN)
    compared = 0
    for file in trained.images.iterdir():  # without loss: decoders of JPEG differ in the last bit
        with Image.open(file) as picture:
            picture.save(tmp_path / f"{file.stem}.png")
    for found in megdet.load(run).predict(sorted(tmp_path.glob("*.png"))):
        with torch.no_grad():
            [theirs] = model([program.read(found.file)])
        assert [model.classes[label] for label in theirs["labels"]] == found.class_names
        torch.testing.assert_close(theirs["scores"].double(), torch.from_numpy(found.scores), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(theirs["boxes"].double(), torch.from_numpy(found.boxes), rtol=1e-3, atol=2e-2)
        compared += len(found)
    assert compared > 20
    capsys.readouterr()
    program.main([str(found.file)])
    said = capsys.readouterr().out
    assert said.count("\n") == len(found) and found.class_names[0] in said


@pytest.mark.parametrize("kind", ["RGB", "L", "P", "1", "RGBA", "LA", "I;16", "turned", "CMYK.jpg"])
def test_an_exported_program_reads_images_as_training_does(kind: str, tmp_path: Path) -> None:
    rng, file = np.random.default_rng(0), tmp_path / f"image.{'jpg' if kind.endswith('.jpg') else 'png'}"
    colours = Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8))
    if kind == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (20, 30), dtype=np.uint16))
    else:
        picture = colours.convert({"turned": "RGB", "CMYK.jpg": "CMYK"}.get(kind, kind))
    exif = picture.getexif()
    if kind == "turned":
        exif[0x0112] = 6
    picture.save(file, exif=exif, quality=95)
    size = (30, 20) if kind == "turned" else (20, 30)
    ours = load_image(file, size).double() / 255
    assert torch.allclose(imported(Path(torchvision_detector.__file__)).read(file).double(), ours, atol=1e-6)


@pytest.mark.slow
def test_an_exported_mask_head_finds_the_same_masks(trained: Trained, tmp_path: Path) -> None:
    run = resnet_run(tmp_path, bn_size=4, mask=MaskSettings(name="head", layers=2, channels=24, resolution=8))
    out = tmp_path / "exported"
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    program = imported(out / "detector.py")
    model = program.load(out)
    state = model.state_dict()
    assert state["roi_heads.mask_predictor.mask_fcn_logits.weight"].shape == (7, 24, 1, 1)
    files = sorted(trained.images.iterdir())[:3]
    for file in files:
        with Image.open(file) as picture:
            picture.save(tmp_path / f"{file.stem}.png")
    compared = differing = 0
    for found in megdet.load(run).predict(sorted(tmp_path.glob("*.png"))):
        with torch.no_grad():
            [theirs] = model([program.read(found.file)])
        assert found.masks is not None and len(found) == len(theirs["masks"])
        pixels = torch.from_numpy(found.masks.pixels(found.size)) > 0
        certain = (theirs["masks"][:, 0] - 0.5).abs() > 1e-3  # a last bit decides about the others
        compared += int((certain & pixels).sum())
        differing += int((certain & (pixels != (theirs["masks"][:, 0] >= 0.5))).sum())
    # torchvision pastes at whole pixels, and a box may lie a last bit to the other side of one.
    assert compared > 1000 and differing < 0.01 * compared


def test_the_state_dict_alone_is_that_of_torchvisions_own_constructors(tmp_path: Path) -> None:
    config_run = resnet_run(tmp_path, bn_size=0)
    out = tmp_path / "exported"
    assert cli.main(["export", str(config_run), "--out", str(out)]) == 0
    numbers = json.loads((out / "detector.json").read_text())
    assert numbers["classes"] == ["background", *NAMES] and numbers["category_ids"] == [0, 1, 2, 3, 5, 8, 13]
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    # The run's pyramid is narrower than torchvision's, so that the test is quick.
    backbone.fpn = FeaturePyramidNetwork([64, 128, 256, 512], 32, LastLevelMaxPool())
    backbone.out_channels = 32
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((12,), (24,), (36,), (48,), (60,)), ((0.5, 1.0, 2.0),) * 5),
        box_head=TwoMLPHead(32 * 49, 32),
        box_predictor=FastRCNNPredictor(32, 7),
    )
    model.load_state_dict(torch.load(out / "detector.pt", weights_only=True), strict=True)


def test_a_structure_that_torchvision_lacks_is_one_message(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(trained.folder), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "torchvision has no model.backbone=tiny" in said and "resnet50, resnet18, resnext50_32x4d" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "switch",
    [
        "model.backbone.atrous=true",
        "model.large_kernel.size=15",
        "model.context.scale=2.0",
        "model.mask.name=generator",
    ],
)
def test_a_switch_that_torchvision_lacks_is_refused_by_its_name(switch: str) -> None:
    plan = make_plan(compose([switch, "cluster=paper", "gpus=8", "data=shapes"]))
    with pytest.raises(UserError, match=f"torchvision has no {re.escape(switch)} "):
        numbers_of(SimpleNamespace(plan=plan))

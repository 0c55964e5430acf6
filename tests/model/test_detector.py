"""What the detector promises: an image's loss is its own, gradients always exist, weights load or say why not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d, box_iou

from megdet.data.batch import ImageBatch
from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector
from megdet.model.norms import NormLayers
from megdet.model.output import TrainingOutput
from megdet.model.settings import OFFLOAD
from tests.model.detectors import (
    NUM_CLASSES,
    TRAINED,
    detect,
    gradients,
    random_batch,
    save_state,
    small_detector,
    spread_scores,
    train_pass,
)
from tests.ranks import run_ranks

SIZES = [(64, 96), (50, 80), (64, 64)]


@pytest.fixture
def detector() -> Detector:
    detector = small_detector()
    spread_scores(detector)
    return detector


def loss_values(output: TrainingOutput) -> Tensor:
    return torch.stack(list(output.losses.values())).detach()


def test_an_images_loss_does_not_depend_on_its_batch_mates(detector: Detector) -> None:
    batch = random_batch(SIZES, objects=[3, 0, 6])
    together = train_pass(detector, batch)
    joined = gradients(detector)
    detector.zero_grad()
    alone = [train_pass(detector, batch.part(i, i + 1)) for i in range(3)]
    torch.testing.assert_close(loss_values(together), sum(map(loss_values, alone)), rtol=1e-4, atol=1e-5)
    for name, count in together.counts.items():
        assert count == sum(output.counts[name] for output in alone), name
    for name, gradient in gradients(detector).items():
        scale = joined[name].abs().max().item()
        torch.testing.assert_close(gradient, joined[name], rtol=0, atol=1e-4 * scale + 1e-7)


def test_the_samples_are_counted_and_within_their_limits(detector: Detector) -> None:
    output = train_pass(detector, random_batch(SIZES, objects=[3, 0, 6]))
    counts = output.counts
    assert 0 < counts["rpn_positive"] <= 2 * 16
    assert counts["rpn_positive"] + counts["rpn_negative"] == 3 * 32
    assert 0 < counts["roi_positive"] <= 2 * 6
    assert counts["roi_positive"] + counts["roi_negative"] <= 3 * 24


def test_the_sampled_regions_are_those_that_were_counted_each_on_its_side_of_the_iou_threshold(
    detector: Detector,
) -> None:
    batch = random_batch(SIZES, objects=[3, 0, 6])
    output = train_pass(detector, batch)
    regions = output.regions
    assert regions.positive.sum() == output.counts["roi_positive"]
    assert (~regions.positive).sum() == output.counts["roi_negative"]
    assert not regions.boxes.requires_grad
    assert regions.positive[regions.image == 1].sum() == 0, "an image without objects has no positives"
    for place, objects in enumerate(batch.boxes):
        own = regions.image == place
        if len(objects):
            overlap = box_iou(regions.boxes[own], objects).max(dim=1).values
            assert torch.equal(overlap >= 0.5, regions.positive[own])


def test_what_is_sampled_depends_on_the_sampling_keys_alone(detector: Detector) -> None:
    batch = random_batch(SIZES)
    torch.manual_seed(1)
    first = loss_values(train_pass(detector, batch))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(loss_values(train_pass(detector, batch)), first)
    assert torch.equal(torch.get_rng_state(), state)
    batch.sampling_keys = [key + 77 for key in batch.sampling_keys]
    assert not torch.equal(loss_values(train_pass(detector, batch)), first)


@pytest.mark.parametrize("objects", [0, 3])
def test_every_parameter_gets_a_gradient_even_without_objects(detector: Detector, objects: int) -> None:
    output = train_pass(detector, random_batch(SIZES[:1], objects=objects))
    assert all(bool(g.isfinite().all()) for g in gradients(detector).values())
    assert (output.counts["rpn_positive"] > 0) == (objects > 0)


def test_an_image_without_rois_adds_nothing_but_a_live_graph(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector.rpn, "propose", lambda features, sizes: [torch.empty(0, 4) for _ in sizes])
    output = train_pass(detector, random_batch(SIZES[:2], objects=0))
    assert [int(count) for count in output.counts.values()] == [0, 64, 0, 0]
    assert output.losses["roi_class"].item() == output.losses["roi_box"].item() == 0.0
    found = gradients(detector)
    assert not bool(found["roi_heads.box_head.fc6.weight"].any())
    assert bool(found["rpn.head.cls_logits.weight"].any())
    assert [len(d.boxes) for d in detect(detector, random_batch(SIZES[:2]))] == [0, 0]


def test_pixels_outside_an_image_are_zero_after_normalisation(detector: Detector) -> None:
    batch = random_batch([(50, 80)])
    batch.images.fill_(200)
    normalised = detector._normalised(batch)
    expected = (200 / 255 - 0.485) / 0.229
    torch.testing.assert_close(normalised[0, 0, :50, :80], torch.full((50, 80), expected))
    assert not bool(normalised[0, :, 50:].any()) and not bool(normalised[0, :, :, 80:].any())


def test_detections_are_in_pixels_of_the_original_image(detector: Detector) -> None:
    batch = random_batch([(50, 80)])
    detector.roi_heads.score_threshold = 0.2
    (resized,) = detect(detector, batch)
    batch.original_sizes = [(100, 240)]
    (original,) = detect(detector, batch)
    assert len(resized.boxes) > 0
    torch.testing.assert_close(original.boxes, resized.boxes * torch.tensor([3.0, 2.0, 3.0, 2.0]))
    assert bool((original.boxes >= 0).all()) and bool((original.boxes <= torch.tensor([240, 100, 240, 100])).all())
    assert bool((original.scores.diff() <= 0).all()) and bool((original.scores > 0.2).all())
    assert int(original.labels.min()) >= 1 and int(original.labels.max()) <= NUM_CLASSES


def test_bfloat16_autocast_stays_near_float32_and_keeps_losses_in_float32(detector: Detector) -> None:
    batch = random_batch(SIZES)
    exact = loss_values(train_pass(small_detector(), batch))
    low = small_detector()
    with torch.autocast("cpu", torch.bfloat16):
        output = low(batch)
    torch.stack(list(output.losses.values())).sum().backward()
    assert all(loss.dtype == torch.float32 for loss in output.losses.values())
    torch.testing.assert_close(loss_values(output), exact, rtol=0.05, atol=0.02)
    assert not torch.equal(loss_values(output), exact), "nothing was rounded"
    assert all(bool(g.isfinite().all()) for g in gradients(low).values())


@pytest.mark.parametrize("sublinear", [True, OFFLOAD])
@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
def test_sublinear_memory_changes_neither_losses_nor_gradients(backbone: str, sublinear: bool | str) -> None:
    batch = random_batch(SIZES[:2])
    results = []
    for mode in (False, sublinear):
        detector = small_detector(backbone=backbone, sublinear=mode, frozen_stages=1)
        results.append((loss_values(train_pass(detector, batch)), gradients(detector)))
    (plain, plain_gradients), (saved, saved_gradients) = results
    assert torch.equal(plain, saved)
    assert all(torch.equal(plain_gradients[name], saved_gradients[name]) for name in plain_gradients)


def test_sublinear_memory_keeps_less() -> None:
    kept = {}
    for sublinear in (False, True):
        seen: dict[int, int] = {}

        def note(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        detector = small_detector(backbone="resnet18", sublinear=sublinear)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            detector.backbone(torch.randn(1, 3, 64, 96))
        weights = {p.untyped_storage().data_ptr() for p in detector.parameters()}
        kept[sublinear] = sum(size for pointer, size in seen.items() if pointer not in weights)
    assert kept[True] < 0.5 * kept[False]


def test_sublinear_memory_recomputes_each_block_once_and_the_last_stage_not_at_all() -> None:
    detector = small_detector(backbone="resnet18", sublinear=True)
    runs: dict[str, int] = {}
    for name, block in detector.backbone.body.named_modules():
        if isinstance(block, BasicBlock):
            block.conv1.register_forward_hook(lambda *_, name=name: runs.update({name: runs.get(name, 0) + 1}))
    train_pass(detector, random_batch(SIZES[:1]))
    assert len(runs) == 8
    for name, times in runs.items():
        assert times == (1 if name.startswith("layer4") else 2), name


def test_a_frozen_layer_computes_what_it_computed_in_evaluation() -> None:
    norm = partial(nn.BatchNorm2d, eps=1e-2)
    plain, frozen = (
        small_detector(backbone="resnet18", norm=NormLayers(norm, None), frozen_stages=stages).backbone.body
        for stages in (0, 2)
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = (body.eval()(x, sublinear=False)[0] for body in (plain, frozen))
    assert isinstance(frozen.bn1, FrozenBatchNorm2d) and not isinstance(plain.bn1, FrozenBatchNorm2d)
    torch.testing.assert_close(found, expected)


def test_no_more_proposals_come_out_of_suppression_than_the_settings_say() -> None:
    detector = small_detector()
    detector.rpn.settings = replace(detector.rpn.settings, post_nms_train=7, post_nms_test=5)
    batch = random_batch(SIZES)
    features = detector.backbone(detector._normalised(batch))
    for training, most in ((True, 7), (False, 5)):
        proposals = detector.train(training).rpn.propose(features, batch.sizes)
        assert [len(boxes) for boxes in proposals] == [most] * 3


def test_frozen_stages_change_neither_weights_nor_statistics() -> None:
    detector = small_detector(backbone="resnet18", norm=TRAINED, frozen_stages=2)
    before = {name: value.clone() for name, value in detector.backbone.body.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    train_pass(detector, random_batch(SIZES))
    optimizer.step()
    changed = {
        name.split(".")[0]
        for name, value in detector.backbone.body.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"layer2", "layer3", "layer4"}
    norms = [m for m in detector.backbone.body.layer1.modules() if hasattr(m, "running_mean")]
    assert norms and all(isinstance(m, FrozenBatchNorm2d) for m in norms)


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = small_detector(seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = small_detector(seed=5).state_dict(), small_detector(seed=6).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())
    assert not torch.equal(again["roi_heads.box_head.fc6.weight"], other["roi_heads.box_head.fc6.weight"])


def test_a_torchvision_resnet_file_sets_the_backbone_alone(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        imagenet = resnet18(weights=None)
    path = save_state(imagenet.state_dict(), tmp_path / "resnet18.pth")
    detector = small_detector(backbone="resnet18", weights=path)
    fresh = small_detector(backbone="resnet18").state_dict()
    state = detector.state_dict()
    for name, value in imagenet.state_dict().items():
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(state[f"backbone.body.{name}"], value)
    assert all(torch.equal(state[n], fresh[n]) for n in fresh if not n.startswith("backbone.body."))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_detectors_file_sets_everything(tmp_path: Path, wrapped: bool) -> None:
    trained = small_detector(seed=3).state_dict()
    path = save_state({"model": trained, "step": 7} if wrapped else trained, tmp_path / "detector.pt")
    loaded = small_detector(weights=str(path)).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())


def test_weights_that_count_no_batches_load_into_layers_that_do(tmp_path: Path) -> None:
    """Those of frozen norms, and torchvision's oldest files."""
    trained = small_detector(seed=3).backbone.body.state_dict()
    assert not any(name.endswith("num_batches_tracked") for name in trained)
    norm = NormLayers(backbone=partial(CrossGPUBatchNorm2d, bn_size=2), fpn=None)
    loaded = small_detector(norm=norm, weights=save_state(trained, tmp_path / "body.pt")).backbone.body.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())
    assert loaded["bn1.num_batches_tracked"] == 0


def test_weights_that_do_not_fit_say_which_and_what_to_do(tmp_path: Path) -> None:
    path = save_state(small_detector(num_classes=7).state_dict(), tmp_path / "seven_classes.pt")
    with pytest.raises(UserError, match=r"seven_classes\.pt.*box_predictor.*data\.num_classes"):
        small_detector(weights=path)
    with pytest.raises(UserError, match=r"nowhere\.pt cannot be read \(No such file"):
        small_detector(weights=tmp_path / "nowhere.pt")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half an archive"])
def test_a_damaged_weights_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.pt holds no weights that torch can read"):
        small_detector(weights=path)


def test_the_tiny_detector_learns_an_image_from_scratch_with_its_norm_frozen() -> None:
    detector = small_detector()
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.02, momentum=0.9)
    batch = random_batch([(64, 96)])
    losses = []
    for _ in range(90):
        optimizer.zero_grad()
        losses.append(float(loss_values(train_pass(detector, batch)).sum()))
        optimizer.step()
    assert sum(losses[-5:]) / 5 < 0.4 * losses[0]


def ddp_gradients(batch: ImageBatch) -> dict[str, Tensor]:
    """Of the mean over ranks, each with its own image; the last image has no objects."""
    import warnings

    rank = torch.distributed.get_rank()
    detector = small_detector(backbone="resnet18", frozen_stages=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_pass(DistributedDataParallel(detector), batch.part(rank, rank + 1))
    return gradients(detector)


def test_two_ddp_ranks_get_the_gradient_of_the_joined_batch() -> None:
    batch = random_batch(SIZES[:2], objects=[3, 0])
    detector = small_detector(backbone="resnet18", frozen_stages=1)
    train_pass(detector, batch)
    joined = gradients(detector)
    for found in run_ranks(2, ddp_gradients, batch):
        for name, gradient in found.items():
            scale = joined[name].abs().max().item()
            torch.testing.assert_close(2 * gradient, joined[name], rtol=0, atol=1e-4 * scale + 1e-7)


def test_channels_last_is_the_layout_of_every_convolution(detector: Detector) -> None:
    weights = [m.weight for m in detector.modules() if isinstance(m, nn.Conv2d)]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)

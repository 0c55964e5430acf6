"""The detector against torchvision's own FasterRCNN with the same weights, images and samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from megdet.data.batch import ImageBatch
from megdet.model.detector import Detector
from megdet.model.sampling import Stream, sample_balanced
from tests.model.detectors import (
    NUM_CLASSES,
    detect,
    gradients,
    random_batch,
    small_detector,
    spread_scores,
    train_pass,
)

CHANNELS, HIDDEN, RESOLUTION = 256, 32, 7
SIZES = [(64, 128), (52, 110)]
PADDED = (64, 128)
"""A multiple of 64: there torchvision's anchors of the last level are 64 pixels apart as ours are."""


def fc6_to_torchvision(weight: Tensor) -> Tensor:
    """Ours reads (row, column, channel), torchvision's (channel, row, column)."""
    return weight.view(-1, RESOLUTION, RESOLUTION, CHANNELS).permute(0, 3, 1, 2).flatten(1)


def named_as_torchvision(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names are torchvision's already; one weight has another layout."""
    name = "roi_heads.box_head.fc6.weight"
    return {**tensors, name: fc6_to_torchvision(tensors[name])}


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, FasterRCNN]:
    """Both in float64 (but for targets of anchors, which are float32 in ours): what differs, differs in meaning."""
    ours = small_detector(backbone="resnet18", channels=CHANNELS, head_channels=HIDDEN, score_threshold=0.2)
    spread_scores(ours)
    ratios = ((0.5, 1.0, 2.0),) * 5
    theirs = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5),
        min_size=64,
        max_size=1000,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ratios),
        rpn_pre_nms_top_n_train=60,
        rpn_pre_nms_top_n_test=40,
        rpn_post_nms_top_n_train=80,
        rpn_post_nms_top_n_test=60,
        box_head=TwoMLPHead(CHANNELS * RESOLUTION**2, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, NUM_CLASSES + 1),
        box_score_thresh=0.2,
        box_detections_per_img=50,
    )
    # Strict: the two have the same names and shapes, none missing and none more.
    theirs.load_state_dict(named_as_torchvision(ours.state_dict()))
    return ours.double(), theirs.double()


class SameSamples:
    """Takes the place of torchvision's sampler and picks what ours picks."""

    def __init__(self, keys: list[int], stream: Stream, num_samples: int, positive_fraction: float) -> None:
        self.keys, self.stream = keys, stream
        self.num_samples, self.positive_fraction = num_samples, positive_fraction

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positives, negatives = [], []
        for image_labels, key in zip(labels, self.keys, strict=True):
            samples = sample_balanced(
                image_labels[None],
                image_keys=[key],
                stream=self.stream,
                num_samples=self.num_samples,
                positive_fraction=self.positive_fraction,
            )
            for masks, chosen in ((positives, samples.positive), (negatives, ~samples.positive)):
                mask = torch.zeros(len(image_labels), dtype=torch.uint8)
                mask[samples.candidate[chosen]] = 1
                masks.append(mask)
        return positives, negatives


def as_torchvision_input(batch: ImageBatch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [
        image[:, :height, :width].double() / 255
        for image, (height, width) in zip(batch.images, batch.sizes, strict=True)
    ]
    targets = [{"boxes": b.double(), "labels": t} for b, t in zip(batch.boxes, batch.labels, strict=True)]
    return images, targets


def without_resizing(model: FasterRCNN, batch: ImageBatch) -> None:
    height, width = batch.sizes[0]
    assert all(size == batch.sizes[0] for size in batch.sizes)
    model.transform.min_size, model.transform.max_size = (min(height, width),), max(height, width)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("objects", [5, 0])
def test_the_losses_and_gradients_of_an_image_are_torchvisions(
    pair: tuple[Detector, FasterRCNN], size: tuple[int, int], objects: int
) -> None:
    ours, theirs = pair
    batch = random_batch([size], padded=PADDED, objects=objects)
    without_resizing(theirs, batch)
    theirs.rpn.fg_bg_sampler = SameSamples(batch.sampling_keys, Stream.RPN, 32, 0.5)
    theirs.roi_heads.fg_bg_sampler = SameSamples(batch.sampling_keys, Stream.ROI, 24, 0.25)
    theirs.train().zero_grad()
    ours.zero_grad()

    output = train_pass(ours, batch)
    images, targets = as_torchvision_input(batch)
    expected = theirs(images, targets)
    sum(expected.values()).backward()

    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "roi_class": "loss_classifier",
        "roi_box": "loss_box_reg",
    }
    assert output.counts["rpn_positive"] > 0 or objects == 0
    for ours_name, its_name in names.items():
        torch.testing.assert_close(output.losses[ours_name], expected[its_name].double(), rtol=1e-5, atol=1e-8)
    their_gradients = gradients(theirs)
    for name, gradient in named_as_torchvision(gradients(ours)).items():
        scale = their_gradients[name].abs().max().item()
        torch.testing.assert_close(
            gradient, their_gradients[name], rtol=0, atol=1e-5 * scale + 1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("size", SIZES)
def test_the_detections_are_torchvisions(pair: tuple[Detector, FasterRCNN], size: tuple[int, int]) -> None:
    ours, theirs = pair
    batch = random_batch([size, size], padded=PADDED)
    without_resizing(theirs, batch)
    with torch.no_grad():
        expected = theirs.eval()(as_torchvision_input(batch)[0])
    for found, its in zip(detect(ours, batch), expected, strict=True):
        assert 5 < len(found.boxes) <= 50
        assert torch.equal(found.labels, its["labels"])
        torch.testing.assert_close(found.scores, its["scores"], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.boxes, its["boxes"], rtol=1e-4, atol=1e-2)

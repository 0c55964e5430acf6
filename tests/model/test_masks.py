"""The mask head against torchvision's, the mask generator against a slow exact reference, image by image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign

from megdet.data.batch import ImageBatch
from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector, build_detector
from megdet.model.mask_generator import MaskGenerator
from megdet.model.mask_head import MaskHead
from megdet.model.norms import norm_layers
from megdet.model.output import Detections, MatchedRegions
from megdet.model.rows import pyramid_rows
from megdet.model.segmentation import mask_targets_of
from megdet.model.settings import STRIDES, EvaluationSettings, MaskSettings, ModelSettings
from tests.model.detectors import NUM_CLASSES, detect, gradients, random_batch, spread_scores, train_pass
from tests.tiny import tiny_model

SIZES = [(64, 96), (50, 80), (64, 64)]


def detector_with(name: str, *, bn_in: tuple[str, ...] = (), resolution: int = 6, layers: int = 2) -> Detector:
    model = tiny_model()
    model.mask = MaskSettings(name=name, layers=layers, channels=12, resolution=resolution)
    model.bn_in = ["backbone", "fpn", *bn_in]
    model.check()
    norm = norm_layers(model, bn_size=3, group=None)
    evaluation = EvaluationSettings(score_threshold=0.01, detections_per_image=20)
    return build_detector(model, evaluation, num_classes=NUM_CLASSES, norm=norm, sublinear=False, seed=0)


def masked_batch(sizes: list[tuple[int, int]] = SIZES, *, objects: int | list[int] = 3, seed: int = 0) -> ImageBatch:
    """Of each object, an ellipse in its box."""
    batch = random_batch(sizes, objects=objects, seed=seed)
    masks = []
    for (height, width), boxes in zip(batch.sizes, batch.boxes, strict=True):
        y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
        x1, y1, x2, y2 = (side[:, None, None] for side in boxes.unbind(1))
        inside = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25
        masks.append(inside.to(torch.uint8))
    return replace(batch, masks=masks)


def masked_part(batch: ImageBatch, number: int) -> ImageBatch:
    assert batch.masks is not None
    return batch.part(number, number + 1)


def regions_in(batch: ImageBatch, *, seed: int = 0) -> MatchedRegions:
    """Some beside each object, of any size, one as large as the image; objects in any order."""
    generator = torch.Generator().manual_seed(seed)
    boxes, image, object_, labels = [], [], [], []
    for number, ((height, width), own) in enumerate(zip(batch.sizes, batch.boxes, strict=True)):
        for place in torch.randperm(len(own), generator=generator).tolist():
            for _ in range(2):
                shifted = own[place] + torch.randn(4, generator=generator) * 3
                x1, y1 = shifted[0].clamp(0, width - 4.0), shifted[1].clamp(0, height - 4.0)
                far = torch.stack((shifted[2].clamp(max=width), shifted[3].clamp(max=height)))
                boxes.append(torch.cat((torch.stack((x1, y1)), torch.maximum(far, torch.stack((x1, y1)) + 2))))
                image.append(number)
                object_.append(place)
                labels.append(int(batch.labels[number][place]))
        if len(own):
            boxes.append(torch.tensor([0.0, 0.0, width, height]))
            image.append(number)
            object_.append(0)
            labels.append(int(batch.labels[number][0]))
    return MatchedRegions(torch.stack(boxes), torch.tensor(image), torch.tensor(object_), torch.tensor(labels))


def pyramid(seed: int = 0, channels: int = 16, images: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, channels, 64 // stride, 96 // stride) for stride in STRIDES]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def of_image(regions: MatchedRegions, number: int) -> MatchedRegions:
    own = regions.image == number
    return MatchedRegions(
        regions.boxes[own], torch.zeros_like(regions.image[own]), regions.object[own], regions.labels[own]
    )


def head_of() -> MaskHead:
    head = detector_with("head").mask
    assert isinstance(head, MaskHead)
    return head


def torchvisions_logits(head: MaskHead, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
    """Of its own pooling and the same layers: [R, classes + 1, 12, 12]."""
    pool = MultiScaleRoIAlign([str(level) for level in range(4)], output_size=6, sampling_ratio=2)
    pooled = pool({str(level): f for level, f in enumerate(features)}, boxes, [(64, 96)] * 3)
    return head.predictor(head.head(pooled))


def test_the_heads_loss_is_torchvisions_of_each_image_and_their_sum() -> None:
    head, features, batch = head_of(), pyramid(), masked_batch()
    regions = regions_in(batch)
    assert batch.masks is not None
    own = [regions.boxes[regions.image == number] for number in range(3)]
    logits = torchvisions_logits(head, features, own).split([len(boxes) for boxes in own])
    expected = sum(
        maskrcnn_loss(
            logits[number], [own[number]], [batch.masks[number]], [batch.labels[number]],
            [regions.object[regions.image == number]],
        )
        for number in range(3)
    )  # fmt: skip
    found = head.loss(features, pyramid_rows(features), regions, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def detections_at(batch: ImageBatch) -> list[Detections]:
    regions = regions_in(batch, seed=3)
    found = []
    for number in range(len(batch)):
        own = of_image(regions, number)
        found.append(Detections(own.boxes, torch.ones(len(own.boxes)), own.labels))
    return found


def test_the_heads_masks_are_torchvisions() -> None:
    head, features, found = head_of(), pyramid(), detections_at(masked_batch(objects=[2, 0, 4]))
    logits = torchvisions_logits(head, features, [image.boxes for image in found])
    expected = maskrcnn_inference(logits, [image.labels for image in found])
    masks = head.detect(features, pyramid_rows(features), found)
    assert [mask.shape for mask in masks] == [(5, 12, 12), (0, 12, 12), (9, 12, 12)]
    for own, theirs in zip(masks, expected, strict=True):
        torch.testing.assert_close(own, theirs[:, 0], rtol=1e-4, atol=1e-5)


def generator_of(resolution: int = 6) -> MaskGenerator:
    generator = detector_with("generator", resolution=resolution).mask
    assert isinstance(generator, MaskGenerator)
    for level, narrow in enumerate(generator.pixels):
        torch.nn.init.normal_(narrow[0].bias, generator=torch.Generator().manual_seed(level))
    return generator


def pixel_by_pixel(
    generator: MaskGenerator, features: list[Tensor], box: Tensor, image: int, label: int
) -> dict[tuple[int, int], Tensor]:
    """The logit of each (y, x) in image pixels under one region; torch samples the grid."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    own = min(3, max(0, int(4 + torch.tensor(area**0.5 / 224 + 1e-6).log2().floor()) - 2))
    level = max(0, own - 1)
    stride, feature = STRIDES[level], features[level]
    pooled = generator.pool(features, pyramid_rows(features), box[None], torch.tensor([image]))
    grid = generator.grid(pooled.permute(0, 3, 1, 2))
    narrow = generator.pixels[level](feature[image : image + 1])[0]
    logits = {}
    for y in range(feature.shape[2]):
        for x in range(feature.shape[3]):
            if not (box[1] - stride < y * stride < box[3] + stride and box[0] - stride < x * stride < box[2] + stride):
                continue
            # torch's coordinates: -1 and 1 are the outer edges of the first and the last bin.
            place = torch.stack(
                (2 * (x * stride - box[0]) / (box[2] - box[0]) - 1, 2 * (y * stride - box[1]) / (box[3] - box[1]) - 1)
            )
            read = F.grid_sample(grid, place[None, None, None], padding_mode="border", align_corners=False)
            joined = (read[0, :, 0, 0] + narrow[:, y, x]).relu()
            logits[y * stride, x * stride] = generator.classify(joined)[label - 1]
    return logits


def test_the_generators_loss_is_that_of_each_pixel_under_each_region() -> None:
    generator, features, batch = generator_of(), pyramid(seed=1), masked_batch()
    regions = regions_in(batch, seed=1)
    assert batch.masks is not None
    per_image: list[list[float]] = [[], [], []]
    with torch.no_grad():
        for box, image, object_, label in zip(
            regions.boxes, regions.image, regions.object, regions.labels, strict=True
        ):
            mask = batch.masks[image][object_]
            losses = []
            for (y, x), logit in pixel_by_pixel(generator, features, box, int(image), int(label)).items():
                truth = mask[min(y, mask.shape[0] - 1), min(x, mask.shape[1] - 1)].float()
                losses.append(F.binary_cross_entropy_with_logits(logit, truth).item())
            per_image[image].append(sum(losses) / len(losses))
        expected = sum(sum(losses) / len(losses) for losses in per_image)
        found = generator.loss(features, pyramid_rows(features), regions, batch).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_large_region_is_judged_at_the_pixels_of_the_level_below_its_own() -> None:
    generator, box = generator_of(), torch.tensor([3.0, 6.0, 380.0, 250.0])
    shapes = [(1, 16, 256 // stride, 384 // stride) for stride in STRIDES]
    features = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    masks = [(torch.rand((1, 256, 384), generator=torch.Generator().manual_seed(1)) > 0.5).to(torch.uint8)]
    one = torch.tensor([0])
    regions = MatchedRegions(box[None], one, one, one + 2)
    batch = replace(random_batch([(256, 384)], padded=(256, 384), objects=1), masks=masks)
    with torch.no_grad():
        logits = pixel_by_pixel(generator, features, box, 0, 2)
        assert {y % 8 for y, _ in logits} == {0} and len(logits) == 32 * 48, "level 2 is its own, of stride 16"
        expected = [
            F.binary_cross_entropy_with_logits(logit, masks[0][0, y, x].float()).item()
            for (y, x), logit in logits.items()
        ]
        found = generator.loss(features, pyramid_rows(features), regions, batch).item()
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_generators_masks_are_read_between_its_pixels() -> None:
    generator, features = generator_of(), pyramid(seed=2)
    found = detections_at(masked_batch(objects=[1, 2, 0]))
    masks = generator.detect(features, pyramid_rows(features), found)
    assert [len(mask) for mask in masks] == [3, 5, 0] and masks[0].shape[1:] == (24, 24)
    with torch.no_grad():
        for number, image in enumerate(found):
            for box, label, mask in zip(image.boxes, image.labels, masks[number], strict=True):
                logits = pixel_by_pixel(generator, features, box, number, int(label))
                rows, columns = (sorted({place[axis] for place in logits}) for axis in (0, 1))
                values = torch.stack([torch.stack([logits[y, x] for x in columns]) for y in rows])
                stride = rows[1] - rows[0] if len(rows) > 1 else 4
                for step in (0, 5, 23):
                    at = [float(box[axis] + (step + 0.5) / 24 * (box[axis + 2] - box[axis])) for axis in (0, 1)]
                    x, y = ((at[axis] - first) / stride for axis, first in ((0, columns[0]), (1, rows[0])))
                    assert float(mask[step, step]) == pytest.approx(float(bilinear(values, y, x).sigmoid()), abs=1e-5)


def bilinear(values: Tensor, y: float, x: float) -> Tensor:
    y, x = min(max(y, 0.0), values.shape[0] - 1.0), min(max(x, 0.0), values.shape[1] - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    upper = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
    lower = values[bottom, left] * (1 - (x - left)) + values[bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


@pytest.mark.parametrize("name", ["head", "generator"])
def test_a_batchs_mask_loss_is_the_sum_of_its_images_and_reaches_every_layer(name: str) -> None:
    detector, batch = detector_with(name), masked_batch(objects=[3, 0, 5])
    detector.train()
    features = pyramid()
    regions = regions_in(batch)
    for parameter in detector.mask.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    together = detector.mask.loss(features, pyramid_rows(features), regions, batch)
    alone = []
    for number in (0, 2):
        own = [feature[number : number + 1] for feature in features]
        alone.append(detector.mask.loss(own, pyramid_rows(own), of_image(regions, number), masked_part(batch, number)))
    torch.testing.assert_close(together, sum(alone), rtol=1e-5, atol=1e-6)
    train_pass(detector, batch)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(detector).values())
    assert all(bool(p.grad.any()) for name, p in detector.mask.named_parameters() if not name.startswith("pixels"))


@pytest.mark.parametrize("name", ["head", "generator"])
def test_a_pass_without_objects_has_a_mask_loss_of_zero_and_gradients(name: str) -> None:
    detector, batch = detector_with(name), masked_batch(objects=0)
    assert train_pass(detector, batch).losses["mask"] == 0
    assert not any(bool(p.grad.any()) for p in detector.mask.parameters() if p.grad is not None)
    gradients(detector)
    for found in detect(detector_with(name), replace(batch, boxes=[], labels=[], masks=None)):
        assert found.masks is not None and len(found.masks) == len(found.boxes)


@pytest.mark.parametrize("name", ["head", "generator"])
def test_masks_are_of_boxes_in_the_resized_image_whatever_the_originals_size(name: str) -> None:
    detector, batch = detector_with(name), random_batch(SIZES)
    spread_scores(detector)
    large = replace(batch, original_sizes=[(3 * height, 2 * width) for height, width in SIZES])
    compared = 0
    for same, other in zip(detect(detector, batch), detect(detector, large), strict=True):
        assert same.masks is not None and other.masks is not None
        assert torch.equal(same.masks, other.masks) and not torch.equal(same.boxes, other.boxes)
        compared += len(same.boxes)
    assert compared > 10


def test_a_place_is_of_the_smallest_mask_that_it_lies_in() -> None:
    batch = masked_batch(objects=6, seed=4)
    assert batch.masks is not None
    shared = 0
    for masks, labels, size in zip(batch.masks, batch.labels, batch.sizes, strict=True):
        found = mask_targets_of(masks, labels, (8, 12)).tolist()
        for row in range(8):
            for column in range(12):
                y, x = 8 * row + 4, 8 * column + 4
                there = [
                    (int(mask.sum()), int(label))
                    for mask, label in zip(masks, labels, strict=True)
                    if y < size[0] and x < size[1] and mask[y, x]
                ]
                shared += len(there) > 1
                expected = -100 if y >= size[0] or x >= size[1] else min(there, default=(0, 0))[1]
                assert found[row][column] == expected, (row, column)
    assert shared > 3
    assert set(mask_targets_of(torch.zeros((0, 50, 80)), torch.zeros(0), (8, 12)).unique().tolist()) == {-100, 0}


def test_the_generators_norm_is_on_maps_of_whole_images_and_the_head_has_none() -> None:
    generator = detector_with("generator", bn_in=("mask",)).mask
    assert sum(isinstance(module, CrossGPUBatchNorm2d) for module in generator.modules()) == 4
    with pytest.raises(UserError, match=r"model.bn_in has mask, and model.mask.name=head has no maps of whole images"):
        ModelSettings(bn_in=["backbone", "mask"], mask=MaskSettings(name="head")).check("model.")
    with pytest.raises(UserError, match=r"model.bn_in has mask, and model.mask.name=null makes no such layers"):
        ModelSettings(bn_in=["backbone", "mask"]).check("model.")


def test_masks_are_read_where_something_learns_from_them() -> None:
    def asked(name: str | None, weight: float | None, targets: str | None) -> tuple[bool, bool]:
        model = ModelSettings(mask=MaskSettings(name=name))
        model.segmentation.weight, model.segmentation.targets = weight, targets
        return model.reads_masks, model.segments_by_masks

    assert asked(None, None, None) == asked(None, 0.1, None) == asked(None, None, "masks") == (False, False)
    assert asked("head", None, None) == asked("head", 0.1, "boxes") == (True, False)
    assert asked("generator", 0.1, None) == asked(None, 0.1, "masks") == (True, True)

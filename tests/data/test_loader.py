from __future__ import annotations

import gc
import itertools
import json
import logging
import multiprocessing
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as transforms

from megdet.data.batch import ImageBatch
from megdet.data.coco import CocoSplit
from megdet.data.eval_loader import EvalLoader
from megdet.data.files import DataFiles
from megdet.data.images import MEAN_COLOUR, resized_size
from megdet.data.loader import TrainLoader
from megdet.data.sampler import drawn_scale, is_flipped, sampling_key
from megdet.errors import UserError

SIZES = {"min_size": 64, "max_size": 88}  # the longest images reach max_size


def train_loader(split: CocoSplit, **changes: Any) -> TrainLoader:
    settings = {
        "batch": 8,
        "bn_size": 4,
        "images_per_gpu": 8,
        "accumulation": 1,
        "rank": 0,
        "world_size": 1,
        "seed": 7,
        "flip": True,
        "aspect_grouping": True,
        "max_bad_images": 0,
        "workers": 0,
        "pin_memory": False,
    }
    return TrainLoader(split, **(settings | SIZES | changes))


def eval_loader(split: CocoSplit, **changes: Any) -> EvalLoader:
    settings = {
        "images_per_gpu": 4, "rank": 0, "world_size": 1, "workers": 0, "pin_memory": False, "max_bad_images": 2,
    }  # fmt: skip
    return EvalLoader(split, **(settings | SIZES | changes))


def images_of(batch: ImageBatch) -> Iterator[tuple[Any, ...]]:
    """All that the detector is given of each image, comparable with ==."""
    for n in range(len(batch)):
        yield (
            batch.image_ids[n],
            batch.sizes[n],
            batch.original_sizes[n],
            batch.sampling_keys[n],
            tuple(batch.images.shape[2:]),
            batch.images[n].numpy().tobytes(),
            batch.boxes[n].tolist(),
            batch.labels[n].tolist(),
        )


def steps_of(loader: TrainLoader, epoch: int = 1, first_step: int = 0) -> list[Any]:
    return [
        [[list(images_of(batch)) for batch in batches] for batches in step.passes]
        for step in loader.epoch(epoch, first_step)
    ]


def joined(split: CocoSplit, *, world_size: int, images_per_gpu: int, accumulation: int, **changes: Any) -> list[Any]:
    """The images of each step of an epoch, ranks and passes put in the order of their positions."""
    ranks = [
        list(
            train_loader(
                split,
                world_size=world_size,
                images_per_gpu=images_per_gpu,
                accumulation=accumulation,
                rank=rank,
                **changes,
            ).epoch(1)
        )
        for rank in range(world_size)
    ]
    steps = []
    for step in range(len(ranks[0])):
        in_order: list[Any] = []
        for a in range(accumulation):
            for rank in range(world_size):
                of_pass = [image for batch in ranks[rank][step].passes[a] for image in images_of(batch)]
                assert len(of_pass) == images_per_gpu
                in_order += of_pass
        steps.append(in_order)
    return steps


@pytest.mark.parametrize("aspect_grouping", [True, False])
@pytest.mark.parametrize("bn_size", [0, 2, 4, 8])
def test_every_layout_sees_the_same_images_in_the_same_positions(
    split: CocoSplit, bn_size: int, aspect_grouping: bool
) -> None:
    layouts = {"1x8": (1, 8, 1), "2x4": (2, 4, 1), "4x2": (4, 2, 1), "8x1": (8, 1, 1), "2x2, accumulation 2": (2, 2, 2)}
    seen = {
        name: joined(
            split,
            world_size=gpus,
            images_per_gpu=images_per_gpu,
            accumulation=accumulation,
            bn_size=bn_size,
            aspect_grouping=aspect_grouping,
        )
        for name, (gpus, images_per_gpu, accumulation) in layouts.items()
    }
    assert len(seen["1x8"]) == len(split) // 8
    assert len({image[0] for step in seen["1x8"] for image in step}) == len(split)
    for name in layouts:
        assert seen[name] == seen["1x8"], name


@pytest.mark.parametrize("bn_size", [0, 2, 4])
def test_multi_scale_training_draws_a_scale_for_each_padding_group_on_every_layout(
    split: CocoSplit, bn_size: int
) -> None:
    scales = (0.75, 1.0, 1.5)
    sizes = {48: 66, 64: 88, 96: 132}
    whole, *others = [
        joined(
            split,
            batch=16,
            world_size=gpus,
            images_per_gpu=images_per_gpu,
            accumulation=accumulation,
            bn_size=bn_size,
            train_scales=scales,
        )
        for gpus, images_per_gpu, accumulation in ((1, 16, 1), (2, 8, 1), (4, 2, 2), (2, 2, 4))
    ]
    assert others == [whole] * 3
    # bn_size 8 and 16 images in a step: two padding groups of 8, each of one size.
    drawn = set()
    for step in train_loader(split, batch=16, bn_size=8, images_per_gpu=16, train_scales=scales).epoch(3):
        [batches] = step.passes
        for batch in batches:
            for size, original, boxes, image_id in zip(
                batch.sizes, batch.original_sizes, batch.boxes, batch.image_ids, strict=True
            ):
                [limit] = [
                    least
                    for least, most in sizes.items()
                    if size == resized_size(original, min_size=least, max_size=most)
                ]
                drawn.add(limit)
                index = split.image_ids.index(image_id)
                scale = np.array([size[1] / original[1], size[0] / original[0]] * 2)
                expected = split.boxes(index) * scale
                if is_flipped(7, 3, image_id):
                    expected[:, [0, 2]] = size[1] - expected[:, [2, 0]]
                np.testing.assert_allclose(boxes.numpy(), expected, rtol=1e-5, atol=1e-3)
    assert drawn == set(sizes)


def test_a_scale_is_drawn_by_seed_epoch_and_group_alone_and_equally_often() -> None:
    drawn = [drawn_scale(seed, epoch, group, 3) for seed in (0, 1) for epoch in (0, 1) for group in range(300)]
    assert all(350 < drawn.count(scale) < 450 for scale in range(3))
    quarters = [drawn[start : start + 300] for start in range(0, 1200, 300)]
    assert all(one != other for one, other in itertools.combinations(quarters, 2))


@pytest.mark.parametrize("bn_size", [0, 2, 4, 8])
def test_a_pass_of_16_images_or_less_is_one_batch(split: CocoSplit, bn_size: int) -> None:
    for batch, images_per_gpu, accumulation in ((8, 8, 1), (16, 16, 1), (32, 8, 4), (32, 16, 2)):
        loader = train_loader(
            split, batch=batch, bn_size=bn_size, images_per_gpu=images_per_gpu, accumulation=accumulation
        )
        for step in loader.epoch(0):
            assert [len(one_pass) for one_pass in step.passes] == [1] * accumulation


@pytest.mark.parametrize("bn_size", [0, 2, 4, 8])
def test_an_image_is_padded_to_its_group_of_16(split: CocoSplit, bn_size: int) -> None:
    group, runs = 16, 0
    for step in train_loader(split, bn_size=bn_size, batch=80, images_per_gpu=80, aspect_grouping=True).epoch(0):
        (batches,) = step.passes
        assert step.image_batches == batches
        runs += len(batches)
        for batch in batches:
            assert len(batch) % group == 0
            height, width = batch.images.shape[2:]
            for start in range(0, len(batch), group):
                of_group = batch.sizes[start : start + group]
                assert height == 32 * -(-max(h for h, _ in of_group) // 32)
                assert width == 32 * -(-max(w for _, w in of_group) // 32)
            for image, (h, w) in zip(batch.images, batch.sizes, strict=True):
                assert image[:, h:].sum() == 0 and image[:, :, w:].sum() == 0
                assert image[:, :h, :w].float().mean() > 1
        shapes = [batch.images.shape[2:] for batch in batches]
        assert all(a != b for a, b in itertools.pairwise(shapes))  # equal neighbours are merged
    assert runs > 1  # padded sizes did differ within the pass


def test_pixels_and_boxes_are_those_of_an_independent_computation(shapes: DataFiles, split: CocoSplit) -> None:
    content = json.loads(shapes.train_annotations.read_text())
    files = {image["id"]: image for image in content["images"]}
    categories = sorted(category["id"] for category in content["categories"])
    flipped = 0
    for step in train_loader(split, bn_size=8).epoch(3):
        (batch,) = step.image_batches
        for n, image_id in enumerate(batch.image_ids):
            assert batch.sampling_keys[n] == sampling_key(7, 3, image_id)
            flip = is_flipped(7, 3, image_id)
            flipped += flip
            height, width = batch.sizes[n]
            with Image.open(shapes.train_images / files[image_id]["file_name"]) as picture:
                upright = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
            assert upright.shape[:2] == batch.original_sizes[n]
            pixels = transforms.resize(torch.from_numpy(upright).permute(2, 0, 1), [height, width], antialias=True)
            pixels = transforms.horizontal_flip(pixels) if flip else pixels
            difference = batch.images[n, :, :height, :width].int() - pixels.int()
            assert difference.abs().max() <= 3  # PIL's CMYK differs by 2 before resizing

            expected = []
            for a in content["annotations"]:
                if a["image_id"] == image_id and not a["iscrowd"]:
                    x, y, w, h = a["bbox"]
                    x = upright.shape[1] - x - w if flip else x
                    fx, fy = width / upright.shape[1], height / upright.shape[0]
                    expected.append([x * fx, y * fy, (x + w) * fx, (y + h) * fy])
                    assert batch.labels[n][len(expected) - 1] == categories.index(a["category_id"]) + 1
            assert len(batch.boxes[n]) == len(batch.labels[n]) == len(expected)
            np.testing.assert_allclose(batch.boxes[n].reshape(-1, 4), np.reshape(expected, (-1, 4)), atol=2e-5)
    assert 25 < flipped < 55  # of 80


def test_resuming_in_mid_epoch_gives_the_rest_of_the_epoch(split: CocoSplit) -> None:
    whole = steps_of(train_loader(split, images_per_gpu=4, accumulation=2), epoch=2)
    assert steps_of(train_loader(split, images_per_gpu=4, accumulation=2), epoch=2, first_step=7) == whole[7:]
    assert steps_of(train_loader(split, images_per_gpu=4, accumulation=2), epoch=2, first_step=10) == []
    assert whole != steps_of(train_loader(split, images_per_gpu=4, accumulation=2), epoch=3)


def test_two_workers_load_what_none_does(split: CocoSplit) -> None:
    """Two epochs, one of them left in the middle."""
    loader = train_loader(split, workers=2)
    assert next(iter(loader.epoch(0)))
    assert steps_of(loader) == steps_of(train_loader(split))
    ids = [batch.image_ids for batch in eval_loader(split, workers=1)]
    assert ids == [batch.image_ids for batch in eval_loader(split)]


def test_workers_live_from_epoch_to_epoch_and_end_with_the_loader(split: CocoSplit) -> None:
    def workers() -> set[int | None]:
        return {process.pid for process in multiprocessing.active_children()}

    others = workers()
    loader = train_loader(split, workers=2)
    assert steps_of(loader, epoch=0) == steps_of(train_loader(split), epoch=0)
    first = workers() - others
    assert steps_of(loader, epoch=1) == steps_of(train_loader(split), epoch=1)
    assert len(first) == 2 and workers() - others == first
    del loader
    gc.collect()
    assert workers() == others


def test_loading_takes_no_number_from_the_global_generators(split: CocoSplit) -> None:
    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    before = state()
    steps_of(train_loader(split))
    list(eval_loader(split))
    assert state() == before


@pytest.fixture
def damaged(shapes: DataFiles, tmp_path: Path) -> CocoSplit:
    """The training images with one truncated and one missing: 000000000005.jpg and 000000000009.jpg."""
    folder = tmp_path / "train2017"
    shutil.copytree(shapes.train_images, folder)
    truncated = folder / "000000000005.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-700])
    (folder / "000000000009.jpg").unlink()
    return CocoSplit(folder, shapes.train_annotations)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_jpeg_is_named_and_counted_and_training_goes_on(
    damaged: CocoSplit, split: CocoSplit, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    loader = train_loader(damaged, max_bad_images=2, workers=workers)
    images = {image[0]: image for step in steps_of(loader) for (batches,) in [step] for b in batches for image in b}
    whole = {image[0]: image for step in steps_of(train_loader(split)) for (bs,) in [step] for b in bs for image in b}
    assert sorted(loader.bad_images) == ["000000000005.jpg", "000000000009.jpg"]
    assert "truncated" in loader.bad_images["000000000005.jpg"]
    assert "No such file" in loader.bad_images["000000000009.jpg"]
    for image_id in whole:
        if image_id not in (5, 9):
            assert images[image_id] == whole[image_id]
            continue
        _, (height, width), *_, padded, pixels, boxes, labels = images[image_id]
        assert (boxes, labels) == ([], []) and whole[image_id][6]
        assert images[image_id][:5] == whole[image_id][:5]  # its place, sizes, key and padding stay
        area = np.frombuffer(pixels, dtype=np.uint8).reshape(3, *padded)
        assert (area[:, :height, :width] == np.array(MEAN_COLOUR)[:, None, None]).all()
        assert area[:, height:].sum() + area[:, :, width:].sum() == 0

    steps_of(loader, epoch=2)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2  # each once, however often it is met
    assert any("000000000005.jpg" in text and "truncated" in text for text in warnings)


def test_too_many_unreadable_images_are_an_error_that_names_them(damaged: CocoSplit) -> None:
    with pytest.raises(UserError) as error:
        steps_of(train_loader(damaged, max_bad_images=1))
    for part in ("000000000005.jpg", "000000000009.jpg", "data.max_bad_images=1", "truncated", str(damaged.folder)):
        assert part in str(error.value)


def test_a_batch_larger_than_the_set_is_an_error(split: CocoSplit) -> None:
    with pytest.raises(UserError, match=r"batch=88 .*80.*data\.train_images"):
        train_loader(split, batch=88, images_per_gpu=88, bn_size=8)


def test_a_layout_that_does_not_make_the_batch_is_refused(split: CocoSplit) -> None:
    with pytest.raises(ValueError, match="batch=8 is not world_size=3"):
        train_loader(split, world_size=3, images_per_gpu=2)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("images_per_gpu", [1, 5])
def test_evaluation_sees_every_image_once_and_the_same_on_any_layout(
    split: CocoSplit, world_size: int, images_per_gpu: int
) -> None:
    alone = {batch.image_ids[0]: batch for batch in eval_loader(split, images_per_gpu=1)}
    seen: list[int] = []
    shares = []
    for rank in range(world_size):
        loader = eval_loader(split, world_size=world_size, rank=rank, images_per_gpu=images_per_gpu)
        batches = list(loader)
        assert len(batches) == len(loader)
        shares.append(sum(len(batch) for batch in batches))
        for batch in batches:
            assert len(batch) <= images_per_gpu
            assert batch.boxes == batch.labels == batch.sampling_keys == []
            for n, image_id in enumerate(batch.image_ids):
                assert torch.equal(batch.images[n], alone[image_id].images[0])
                assert batch.sizes[n] == alone[image_id].sizes[0]
                assert batch.original_sizes[n] == split.sizes[split.image_ids.index(image_id)]
            seen += batch.image_ids
    assert sorted(seen) == sorted(split.image_ids)
    assert max(shares) - min(shares) <= 1


def test_the_largest_images_are_evaluated_first_so_that_memory_runs_out_at_once_or_never(split: CocoSplit) -> None:
    for rank in range(2):
        heights = [batch.images.shape[2] for batch in eval_loader(split, world_size=2, rank=rank)]
        assert heights == sorted(heights, reverse=True) and len(set(heights)) > 1


def test_more_ranks_than_images_leave_some_with_nothing_to_evaluate(shapes: DataFiles) -> None:
    split = CocoSplit(shapes.val_images, shapes.val_annotations)
    counts = [sum(len(b) for b in eval_loader(split, world_size=25, rank=rank)) for rank in range(25)]
    assert sum(counts) == 21 and counts.count(0) == 4


def test_an_unreadable_image_counts_in_the_evaluation(damaged: CocoSplit) -> None:
    loader = eval_loader(damaged, images_per_gpu=1)
    batches = {batch.image_ids[0]: batch for batch in loader}
    assert sorted(batches) == sorted(damaged.image_ids)
    assert sorted(loader.bad_images) == ["000000000005.jpg", "000000000009.jpg"]
    height, width = batches[5].sizes[0]
    assert (batches[5].images[0, :, :height, :width] == torch.tensor(MEAN_COLOUR)[:, None, None]).all()


def test_too_many_unreadable_images_are_an_error_in_the_evaluation_too(damaged: CocoSplit) -> None:
    with pytest.raises(UserError, match=r"2 images in .* cannot be read, data\.max_bad_images=1"):
        list(eval_loader(damaged, max_bad_images=1))
    assert sum(len(batch) for batch in eval_loader(damaged, max_bad_images=2)) == len(damaged)

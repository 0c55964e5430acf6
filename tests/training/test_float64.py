"""A whole step's gradients in float32, on every layout, against the same detector in float64 in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megdet.data.batch import ImageBatch
from megdet.data.generated import generate
from megdet.training.loop import accumulate_gradients, data_parallel
from megdet.training.named_sums import NamedSums
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader

BATCH = 8
WHOLE = (1, 8, 1)
# ranks, images per GPU, accumulation
LAYOUTS = [WHOLE, (2, 4, 1), (4, 2, 1), (2, 2, 2), (1, 2, 4)]
BN_SIZES = (0, 2, 4, 8)
BOUND = 1e-5
"""Of a tensor's largest gradient."""
Proposals = dict[int, Tensor]


@pytest.fixture(scope="module")
def resized_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of other sizes than `shapes_root`'s, all of them resized."""
    root = tmp_path_factory.mktemp("resized")
    generate("shapes", root, train_images=24, val_images=1, image_size=150, seed=9)
    return root


def gradients_of_a_step(
    root: Path, seed: int, bn_size: int, images_per_gpu: int, accumulation: int, given: Proposals | None
) -> tuple[dict[str, Tensor], Proposals]:
    """The gradients by parameter as float64, and the proposals by image.

    With `given` proposals everything but the images is float64, and proposals are these: which of them survive
    suppression jumps with the last bit of a score, and then there are other samples, and other gradients.
    """
    detector = tiny_detector(bn_size=bn_size, bn_group=max(1, bn_size // images_per_gpu))
    if given is not None:
        detector.double()
    loader = tiny_loader(root, batch=BATCH, bn_size=bn_size, images_per_gpu=images_per_gpu, accumulation=accumulation)
    loader.seed = seed
    proposals: Proposals = {}
    image_ids: list[int] = []
    propose = detector.rpn.propose

    def note_images(module: torch.nn.Module, args: tuple[ImageBatch]) -> None:
        image_ids[:] = args[0].image_ids

    def proposed(*args: object) -> list[Tensor]:
        found = propose(*args) if given is None else [given[image] for image in image_ids]
        proposals.update(zip(image_ids, found, strict=True))
        return found

    detector.register_forward_pre_hook(note_images)
    detector.rpn.propose = proposed
    step = next(iter(loader.epoch(seed)))
    model = data_parallel(detector)
    accumulate_gradients(model, step, NamedSums(), batch=BATCH, device=torch.device("cpu"), bf16=False)
    return {name: p.grad.double() for name, p in detector.named_parameters()}, proposals


def step_on(layout: tuple[int, int, int], root: Path, seed: int, bn_size: int, given: Proposals | None = None):
    ranks, images_per_gpu, accumulation = layout
    return run_ranks(ranks, gradients_of_a_step, root, seed, bn_size, images_per_gpu, accumulation, given)[0]


@pytest.mark.parametrize("bn_size", BN_SIZES)
@pytest.mark.parametrize(("images", "seed"), [("own size", 0), ("own size", 1), ("resized", 2)])
def test_a_steps_gradients_are_float64s_to_1e_5_on_every_layout(
    images: str, seed: int, bn_size: int, shapes_root: Path, resized_root: Path
) -> None:
    root = {"own size": shapes_root, "resized": resized_root}[images]
    found = {layout: step_on(layout, root, seed, bn_size) for layout in LAYOUTS if bn_size <= layout[0] * layout[1]}
    exact, _ = step_on(WHOLE, root, seed, bn_size, given=found[WHOLE][1])
    for layout, (gradients, _) in found.items():
        assert gradients.keys() == exact.keys()
        for name, wanted in exact.items():
            error = ((gradients[name] - wanted).abs().max() / wanted.abs().max()).item()
            assert error < BOUND, (layout, name, error)

"""The real training loop on batches that are given: what the parts time and compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from benchmarks.gpu.found import Bench
from benchmarks.sample import NUM_CLASSES, sample
from megdet.data.batch import ImageBatch, TrainingStep
from megdet.model.detector import Detector, build_detector
from megdet.model.norms import norm_layers
from megdet.model.settings import EvaluationSettings, ModelSettings
from megdet.training.distributed import Ranks
from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.precision import use_precision
from megdet.training.totals import EpochTotals, Step

LR = 1e-3


@contextmanager
def alone(bench: Bench) -> Iterator[Ranks]:
    """This process as the only rank: NCCL on a GPU."""
    with Ranks(0, 0, 1, bench.device) as ranks:
        yield ranks


def batch_of(bench: Bench, images: int) -> ImageBatch:
    """A batch as the loader gives it."""
    batch = sample(images, *bench.image_size)
    if bench.on_gpu:
        batch.images = batch.images.pin_memory()
    return batch


def detector_of(bench: Bench, model: ModelSettings, *, bn_size: int, sublinear: bool | str = False) -> Detector:
    """On the device; `bn_size` 0: frozen BN."""
    detector = build_detector(
        model,
        EvaluationSettings(),
        num_classes=NUM_CLASSES,
        norm=norm_layers(model, bn_size=bn_size, group=None),
        sublinear=sublinear,
        seed=0,
    )
    return detector.to(bench.device)


class Trainer:
    """A detector and its optimizer; each call of `steps` goes on where the last one ended."""

    def __init__(self, detector: Detector, bench: Bench, *, precision: str) -> None:
        self.detector, self.bench = detector, bench
        self.bf16 = use_precision(precision)
        self.model = data_parallel(detector)
        trained = [p for p in detector.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.9, weight_decay=1e-4)
        self.losses: list[float] = []
        """Of each step so far."""

    def steps(self, batches: Iterable[ImageBatch]) -> list[float]:
        """Train one step on each batch; the seconds of each."""
        seconds: list[float] = []
        batches = list(batches)

        def on_step(step: Step, taken_s: float) -> None:
            self.losses.append(step.loss)
            seconds.append(taken_s)

        train_epoch(
            self.model,
            (TrainingStep([[batch]]) for batch in batches),
            optimizer=self.optimizer,
            lr_at=lambda step: LR,
            first_step=len(self.losses),
            batch=len(batches[0]),
            device=self.bench.device,
            bf16=self.bf16,
            clip_grad_norm=None,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: False,
            on_step=on_step,
        )
        wait(self.bench)
        return seconds


def trainer_of(
    bench: Bench,
    *,
    images: int,
    precision: str,
    frozen: bool,
    model: ModelSettings | None = None,
    sublinear: bool | str = False,
) -> Trainer:
    """Of the paper's detector with frozen BN, or CGBN over the `images` of a pass."""
    bn_size = 0 if frozen else images
    detector = detector_of(bench, model or bench.model(), bn_size=bn_size, sublinear=sublinear)
    return Trainer(detector, bench, precision=precision)


def wait(bench: Bench) -> None:
    """Until the GPU has done all it was asked to."""
    if bench.on_gpu:
        torch.cuda.synchronize()


def forget_peak(bench: Bench) -> None:
    """Before the peak of a case is counted."""
    if bench.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(bench: Bench) -> float:
    """The most memory allocated on the GPU since `forget_peak`, 2^30 bytes; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if bench.on_gpu else 0.0


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def largest_difference(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest difference of any tensor, relative to the largest value of that tensor; and whose it is."""
    return max(_differences(found, wanted))


def _differences(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> Iterator[tuple[float, str]]:
    for name, value in wanted.items():
        exact = value.double()
        yield ((found[name].double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30)).item(), name

"""Two training steps in float64 on a layout, by processes that stand in for GPUs: what `check_equivalence` compares."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from megdet.config.schema import Config
from megdet.data.batch import ImageBatch, TrainingStep
from megdet.data.data_set import read_data
from megdet.errors import UserError
from megdet.planning.plan import Plan, make_plan
from megdet.training.assemble import detector_of, learning_rate_of, loaders_of, optimizer_of
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import Ranks
from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.state import TrainingState
from megdet.training.totals import EpochTotals, Step

STEPS = 2
STATES = "states.pt"
TIMEOUT = timedelta(minutes=5)

State = dict[str, Tensor]
"""Weights and running statistics by name."""


@dataclass(frozen=True)
class Case:
    """One way to take the same steps."""

    name: str
    gpus: int
    images_per_gpu: int
    sublinear: bool = False
    resumed: bool = False
    """Stopped after the first step, with all that is left of it in a checkpoint."""


class StandIns:
    """Processes that stand in for GPUs, kept from one case to the next; a context manager."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers = [ProcessPoolExecutor(1, mp_context=context) for _ in range(number)]

    def __enter__(self) -> StandIns:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.shutdown()

    def take(self, config: Config, case: Case, folder: Path, *, seed: int) -> tuple[State, State]:
        """All weights and running statistics before and after the steps, as the first rank has them."""
        folder.mkdir()
        config = deepcopy(config)
        config.gpus, config.images_per_gpu, config.sublinear = case.gpus, case.images_per_gpu, case.sublinear
        plan = make_plan(config)
        of_case = self._workers[: case.gpus]
        futures = [
            worker.submit(_two_steps_of, plan, case, rank, folder, 1000 * seed + rank)
            for rank, worker in enumerate(of_case)
        ]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for error in filter(None, (future.exception() for future in done)):
            if isinstance(error, UserError):
                raise error
            raise UserError(
                f"{case.name}: {type(error).__name__}: {' '.join(str(error).split())}; the check runs in float64: a "
                "part takes its dtype from what it is given"
            ) from error
        before, after = torch.load(folder / STATES, weights_only=True)
        return before, after


def _two_steps_of(plan: Plan, case: Case, rank: int, folder: Path, seed: int) -> None:
    """One rank of a case; the first leaves what it came to in the folder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    with _joined(rank, case.gpus, folder) as ranks:
        states = _two_steps(plan, case, ranks, folder)
        if rank == 0:
            torch.save(states, folder / STATES)


@contextmanager
def _joined(rank: int, world_size: int, folder: Path) -> Iterator[Ranks]:
    """The process group of a case, met over a file."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size, timeout=TIMEOUT
    )
    try:
        yield Ranks(rank, rank, world_size, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def _two_steps(plan: Plan, case: Case, ranks: Ranks, folder: Path) -> tuple[State, State]:
    loader, _ = loaders_of(plan, ranks, read_data(plan.config.data, masks=plan.config.model.reads_masks))
    learning_rate = learning_rate_of(plan)
    detector = detector_of(plan, ranks, pretrained=False).double()
    optimizer = optimizer_of(plan, detector)
    before = _state_of(detector)
    stops = [1, STEPS] if case.resumed else [STEPS]
    done = 0
    for stop in stops:
        if done:
            torch.manual_seed(12345)
            detector = detector_of(plan, ranks, pretrained=False).double()
            optimizer = optimizer_of(plan, detector)
            checkpoint = Checkpoint.read(folder / "checkpoint.pt", ranks.device)
            assert checkpoint is not None, "written below"
            checkpoint.restore(detector, optimizer)
        train_epoch(
            data_parallel(detector),
            map(_in_float64, islice(loader.epoch(0, first_step=done), stop - done)),
            optimizer=optimizer,
            lr_at=learning_rate.lr_at,
            first_step=done,
            batch=plan.config.batch,
            device=ranks.device,
            bf16=False,
            clip_grad_norm=plan.config.optimizer.clip_grad_norm,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: False,
            on_step=_pass,
        )
        done = stop
        if ranks.rank == 0:
            state = TrainingState(step=done)
            Checkpoint.of(plan.run_id, detector, optimizer, state).write(folder / "checkpoint.pt")
    return before, _state_of(detector)


def _pass(step: Step, seconds: float) -> None: ...


def _in_float64(step: TrainingStep) -> TrainingStep:
    return TrainingStep([[_boxes_in_float64(images) for images in one_pass] for one_pass in step.passes])


def _boxes_in_float64(images: ImageBatch) -> ImageBatch:
    return replace(images, boxes=[boxes.double() for boxes in images.boxes])


def _state_of(detector: torch.nn.Module) -> State:
    """Weights and running statistics, without counters of batches."""
    state: Mapping[str, Tensor] = detector.state_dict()
    return {name: value.clone() for name, value in state.items() if value.is_floating_point()}

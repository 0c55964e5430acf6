"""A run that has trained, opened again in one process to be looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from megdet.data.batch import ImageBatch
from megdet.data.data_set import read_data
from megdet.data.sampler import padding_group
from megdet.errors import UserError
from megdet.planning.plan import config_in, make_plan
from megdet.runs.folder import RunFolder
from megdet.tracking.mirror import mirror
from megdet.training.assemble import detector_of, loaders_of
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import Ranks
from megdet.training.precision import use_precision


class TrainedRun:
    """The detector of a run's last checkpoint, its plan laid out on one GPU, and its loaders.

    The run need not be over: `step` and `epoch` (with its fraction) say how far its weights are trained.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError where the folder is no run's, or has no checkpoint yet."""
        folder = RunFolder(path.absolute())
        if not folder.exists:
            raise UserError(f"{path} is no run folder: it has no plan.json; name one of runs/")
        asked = config_in(folder.plan.read_text())
        cluster = replace(asked.cluster, nodes=1, gpus_per_node=1, max_images_per_gpu=None)
        self.folder = folder
        group = padding_group(batch=asked.batch, bn_size=asked.bn_size)
        self.plan = make_plan(replace(asked, gpus=1, images_per_gpu=group, cluster=cluster))
        self.ranks = replace(Ranks.from_environment(), rank=0, local_rank=0, world_size=1)
        checkpoint = Checkpoint.read(folder.checkpoint, self.ranks.device)
        if checkpoint is None:
            raise UserError(f"{path} has no checkpoint.pt yet; let the run reach the end of an epoch")
        self.step = checkpoint.state.step
        self.epoch = round(self.step / self.plan.schedule.steps_per_epoch, 4)
        self.bf16 = use_precision(self.plan.config.precision)
        self.train_loader, self.eval_loader = loaders_of(self.plan, self.ranks, read_data(self.plan.config.data))
        self.detector = detector_of(self.plan, self.ranks, pretrained=False)
        self.detector.load_state_dict(checkpoint.model)

    @property
    def title(self) -> str:
        """The run's name, and the epoch of its weights where training has not come to its end."""
        epochs = self.plan.schedule.epochs
        return self.folder.name + (f", epoch {self.epoch:g} of {epochs}" if self.epoch < epochs else "")

    def record(self, name: str, found: Mapping[str, object]) -> None:
        """Leave what was found in the run folder's file `name`, with the step and epoch of the weights.

        MLflow gets it where the run is tracked; where it does not take it, that is a warning.
        """
        self.folder.write_study(name, {"step": self.step, "epoch": self.epoch, **found})
        tracking = self.plan.config.tracking
        if tracking.enabled and tracking.uri:
            mirror(self.folder, tracking.uri, tracking.experiment)

    def bn_batches(self, number: int) -> Iterator[tuple[int, ImageBatch]]:
        """The first `number` BN batches of training (pairs where BN is frozen), each with its epoch, from 0 on."""
        left = number
        for epoch in count():
            for step in self.train_loader.epoch(epoch):
                for batch in step.image_batches:
                    if not left:
                        return
                    left -= 1
                    yield epoch, batch

"""A trained run with the data that it learned from, to be looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from megdet.data.batch import ImageBatch
from megdet.data.data_set import read_data
from megdet.tracking.mirror import mirror
from megdet.tracking.moved import uri_here
from megdet.trained.run import TrainedRun
from megdet.training.assemble import loaders_of


class StudiedRun(TrainedRun):
    """Adds its loaders, on one GPU, and a place for what is found."""

    def __init__(self, path: Path | str) -> None:
        """Raises UserError where there is no trained run, or its data is not at hand."""
        super().__init__(path)
        config = self.plan.config
        data_set = read_data(config.data, masks=config.model.reads_masks)
        self.train_loader, self.eval_loader = loaders_of(self.plan, self.ranks, data_set)

    def record(self, name: str, found: Mapping[str, object]) -> None:
        """Leave what was found in the run folder's file `name`, with the step and epoch of the weights.

        MLflow gets it where the run is tracked; where it does not take it, that is a warning.
        """
        self.folder.write_study(name, {"step": self.step, "epoch": self.epoch, **found})
        tracking = self.plan.config.tracking
        if tracking.enabled and tracking.uri:
            mirror(self.folder, uri_here(self.folder.path, tracking.uri), tracking.experiment)

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

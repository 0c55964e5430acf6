"""A run that has trained, opened again in one process: its plan, its classes, and the detector of its last checkpoint.

In a notebook:

    import megdet

    run = megdet.load("runs/b16-bn16-normal-s0-03477b13")
    run.epochs["mmAP"]
    found = run.predict("holiday-pictures")
    found[0].picture()
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from megdet.errors import UserError
from megdet.model.detector import Detector
from megdet.planning.plan import config_in, make_plan
from megdet.runs.classes import Classes
from megdet.runs.data_places import located
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.run_files import CHECKPOINT, CLASSES
from megdet.trained.figure import figure_of
from megdet.trained.images import images_at
from megdet.trained.predictions import Predictions, detect_in
from megdet.trained.scores import Scores, score_on
from megdet.trained.views import views_of
from megdet.training.assemble import detector_of
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import Ranks
from megdet.training.precision import use_precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAIR = 2
"""Images in a pass where BN is frozen; elsewhere it is a BN batch."""


class TrainedRun:
    """A run of which there is a checkpoint; nothing here needs the data that it learned from.

    The run need not be over: `step` and `epoch` (with its fraction) say how far its weights are trained. The detector
    is on a GPU where there is one.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises UserError where the folder is no run's, or has no checkpoint yet."""
        folder = RunFolder(Path(path).absolute())
        if not folder.exists:
            raise UserError(f"{path} is no run folder: it has no plan.json; name one of runs/")
        asked = located(config_in(folder.plan.read_bytes()), folder)
        cluster = replace(asked.cluster, nodes=1, gpus_per_node=1, max_images_per_gpu=None, gpu_memory_gb=None)
        self.folder = folder
        images = asked.bn_size or math.gcd(asked.batch, PAIR)
        self.plan = make_plan(replace(asked, gpus=1, images_per_gpu=images, cluster=cluster))
        """Laid out on one GPU, whatever the run was trained on."""
        self.ranks = replace(Ranks.from_environment(), rank=0, local_rank=0, world_size=1)
        checkpoint = Checkpoint.read(folder.checkpoint, self.ranks.device)
        if checkpoint is None:
            state = folder.state()
            if state and state.status.is_result:
                raise UserError(
                    f"{path} has no {CHECKPOINT} any more, and without it no weights; put the file back, or train the "
                    "run anew with sweep.on_existing=force"
                )
            raise UserError(f"{path} has no {CHECKPOINT} yet; let the run reach the end of an epoch")
        self.step = checkpoint.state.step
        self.epoch = round(self.step / self.plan.schedule.steps_per_epoch, 4)
        self.bf16 = use_precision(self.plan.config.precision)
        self.detector: Detector = detector_of(self.plan, self.ranks, pretrained=False).eval()
        self.detector.load_state_dict(checkpoint.trained)

    def __repr__(self) -> str:
        config = self.plan.config
        last = "" if self.epochs.empty else f", mmAP {self.epochs['mmAP'].iloc[-1]:.1f}"
        return f"<{self.title}: {config.model.name} on {config.data.name}{last}>"

    @property
    def name(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The run's name, and the epoch of its weights where training has not come to its end."""
        epochs = self.plan.schedule.epochs
        return self.name + (f", epoch {self.epoch:g} of {epochs}" if self.epoch < epochs else "")

    @property
    def has_masks(self) -> bool:
        """Whether its detector finds masks too."""
        return self.plan.config.model.mask.name is not None

    @cached_property
    def classes(self) -> Classes:
        """What its detector tells apart. Raises UserError where an older megdet trained it."""
        classes = self.folder.classes()
        if classes is None:
            raise UserError(
                f"{self.folder.path} has no {CLASSES}: a megdet that did not keep class names trained it. Write the "
                'list `categories` of its annotation file there: {"categories": [{"id": 1, "name": "cup"}, ...]}'
            )
        return classes

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row for each epoch done, by its number: COCO's numbers in percent, `loss`, `lr`, `train_s`, ..."""
        return self._lines("epoch").set_index("epoch")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row for each step that was logged, by its number: `epoch` (a fraction), `loss`, `lr`, ..."""
        return self._lines("step").set_index("step")

    def _lines(self, kind: str) -> pd.DataFrame:
        lines = read_journal(self.folder, kinds=(kind,))
        return pd.DataFrame(lines, columns=None if lines else [kind]).drop(columns=["kind", "time"], errors="ignore")

    def plot(self) -> Figure:
        """Its training loss and its mmAP over the epochs."""
        schedule = self.plan.config.schedule
        return figure_of(self.title, self.steps, self.epochs, planned_epochs=schedule.epochs, drops=schedule.milestones)

    def predict(
        self,
        images: Path | str | Iterable[Path | str],
        *,
        score: float | None = None,
        sizes: Sequence[int] = (),
        flip: bool = False,
    ) -> Predictions:
        """What the detector finds in image files, or in those of a folder and the folders below it.

        `score`: leave out what it is less sure of; None: the run's `eval.score_threshold` (0.05, as COCO wants it).
        `sizes`, `flip`: look at each image several times (`megdet.trained.views.views_of`).

        Raises:
            UserError: where no image can be read, or a size makes no sense; single images are named in
                `Predictions.unreadable`.
        """
        return detect_in(self, images_at(images), score=score, views=views_of(sizes, flip=flip))

    def evaluate(
        self, annotations: Path | str, images: Path | str, *, sizes: Sequence[int] = (), flip: bool = False
    ) -> Scores:
        """COCO's numbers on any annotated images whose classes the detector knows; `sizes`, `flip` as in `predict`.

        Raises:
            UserError: where the annotation file is not what it should be, or has classes that the detector was not
                trained for, or no image can be read.
        """
        return score_on(self, Path(annotations), Path(images), views=views_of(sizes, flip=flip))


def load(path: Path | str) -> TrainedRun:
    """The run of a run folder, to be looked into and used. Raises UserError where it has no checkpoint."""
    return TrainedRun(path)

"""Several trained runs as one detector: what each finds is fused, and scored like one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdet.errors import UserError
from megdet.trained.fusion import METHODS, fuse
from megdet.trained.run import TrainedRun
from megdet.trained.scores import Scores, annotations_at, found_for, scores_of
from megdet.trained.views import AS_TRAINED, Advance, View
from megdet.training.evaluate import Found

NAME = "ensemble"


@dataclass(frozen=True)
class Ensemble:
    """What several runs are worth, each alone and together."""

    members: tuple[Scores, ...]
    together: Scores
    rows: NDArray[np.float64]
    """Of all together, as `megdet.training.evaluate.detect` has them."""

    @property
    def beats_its_members(self) -> bool:
        """Whether its mmAP is above that of each member."""
        own = self.together.metrics["mmAP"] or 0.0
        return all(own > (member.metrics["mmAP"] or 0.0) for member in self.members)


def score_ensemble(
    folders: Sequence[Path],
    file: Path,
    images: Path,
    *,
    method: str = "wbf",
    iou: float | None = None,
    views: Sequence[View] = AS_TRAINED,
    advance: Callable[[str], Advance] | None = None,
) -> Ensemble:
    """The runs in `folders` on annotated images, one after the other (one detector is in memory at a time).

    `method` and `iou` are those of `megdet.trained.fusion.fuse`; `advance(name)` is asked for each run's progress.
    Raises UserError where there are fewer than two runs, the runs tell other classes apart, or as
    `TrainedRun.evaluate` does.
    """
    if len(folders) < 2:
        raise UserError(f"an ensemble is of at least two runs; {len(folders)} is named")
    if method not in METHODS:
        raise UserError(f"method {method}: use one of {', '.join(METHODS)}")
    if iou is not None and not 0 < iou < 1:
        raise UserError(f"iou {iou:g}: use a number between 0 and 1")
    annotations = annotations_at(file, images)
    members, found, most = [], [], 0
    unreadable: dict[str, str] = {}
    classes: dict[tuple[str, ...], str] = {}
    for folder in folders:
        run = TrainedRun(folder)
        classes.setdefault(tuple(sorted(run.classes.names)), run.name)
        if len(classes) > 1:
            raise UserError(f"{' and '.join(classes.values())} tell other classes apart; an ensemble needs the same")
        own, unreadable = found_for(
            run, annotations, images, views=views, advance=advance(run.name) if advance else None
        )
        members.append(scores_of(run.name, annotations, own, unreadable))
        found.append(own.rows)
        most = max(most, run.plan.config.eval.detections_per_image)
    fused = fuse(found, method=method, iou=iou, most=most)
    return Ensemble(tuple(members), scores_of(NAME, annotations, Found(fused), unreadable), fused)

"""What other batches would need for what a run has learned: epochs, steps, hours and GPU-hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.critical_batch import Estimate, Progress
from megdet.planning.plan import make_plan
from megdet.runs.prediction import NOT_KNOWN, Predictor
from megdet.sweep.branches import at_batch


@dataclass(frozen=True)
class BatchNeeds:
    """What a batch needs for what the run has gained; None where it is not known, and `why` says why."""

    batch: int
    epochs: Estimate
    """In images, over those of one epoch."""
    steps: float
    gpus: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    predicted_from: str | None = None
    why: str = ""


def needs_of(
    batches: Sequence[int], progress: Progress, config: Config, runs: Path, *, epochs: int
) -> list[BatchNeeds]:
    """`epochs`: that the progress was made in; hours are those of a whole run, as far as such epochs go."""
    predictor = Predictor(runs)
    images = (config.data.train_images or 0) // config.batch * config.batch
    found = []
    for batch in batches:
        needed = progress.images(batch)
        error = None if needed.error is None else needed.error / images
        row = BatchNeeds(batch, Estimate(needed.value / images, error), needed.value / batch)
        try:
            plan = make_plan(at_batch(config, batch))
        except UserError as error:
            found.append(replace(row, why=str(error)))
            continue
        predicted = predictor.predict(plan)
        if predicted is None:
            found.append(replace(row, gpus=plan.layout.gpus, why=NOT_KNOWN))
            continue
        share = row.steps / plan.schedule.steps
        found.append(
            replace(
                row,
                gpus=plan.layout.gpus,
                hours=predicted.hours * share,
                gpu_hours=predicted.gpu_hours * share,
                predicted_from=predicted.source,
            )
        )
    return found

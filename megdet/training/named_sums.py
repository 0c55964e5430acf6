"""The losses and counts of a step by the detector's own names, summed over passes and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from megdet.errors import UserError
from megdet.model.output import TrainingOutput
from megdet.runs.journal import NOISE_SCALE, OWN_COLUMNS
from megdet.settings.rules import Name, shown
from megdet.training.distributed import sum_over_ranks


@dataclass(frozen=True)
class Names:
    """The names that a detector reports, in order."""

    losses: tuple[str, ...]
    counts: tuple[str, ...]

    def __str__(self) -> str:
        return f"losses {', '.join(self.losses) or '-'}; counts {', '.join(self.counts) or '-'}"


@dataclass(frozen=True)
class StepReport:
    """Sums over all ranks and all passes of one optimizer step."""

    losses: dict[str, float]
    counts: dict[str, float]
    stop_requested: bool
    """Whether any rank was told to stop."""


class NamedSums:
    """Adds up what the detector reports of the step under way, in one small tensor on its device.

    The first pass decides the names; from then on every pass on every rank must have the same.
    """

    def __init__(self) -> None:
        self._names: Names | None = None
        self._same_on_all_ranks = False
        self._sums: Tensor | None = None

    def add(self, output: TrainingOutput) -> None:
        """Add one pass.

        Raises:
            ValueError: where a name is there twice, or the names are not those of the passes before.
            UserError: where a name is none, or the journal's own.
        """
        names = Names(tuple(output.losses), tuple(output.counts))
        if self._names is None:
            if twice := output.losses.keys() & output.counts.keys():
                raise ValueError(f"the detector reports {', '.join(sorted(twice))} as a loss and as a count")
            _check_names(names)
            self._names = names
        if names != self._names:
            raise ValueError(_differ("an earlier pass", self._names, "this one", names))
        with torch.no_grad():
            values = torch.stack([*output.losses.values(), *output.counts.values()])
        self._sums = values if self._sums is None else self._sums + values

    def over_ranks(self, *, stop_requested: bool) -> StepReport:
        """The sums of the step over all ranks, which the host waits for; then those of the next step begin.

        One small all-reduce carries the numbers and whether anybody was told to stop.

        Raises:
            ValueError: on every rank, where the ranks do not report the same names.
        """
        assert self._names is not None and self._sums is not None, "a step has at least one pass"
        if not self._same_on_all_ranks:
            _check_same_on_all_ranks(self._names)
            self._same_on_all_ranks = True
        report = torch.cat([self._sums, self._sums.new_full((1,), float(stop_requested))])
        self._sums = None
        *values, stops = sum_over_ranks(report).tolist()
        num_losses = len(self._names.losses)
        return StepReport(
            losses=dict(zip(self._names.losses, values[:num_losses], strict=True)),
            counts=dict(zip(self._names.counts, values[num_losses:], strict=True)),
            stop_requested=stops > 0,
        )


def _check_names(names: Names) -> None:
    for name in (*names.losses, *names.counts):
        if instead := Name().instead_of(name):
            raise UserError(f"the detector reports {shown(name)}: call it {instead}")
        if name in OWN_COLUMNS or name.endswith("_ratio_percent") or name.startswith(NOISE_SCALE):
            raise UserError(f"the detector reports {name}, which the journal has a column of its own for; rename yours")


def _check_same_on_all_ranks(names: Names) -> None:
    of_rank: list[Names | None] = [None] * dist.get_world_size()
    dist.all_gather_object(of_rank, names)
    for rank, theirs in enumerate(of_rank):
        if theirs != of_rank[0]:
            raise ValueError(_differ("rank 0", of_rank[0], f"rank {rank}", theirs))


def _differ(here: str, names: Names | None, there: str, others: Names | None) -> str:
    return (
        f"the detector reports ({names}) in {here} and ({others}) in {there}; it must report the same names in the "
        "same order in every pass, with 0 where there is nothing"
    )

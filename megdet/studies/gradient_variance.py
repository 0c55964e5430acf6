"""Does the variance of the gradient fall as 1/k (paper Eq. 2-4), module by module, on a real run?

    python -m megdet.studies.gradient_variance runs/<run_id> --batches 64

Takes the run's last weights and the gradients of its own BN batches (`bn_size` images each, pairs where BN is frozen):
those that a training step accumulates. Var(mean of k gradients), over disjoint groups of k, is compared with
Var(gradient) / k. Eq. 2 says they are equal if the gradients of the samples are independent and alike.

Groups are of one epoch each and deviations are from the epoch's own mean: no image comes twice in an epoch, and then
the ratio of the two is not changed by how small the data set is. The standard error is the jackknife's
over the groups (`megdet.studies.jackknife`).

Runs in one process, on a GPU if there is one. Prints a table and leaves `gradient_variance.json` in the run folder
and MLflow; `python analysis/make_tables.py --table variance` shows it for all runs, averaged over seeds.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor

from megdet.data.batch import ImageBatch
from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector
from megdet.runs.run_files import GRADIENT_VARIANCE
from megdet.studies.jackknife import Projection, ratio_error
from megdet.studies.studied_run import StudiedRun
from megdet.training.modules import modules_of

GROUPS = (1, 2, 4, 8, 16)
"""k: gradients in a mean."""
ALL = "all"
FEWEST = 6
"""Gradients: three groups of two."""


class GroupMeans:
    """The variance of means of k vectors within their epochs, from a stream of vectors, in memory for two of them."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.degrees = 0
        """Of freedom: groups, less one for each epoch."""
        self._squares = 0.0
        self._new_epoch()

    def _new_epoch(self) -> None:
        self._epoch_groups, self._epoch_squares = 0, 0.0
        self._total: Tensor | None = None
        self._partial: Tensor | None = None
        self._in_partial = 0

    def add(self, vector: Tensor) -> None:
        """Add the next vector of the epoch; every k of them form a group."""
        self._partial = vector.clone() if self._partial is None else self._partial + vector
        self._in_partial += 1
        if self._in_partial == self.k:
            mean = self._partial / self.k
            self._total = mean if self._total is None else self._total + mean
            self._epoch_squares += float(mean.double().square().sum())
            self._epoch_groups += 1
            self._partial, self._in_partial = None, 0

    def end_epoch(self) -> None:
        """Drop the vectors that do not fill a group."""
        if self._epoch_groups > 1 and self._total is not None:
            centre = float((self._total / self._epoch_groups).double().square().sum())
            self._squares += self._epoch_squares - self._epoch_groups * centre
            self.degrees += self._epoch_groups - 1
        self._new_epoch()

    def variance(self) -> float | None:
        """Sum over the coordinates of the unbiased variance; None where no epoch has two groups."""
        return self._squares / self.degrees if self.degrees else None


def variances(gradients: Iterable[tuple[int, Mapping[str, Tensor]]]) -> dict[str, dict[int, dict[str, float]]]:
    """For each module, and for all together, what is known of the mean of k gradients: variance, ratio and error.

    `gradients` are flat vectors by module with their epoch. `ratio` is k times the variance over that of one gradient,
    `error` its standard error. A k of too few groups to tell its error (three in one epoch) is left out. UserError
    where the gradients are too few or all the same.
    """
    means: dict[str, dict[int, GroupMeans]] = {}
    projections: dict[str, Projection] = {}
    projected: dict[str, list[list[Tensor]]] = {}
    epoch_before = None
    for epoch, gradient in gradients:
        if epoch != epoch_before:
            _end_epoch(means)
        for module, vector in gradient.items():
            for group in means.setdefault(module, {k: GroupMeans(k) for k in GROUPS}).values():
                group.add(vector)
            if module not in projections:
                projections[module], projected[module] = Projection(len(vector)), []
            if epoch != epoch_before:
                projected[module].append([])
            projected[module][-1].append(projections[module](vector))
        epoch_before = epoch
    _end_epoch(means)
    of_module = {
        module: {k: value for k, group in groups.items() if (value := group.variance()) is not None}
        for module, groups in means.items()
    }
    if not any(by_k.get(1) for by_k in of_module.values()):
        raise UserError("the gradients are all the same: nothing is trained here, or there are too few of them")
    # The modules' coordinates together are all coordinates, so their sums add up.
    first = next(iter(of_module.values()))
    of_module[ALL] = {k: sum(by_k[k] for by_k in of_module.values()) for k in first}
    vectors = {module: [torch.stack(epoch) for epoch in epochs] for module, epochs in projected.items()}
    vectors[ALL] = [torch.cat(parts, dim=1) for parts in zip(*vectors.values(), strict=True)]
    return {module: _ratios(by_k, vectors[module]) for module, by_k in of_module.items()}


def _end_epoch(means: Mapping[str, Mapping[int, GroupMeans]]) -> None:
    for groups in means.values():
        for group in groups.values():
            group.end_epoch()


def _ratios(by_k: Mapping[int, float], vectors: list[Tensor]) -> dict[int, dict[str, float]]:
    found = {}
    for k, variance in by_k.items():
        error = ratio_error(vectors, k) if k > 1 else 0.0
        if not math.isnan(error):
            found[k] = {"variance": variance, "ratio": k * variance / by_k[1], "error": error}
    return found


def gradients_of(
    detector: Detector, batches: Iterable[tuple[int, ImageBatch]], device: torch.device, *, bf16: bool = False
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The gradient of the mean loss of each batch, as a float32 vector for each module, with the batch's epoch.

    The modules (`modules_of`) together have all parameters that are trained.
    """
    detector.train()
    modules = modules_of(detector)
    for epoch, batch in batches:
        detector.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = detector(batch.to(device))
        (sum(output.losses.values(), start=torch.zeros((), device=device)) / len(batch)).backward()
        gradient = {
            module: torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
            for module, parameters in modules.items()
        }
        for layer in detector.modules():
            if isinstance(layer, CrossGPUBatchNorm2d):
                layer.take_step_statistics()  # nobody else will
        yield epoch, gradient


def verdict(found: Mapping[int, Mapping[str, float]]) -> str:
    """A sentence on whether the variance falls as 1/k: at the largest k, within two standard errors."""
    k = max(found)
    ratio, error = found[k]["ratio"], found[k]["error"]
    measured = f"at k = {k}, k x Var(mean) / Var is {ratio:.2f} ± {error:.2f}"
    if k == 1:
        return "Nothing can be said of k > 1 with so few gradients; ask for more with --batches."
    if abs(ratio - 1) > 2 * error:
        return f"Var(grad) does not fall as 1/k: {measured}, more than two standard errors from 1."
    if error > 0.25:
        return f"Too few gradients to tell whether Var(grad) falls as 1/k: {measured}; take more with --batches."
    return f"Var(grad) falls as 1/k within what can be told: {measured}."


def main() -> int:
    """Print and record the table of one run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m megdet.studies.gradient_variance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--batches", type=int, default=64, help="gradients to take (default 64)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    console = Console(stderr=True)
    try:
        if arguments.batches < FEWEST:
            raise UserError(f"--batches {arguments.batches}: a variance needs {FEWEST} gradients or more")
        run = StudiedRun(arguments.run)
        batches = track(
            run.bn_batches(arguments.batches), "gradients", total=arguments.batches, console=console, transient=True
        )
        found = variances(gradients_of(run.detector, batches, run.ranks.device, bf16=run.bf16))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    study: dict[str, Any] = {"batches": arguments.batches, "k": list(found[ALL]), "modules": found}
    run.record(GRADIENT_VARIANCE, study)
    columns = ("module", "Var", *(f"k = {k}" for k in study["k"][1:]))
    table = Table(*(Column(name, no_wrap=True) for name in columns), title=run.title, box=SIMPLE, padding=(0, 1, 0, 0))
    for module, by_k in found.items():
        ratios = [f"{one['ratio']:.2f} ± {one['error']:.2f}" for k, one in by_k.items() if k > 1]
        table.add_row(module, f"{by_k[1]['variance']:.3g}", *ratios)
    Console().print(table)
    print("Var: of the gradient. k: k x Var(mean of k gradients) / Var, ± standard error; Eq. 2 says 1.")
    print(verdict(found[ALL]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

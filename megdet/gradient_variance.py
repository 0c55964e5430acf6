"""Does the variance of the gradient fall as 1/k (paper Eq. 2-4), module by module, on a real run?

    python -m megdet.gradient_variance runs/<run_id> --batches 64

Takes the run's last weights and the gradients of its own BN batches (`bn_size` images each, pairs where BN is frozen),
as a training step makes them. The variance of the mean of k of them, over disjoint groups of k, is compared with 1/k of
the variance of a single one. Eq. 2 says they are equal if the gradients of the samples are independent and alike. In
an epoch no image comes twice, which lowers the variance of means over a good part of a small data set.

Runs in one process, on a GPU if there is one. Prints a table and leaves `gradient_variance.json` in the run folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from megdet.batch import ImageBatch
from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector
from megdet.tracking.journal import replace_file
from megdet.trained import TrainedRun

GROUPS = (1, 2, 4, 8, 16)
"""k: gradients in a mean."""
MODULES = ("backbone.body", "backbone.fpn", "rpn", "roi_heads")


class GroupMeans:
    """The variance of means of k vectors, from a stream of vectors, in memory for two vectors."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.groups = 0
        self._partial: Tensor | None = None
        self._in_partial = 0
        self._total: Tensor | None = None
        self._squares = 0.0

    def add(self, vector: Tensor) -> None:
        """Take the next vector; every k of them make a group."""
        self._partial = vector.clone() if self._partial is None else self._partial + vector
        self._in_partial += 1
        if self._in_partial == self.k:
            mean = self._partial / self.k
            self._total = mean if self._total is None else self._total + mean
            self._squares += float(mean.double().square().sum())
            self.groups += 1
            self._partial, self._in_partial = None, 0

    def variance(self) -> float | None:
        """Sum over the coordinates of the unbiased variance of the group means; None below two groups."""
        if self.groups < 2 or self._total is None:
            return None
        centre = float((self._total / self.groups).double().square().sum())
        return (self._squares - self.groups * centre) / (self.groups - 1)


def variances(gradients: Iterable[Mapping[str, Tensor]]) -> dict[str, dict[int, float | None]]:
    """For each module and each k the variance of the mean of k gradients (flat vectors by module)."""
    means: dict[str, dict[int, GroupMeans]] = {}
    for gradient in gradients:
        for module, vector in gradient.items():
            for group in means.setdefault(module, {k: GroupMeans(k) for k in GROUPS}).values():
                group.add(vector)
    return {module: {k: group.variance() for k, group in groups.items()} for module, groups in means.items()}


def gradients_of(
    detector: Detector, batches: Iterable[ImageBatch], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """The gradient of the mean loss of each batch, as one float32 vector for each module and one for all."""
    detector.train()
    for batch in batches:
        detector.zero_grad()
        output = detector(batch.to(device))
        (sum(output.losses.values(), start=torch.zeros((), device=device)) / len(batch)).backward()
        parts = {
            module: torch.cat(
                [p.grad.flatten() for p in detector.get_submodule(module).parameters() if p.grad is not None]
            )
            for module in MODULES
        }
        for layer in detector.modules():
            if isinstance(layer, CrossGPUBatchNorm2d):
                layer.take_step_statistics()  # nobody else will
        yield {**parts, "all": torch.cat(list(parts.values()))}


def main() -> int:
    """Print and record the table of one run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m megdet.gradient_variance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--batches", type=int, default=64, help="gradients to take (default 64)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        run = TrainedRun(arguments.run)
        batches = run.bn_batches(arguments.batches)
        found = variances(gradients_of(run.detector, batches, run.ranks.device))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    replace_file(arguments.run / "gradient_variance.json", json.dumps(found, indent=2) + "\n")
    table = Table("module", "variance, k = 1", *(f"k = {k}" for k in GROUPS[1:]), title=arguments.run.name)
    for module, by_k in found.items():
        single = by_k[1]
        assert single is not None
        ratios = [f"{value / single * k:.2f} / {k}" if (value := by_k[k]) is not None else "-" for k in GROUPS[1:]]
        table.add_row(module, f"{single:.3g}", *ratios)
    Console().print(table)
    print("Each cell beyond the first: the variance of the mean of k gradients, over that of one. Eq. 2 says 1 / k.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

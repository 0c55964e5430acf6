"""The progress display of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from megdet.training.terminal import terminal

log = logging.getLogger("megdet")


class RunProgress:
    """The progress of one run on rank 0; says nothing on other ranks. A context manager."""

    def __init__(self, name: str, *, steps: int, log_every: int, enabled: bool) -> None:
        self._name, self._steps, self._log_every = name, steps, log_every
        self._enabled = enabled
        self._bar: Progress | None = None
        if enabled and terminal().isatty():
            self._bar = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
                console=Console(file=terminal()),
                expand=True,
                transient=True,
            )
            self._training = self._bar.add_task(name, total=steps, note="")
            self._evaluation: TaskID | None = None

    def __enter__(self) -> RunProgress:
        if self._bar:
            self._bar.start()
            _log_to(sys.stderr)  # which is the bar's now: lines go above it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            _log_to(terminal())

    def stepped(self, step: int, *, epoch: float, loss: float, lr: float, images_per_s: float) -> None:
        """One optimizer step is done."""
        if self._bar:
            note = f"epoch {epoch:.1f}  loss {loss:.2f}  {images_per_s:.1f} images/s"
            self._bar.update(self._training, completed=step, note=note)
        elif self._enabled and step % self._log_every == 0:
            note = f"epoch {epoch:.1f}  loss {loss:.3f}  lr {lr:.4g}  {images_per_s:.1f} images/s"
            log.info("%s step %d/%d  %s", self._name, step, self._steps, note)

    def evaluating(self, batches: int) -> None:
        """An evaluation of `batches` batches (of this rank) begins."""
        if self._bar:
            self._evaluation = self._bar.add_task("evaluating", total=batches, note="")

    def evaluated(self) -> None:
        """One more batch is evaluated."""
        if self._bar and self._evaluation is not None:
            self._bar.advance(self._evaluation)

    def epoch_done(self, epoch: int, *, loss: float, metrics: dict[str, float | None]) -> None:
        """`epoch` epochs are trained and evaluated; `metrics` are the COCO numbers in percent."""
        if self._bar and self._evaluation is not None:
            self._bar.remove_task(self._evaluation)
            self._evaluation = None
        if self._enabled:
            values = {name: metrics[name] for name in ("mmAP", "AP50", "mmAR", "mask_mmAP") if name in metrics}
            text = "  ".join(f"{name} {value:.1f}" for name, value in values.items() if value is not None)
            log.info("%s epoch %d done  loss %.3f  %s", self._name, epoch, loss, text)


def _log_to(stream: TextIO) -> None:
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(stream)

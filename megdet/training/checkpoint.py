"""Checkpoints: everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor, nn

from megdet.errors import UserError
from megdet.runs.files import forget_unfinished, replacing
from megdet.training.average import WeightAverage
from megdet.training.divergence import LossWatch
from megdet.training.state import TrainingState
from megdet.training.totals import EpochTotals

COMMENT = b"megdet sha256 "
COMMENT_BYTES = len(COMMENT) + 64


class DamagedCheckpoint(UserError):
    """A checkpoint file that does not hold what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint. Nothing else is needed: data and samples are functions of seed, epoch and image."""

    run_id: str
    model: dict[str, Tensor]
    """The detector's weights and running statistics, named as in its state dict."""
    optimizer: dict[str, Any]
    """The optimizer's state dict: the momenta, by number of parameter."""
    state: TrainingState
    average: dict[str, Tensor] | None = None
    """The running average of `model`, where the run has one."""

    @property
    def trained(self) -> dict[str, Tensor]:
        """What the run has learned: the average, where it has one."""
        return self.model if self.average is None else self.average

    @classmethod
    def of(
        cls,
        run_id: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        average: WeightAverage | None = None,
    ) -> Checkpoint:
        """Of a training as it stands, with references to its tensors."""
        averaged = None if average is None else average.state_dict()
        return cls(run_id, model.state_dict(), optimizer.state_dict(), state, averaged)

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None
    ) -> TrainingState:
        """Make model, optimizer and average those of the checkpoint; the state that goes with them."""
        model.load_state_dict(self.model)
        optimizer.load_state_dict(self.optimizer)
        if average is not None:
            assert self.average is not None, "the run's id says that it has one"
            average.load_state_dict(self.average)
        return self.state

    def write(self, path: Path, *, before: Callable[[], None] | None = None) -> None:
        """Replace the file at `path`, and remove what writers that were killed have left beside it.

        `before()` is called when the new file is whole and the old one is still there.
        """
        forget_unfinished(path)
        content = {
            "run_id": self.run_id,
            "model": self.model,
            "optimizer": self.optimizer,
            "state": asdict(self.state),
        }
        if self.average is not None:
            content["average"] = self.average
        write_tensors(path, content, before=before)

    @classmethod
    def read(cls, path: Path, device: torch.device, *, of_run: str | None = None) -> Checkpoint | None:
        """What `write` left at `path`, its tensors on `device`; None where there is no file.

        Raises:
            DamagedCheckpoint: where the file is not what was written.
            UserError: where another version of megdet wrote it and kept other things, or where it is not `of_run`.
        """
        if not path.exists():
            return None
        content = read_tensors(path, device)
        try:
            state = content.pop("state")
            totals, watch = EpochTotals.of(state.pop("totals")), LossWatch(**state.pop("watch"))
            checkpoint = cls(**content, state=TrainingState(**state, totals=totals, watch=watch))
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is a checkpoint of another version of megdet ({error}); go on with the version that wrote "
                "it, or begin the run anew with sweep.on_existing=force (model.backbone.weights=FILE starts from its "
                "weights)"
            ) from error
        if of_run not in (None, checkpoint.run_id):
            raise UserError(
                f"{path} is of the run {checkpoint.run_id}, not of {of_run}; move it away "
                "(model.backbone.weights=FILE starts an experiment from another run's weights)"
            )
        return checkpoint


def write_tensors(path: Path, content: dict[str, Any], *, before: Callable[[], None] | None = None) -> None:
    """Write tensors and plain values to `path`: the old file or the new one is there, never half of one.

    `before()` is called between the two. The file is what torch.save makes of `content`, a zip archive, with the
    SHA-256 of all of its bytes as the archive's comment.
    """
    with replacing(path, before=before) as file:
        digesting = _Digesting(file)
        torch.save(content, cast(IO[bytes], digesting))
        comment = COMMENT + digesting.digest.hexdigest().encode()
        # An archive ends with the length of its comment, 0 until now, and the comment.
        file.seek(-2, os.SEEK_END)
        assert file.read(2) == bytes(2), "torch.save writes no comment"
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", len(comment)) + comment)


def read_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """What `write_tensors` wrote. Raises DamagedCheckpoint where the file holds anything else."""
    try:
        _check_digest(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the system, pickle and torch raise at bytes of no sense
        lines = str(error).splitlines() or [type(error).__name__]
        raise DamagedCheckpoint(f"{path} is damaged, or no checkpoint: {lines[0]}") from error
    if not isinstance(content, dict):
        raise DamagedCheckpoint(f"{path} is no checkpoint: it holds one {type(content).__name__}")
    return content


def _check_digest(path: Path) -> None:
    """Raises ValueError where a file does not end with the check sum of its content: torch.load would not notice."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - COMMENT_BYTES - 2
        digest = hashlib.sha256()
        while left > 0 and (part := file.read(min(left, 1 << 24))):
            digest.update(part)
            left -= len(part)
        digest.update(bytes(2))
        if file.read() != struct.pack("<H", COMMENT_BYTES) + COMMENT + digest.hexdigest().encode():
            raise ValueError("its end is not the check sum of its content, which megdet writes since 0.2")


class _Digesting(io.RawIOBase):
    """Passes on what is written, and digests it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self.digest = file, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self._file.write(content)

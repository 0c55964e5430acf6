"""Training that begins from the weights of another run (`model.init_from`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from megdet.errors import UserError
from megdet.model.detector import Detector
from megdet.model.settings import ModelSettings
from megdet.runs.classes import Classes
from megdet.runs.files import short_sha256
from megdet.runs.folder import RunFolder
from megdet.training.checkpoint import Checkpoint

HEADS = (
    "backbone.large_kernel",
    "segmentation",
    "mask.head",
    "mask.predictor",
    "mask.grid",
    "mask.pixels",
    "mask.classify",
    "rpn.head",
    "roi_heads.context",
    "roi_heads.box_head",
    "roi_heads.box_predictor",
)
"""Parts that may start anew; what is below them must fit."""
PREDICTOR = HEADS[-1]
BY_CLASS = (PREDICTOR, "mask.predictor", "mask.classify", "segmentation.classify")
"""Parts whose outputs are classes: they fit only where these are the same."""
COUNTER = ".num_batches_tracked"


def start_from_run(detector: Detector, model: ModelSettings, classes: Classes) -> list[str]:
    """Give the detector the weights of `model.init_from`; the HEADS that do not fit, and so start anew.

    Raises UserError where its checkpoint is no longer that of the plan, or backbone and pyramid do not fit.
    """
    assert model.init_from is not None
    folder = RunFolder(Path(model.init_from))
    state = _state_of(folder, model.init_sha256)
    expected = detector.state_dict()
    anew = [head for head in HEADS if not _fits(head, state, expected)]
    if (known := folder.classes()) and known.names != classes.names:
        there = [part for part in BY_CLASS if any(name.startswith(f"{part}.") for name in expected)]
        anew += [part for part in there if not part.startswith(tuple(anew))]
    # Layers differ in whether they count batches, which nothing here reads.
    needed = {
        name: value
        for name, value in expected.items()
        if not name.startswith(tuple(anew)) and not name.endswith(COUNTER)
    }
    wrong = sorted(
        name for name, value in needed.items() if name not in state or state[name].shape != value.shape
    ) + sorted(
        name for name in state if name not in expected and not name.startswith(HEADS) and not name.endswith(COUNTER)
    )
    if wrong:
        raise UserError(
            f"model.init_from={folder.path} does not fit this detector: {len(wrong)} tensors of backbone and pyramid "
            f"are missing, unexpected or of another shape, such as {wrong[0]}; ask for the same model.backbone, "
            "model.fpn and model.bn_in, and for BN (bn_size) where that run has it, or leave model.init_from out"
        )
    detector.load_state_dict({**expected, **{name: state[name] for name in needed}})
    return anew


def _state_of(folder: RunFolder, sha256: str | None) -> dict[str, Tensor]:
    try:
        found = short_sha256(folder.checkpoint)
    except OSError as error:
        raise UserError(f"model.init_from={folder.path}: {folder.checkpoint} cannot be read ({error})") from error
    if found != sha256:
        raise UserError(
            f"model.init_from={folder.path}: its checkpoint is {found} now, and {sha256} was planned; launch again to "
            "begin from what is there now, or put the other back"
        )
    checkpoint = Checkpoint.read(folder.checkpoint, torch.device("cpu"))
    assert checkpoint is not None, "it has just been read"
    return checkpoint.trained


def _fits(head: str, state: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    own, theirs = (
        {name: value.shape for name, value in tensors.items() if name.startswith(f"{head}.")}
        for tensors in (expected, state)
    )
    return not own or own == theirs

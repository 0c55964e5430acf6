"""By which code, on which data and from which weights an attempt is made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from megdet.data.files import coco_files
from megdet.model.weights import path_of
from megdet.planning.plan import Plan


def made_from(plan: Plan, *, pretrained: bool) -> dict[str, str | bool]:
    """`commit`, `dirty`, `data_sha256` (of the annotations), and `weights_sha256` of the file that it began from.

    `pretrained`: whether the attempt begins from the file of `model.backbone.weights`, not from a checkpoint.
    """
    files = coco_files(plan.config.data.root)
    found: dict[str, str | bool] = {
        "commit": plan.commit,
        "dirty": plan.dirty,
        "data_sha256": _sha256_of(files.train_annotations, files.val_annotations),
    }
    backbone = plan.config.model.backbone
    weights = path_of(backbone.weights, backbone.name) if pretrained else None
    if weights:
        found["weights_sha256"] = _sha256_of(weights)
    return found


def _sha256_of(*files: Path) -> str:
    """The first 12 hex digits of the SHA-256 of the files' content, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:12]

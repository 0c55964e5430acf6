"""The code, data, weights and device of an attempt."""

from __future__ import annotations

from megdet.model.weights import path_of, sha256_of
from megdet.planning.code_version import code_sha256
from megdet.planning.plan import Plan


def made_from(plan: Plan, *, data_sha256: str, device: str, pretrained: bool) -> dict[str, str | bool]:
    """`commit`, `dirty`, `code_sha256`, `data_sha256`, `device`, and `weights_sha256` of the file that it began from.

    `data_sha256`: the data's fingerprint (`megdet.data.fingerprint`). `device`: as `megdet.training.device` names it.
    `pretrained`: whether the attempt begins from those weights, not from a checkpoint of its own.
    """
    found: dict[str, str | bool] = {"commit": plan.commit, "dirty": plan.dirty, "code_sha256": code_sha256()[:12]}
    found |= {"data_sha256": data_sha256, "device": device}
    model = plan.config.model
    if pretrained and model.init_sha256 is not None:
        found["weights_sha256"] = model.init_sha256
    elif pretrained and (weights := path_of(model.backbone.weights, model.backbone.name)):
        found["weights_sha256"] = sha256_of(weights)
    return found

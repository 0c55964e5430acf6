"""The modules of the detector, as what is measured of each is called."""

from __future__ import annotations

from torch import nn
from torch.nn import Parameter

BACKBONE = "backbone"


def modules_of(model: nn.Module) -> dict[str, list[Parameter]]:
    """The trained parameters by module: `backbone`, `fpn`, `rpn`, `roi_heads`, and `segmentation` and `mask` if any."""
    modules: dict[str, list[Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            modules.setdefault(_module_of(name), []).append(parameter)
    return modules


def _module_of(name: str) -> str:
    if name.startswith("backbone."):
        return BACKBONE if name.startswith("backbone.body.") else "fpn"
    return name.partition(".")[0]

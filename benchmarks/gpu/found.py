"""What a part measures with, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from megdet.model.settings import ModelSettings


@dataclass(frozen=True)
class Bench:
    """The device, and whether the real thing is measured or the benchmark itself is tried."""

    device_name: str
    quick: bool

    @cached_property
    def device(self) -> torch.device:
        import torch

        return torch.device(self.device_name, 0) if self.device_name == "cuda" else torch.device(self.device_name)

    @property
    def on_gpu(self) -> bool:
        return self.device_name == "cuda"

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images of a step."""
        return (64, 106) if self.quick else (800, 1333)

    @property
    def few(self) -> int:
        """Images in a small pass, and ..."""
        return 1 if self.quick else 2

    @property
    def many(self) -> int:
        """... in a large one."""
        return 2 if self.quick else 16

    @property
    def judges_speed(self) -> bool:
        """Whether goals of speed mean anything here."""
        return self.on_gpu and not self.quick

    def model(self) -> ModelSettings:
        """The paper's detector from random weights, stem and first stage frozen as if they were ImageNet's."""
        from megdet.model.settings import BackboneSettings, FPNSettings, ModelSettings, RoIHeadsSettings, RPNSettings

        backbone = BackboneSettings(name="resnet18" if self.quick else "resnet50", weights="none", frozen_stages=2)
        if not self.quick:
            return ModelSettings(backbone=backbone)
        return ModelSettings(
            backbone=backbone,
            fpn=FPNSettings(channels=16),
            rpn=RPNSettings(pre_nms_train=50, post_nms_train=50, samples=16),
            roi_heads=RoIHeadsSettings(samples=16, head_channels=16),
        )


@dataclass(frozen=True)
class Found:
    """One number or word that a part found, and what was hoped for."""

    what: str
    value: float | str
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def reached(self) -> bool | None:
        """None: nothing was hoped for."""
        if isinstance(self.value, str):
            return None
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        verdict = {None: "", True: "reached", False: "NOT REACHED"}[self.reached]
        return f"{self.what:64} {value:>10} {self.unit:9} {self.goal:10} {verdict}".rstrip()

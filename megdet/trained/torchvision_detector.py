"""A detector that megdet trained, in torchvision's own Faster R-CNN (Mask R-CNN, where it has a mask head).

Needs torch and torchvision, and no megdet.

    python detector.py photo.jpg another.png

In a program, with the folder of this file in reach of its imports:

    from detector import load, read

    model = load("exported/RUN")
    [found] = model([read("photo.jpg")])
    found["boxes"], found["labels"], found["scores"]      # as torchvision's models give them; found["masks"] too
    [model.classes[label] for label in found["labels"]]

`detector.pt` is the state dict alone, which `build` of the numbers in `detector.json` loads strictly; so does any other
Faster or Mask R-CNN of the same structure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.transforms.v2 import functional as transforms

WEIGHTS, NUMBERS = "detector.pt", "detector.json"


class ResizedAsTrained(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Resizes 8-bit pixels with antialiasing, then normalises; torchvision's own does it the other way round, without.

    Takes images float [3, H, W] in 0..1, as torchvision's does.
    """

    def normalize(self, image: Tensor) -> Tensor:
        return image  # once it is resized

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        height, width = image.shape[-2:]
        scale = min(self.min_size[-1] / min(height, width), self.max_size / max(height, width))
        size = [max(1, int(height * scale)), max(1, int(width * scale))]
        pixels = transforms.resize((image * 255).round().to(torch.uint8), size, antialias=True)
        resized: Tensor = super().normalize(pixels.to(torch.float32) / 255)
        if target is not None:
            factors = [size[1] / width, size[0] / height] * 2
            target = {**target, "boxes": target["boxes"] * target["boxes"].new_tensor(factors)}
        return resized, target


class AnchorsOfFixedStrides(AnchorGenerator):  # type: ignore[misc]
    """Anchors 4, 8, 16, 32 and 64 pixels apart; torchvision's own move with the padding on the last level."""

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        fixed: list[Tensor] = super().grid_anchors(grid_sizes, [[4 * 2**level] * 2 for level in range(len(strides))])
        return fixed


def build(numbers: dict[str, Any]) -> FasterRCNN:
    """The model of `detector.json`, with random weights; `classes` and `category_ids` go by label, 0 is background."""
    body = getattr(resnet, numbers["backbone"])(weights=None, norm_layer=FrozenBatchNorm2d)
    width, channels = body.fc.in_features // 8, numbers["fpn_channels"]
    backbone = BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)},
        in_channels_list=[width, 2 * width, 4 * width, 8 * width],
        out_channels=channels,
        norm_layer=FrozenBatchNorm2d if numbers["fpn_norm"] else None,
    )
    sizes, ratios = numbers["anchor_sizes"], tuple(numbers["anchor_ratios"])
    resolution, hidden = numbers["roi_resolution"], numbers["head_channels"]
    model = FasterRCNN(
        backbone,
        min_size=numbers["min_size"],
        max_size=numbers["max_size"],
        rpn_anchor_generator=AnchorsOfFixedStrides(tuple((size,) for size in sizes), (ratios,) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], resolution, sampling_ratio=2),
        box_head=TwoMLPHead(channels * resolution**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, len(numbers["classes"])),
        **numbers["faster_rcnn"],
    )
    if numbers["mask_head"] is not None:  # what torchvision's Mask R-CNN has besides
        size, inner, layers = (numbers["mask_head"][name] for name in ("resolution", "channels", "layers"))
        model.roi_heads.mask_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], size, sampling_ratio=2)
        model.roi_heads.mask_head = MaskRCNNHeads(channels, [inner] * layers, dilation=1)
        model.roi_heads.mask_predictor = MaskRCNNPredictor(inner, inner, len(numbers["classes"]))
    own = model.transform
    model.transform = ResizedAsTrained(own.min_size, own.max_size, own.image_mean, own.image_std)
    model.classes, model.category_ids = numbers["classes"], numbers["category_ids"]
    return model


def load(folder: str | Path = Path(__file__).parent) -> FasterRCNN:
    """The trained model, ready to detect."""
    folder = Path(folder)
    model = build(json.loads((folder / NUMBERS).read_text()))
    model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    return model.eval()


def read(file: str | Path) -> Tensor:
    """An image file as the model takes it: float32 [3, H, W] in 0..1, turned as its EXIF says.

    As in training, transparent pixels lie on white, and 16-bit grey is scaled to 8 bits.
    """
    with Image.open(file) as stored:
        picture = ImageOps.exif_transpose(stored)
        if picture.mode.startswith("I"):
            levels: Tensor = (transforms.pil_to_tensor(picture).double() / 257).round()  # 65535 = 257 x 255
            return (levels / 255).float().expand(3, -1, -1)
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        pixels: Tensor = transforms.pil_to_tensor(picture.convert("RGB"))
    return pixels.to(torch.float32) / 255


def main(files: list[str]) -> None:
    """Print what is found in image files, a line each."""
    model = load()
    for file in files:
        with torch.inference_mode():
            [found] = model([read(file)])
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            corners = ", ".join(f"{side:.1f}" for side in box.tolist())
            print(f"{file}: {model.classes[label]} {score:.3f} at ({corners})")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The weights a backbone starts from: where they are, and how they get there before anything starts."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

from megdet.errors import UserError
from megdet.settings.paths import expanded

IMAGENET_FILES = {"resnet50": "resnet50-0676ba61.pth", "resnet18": "resnet18-f37072fd.pth"}
"""torchvision's ImageNet-1k weights (v1); the name carries the first digits of the file's SHA-256."""

SOURCE = "https://download.pytorch.org/models/"


def path_of(weights: str, backbone: str) -> Path | None:
    """The file that `model.backbone.weights` means for a backbone; None for `none`. Touches neither disk nor network.

    Raises UserError where `imagenet` has no file for the backbone.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        return expanded(weights)
    if backbone not in IMAGENET_FILES:
        raise UserError(
            f"model.backbone.weights=imagenet: there are no such weights for model.backbone.name={backbone} "
            f"(only for {', '.join(IMAGENET_FILES)}); use model.backbone.weights=none with "
            "model.backbone.frozen_stages=0, or a path"
        )
    return _torch_home() / "hub" / "checkpoints" / IMAGENET_FILES[backbone]


def ensure_weights(weights: str, backbone: str, *, source: str = SOURCE, timeout_s: float = 10) -> None:
    """Make sure that the file is there; ImageNet weights are fetched. Raises UserError with a way to get it."""
    path = path_of(weights, backbone)
    if path is None or path.is_file():
        return
    if weights != "imagenet":
        raise UserError(f"model.backbone.weights={weights}: there is no such file; give a path, imagenet or none")
    url = source + path.name
    print(f"fetching {url} -> {path}", flush=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _download(url, partial, timeout_s)
        expected = path.stem.rsplit("-", 1)[1]
        if not digest.startswith(expected):
            raise OSError(f"the file's SHA-256 starts with {digest[:8]}, not {expected}")
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"model.backbone.weights=imagenet: {path} is missing and could not be fetched ({error}). Fetch it where "
            f"there is a network:\n  curl -L --create-dirs -o {path} {url}\n"
            "or copy it there, or use model.backbone.weights=none model.backbone.frozen_stages=0, or the path of a "
            "file in model.backbone.weights"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _download(url: str, path: Path, timeout_s: float) -> str:
    """Fetch `url` into `path`; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=timeout_s) as response, path.open("wb") as file:
        while block := response.read(1 << 20):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _torch_home() -> Path:
    """Where torch keeps downloads (torch.hub.get_dir without importing torch)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return expanded(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))

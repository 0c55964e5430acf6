from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What training and evaluating a detector does on a GPU that is pretended (`tests/pretend_gpu.py`)."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-m", "tests.pretend_gpu"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_no_operation_mixes_tensors_of_the_gpu_and_of_the_cpu(found: dict[str, Any]) -> None:
    assert found["mixed"] == []


def test_collectives_are_given_tensors_of_the_gpu(found: dict[str, Any]) -> None:
    assert found["collectives"] == []


def test_no_norm_layer_has_the_host_wait_for_the_gpu(found: dict[str, Any]) -> None:
    """One wait a layer and pass would leave the GPU idle again and again."""
    assert [place for place in found["waits"] if place.startswith("model/cgbn.py")] == []
    assert found["waits"], "the pretended GPU sees none at all"


def test_with_offloading_no_map_waits_on_the_gpu_for_backward(found: dict[str, Any]) -> None:
    kept = found["kept"]
    assert kept["offload"] == 0 < kept["True"] < kept["False"]

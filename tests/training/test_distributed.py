from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megdet.errors import UserError
from megdet.training.distributed import CPUS_FOR_GPUS, Ranks


def test_ranks_on_gpus_join_by_nccl_bound_to_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise NCCL guesses the device from the rank, where nothing has told it yet."""
    joined: dict[str, Any] = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: joined.update(current=device))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **given: joined.update(given, backend=backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    device = torch.device("cuda", 1)
    with Ranks(rank=9, local_rank=1, world_size=16, device=device):
        pass
    assert joined == {
        "backend": "nccl",
        "store": None,
        "rank": 9,
        "world_size": 16,
        "timeout": timedelta(minutes=10),
        "device_id": device,
        "current": device,
    }


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT"])
def test_ranks_without_a_place_to_meet_say_what_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=f"{missing} expected, but not set"):
        Ranks(rank=1, local_rank=1, world_size=2, device=torch.device("cpu")).__enter__()


def test_gpus_that_torch_does_not_see_are_an_error_and_no_training_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch sees GPUs here")
    monkeypatch.delenv(CPUS_FOR_GPUS, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES=0,1 .* torch does not see any"):
        Ranks.from_environment().check_device()
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        Ranks.from_environment().check_device()

"""The ranks of one run: process group, BN groups, sums over all ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megdet.errors import UserError
from megdet.runs.rank_environment import LISTENER, STORE

CPUS_FOR_GPUS = "MEGDET_CPUS_FOR_GPUS"
"""Environment variable of a cluster whose GPUs are pretended (`make slurm-up`): CPU processes stand in for them."""


TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of its run; a context manager that joins and leaves the process group.

    gloo on CPUs, NCCL on GPUs. A run of one rank joins a group too, so that there is one way through the code.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    timeout: timedelta = TIMEOUT
    """How long ranks wait for each other, in every process group."""

    @classmethod
    def from_environment(cls) -> Ranks:
        """As the launcher says in RANK, LOCAL_RANK and WORLD_SIZE; alone where it says nothing."""
        rank = int(os.environ.get("RANK", "0"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        device = torch.device("cpu")
        if torch.cuda.is_available():
            # A cluster may show each rank its own GPU alone: then that is device 0 for all of them.
            device = torch.device("cuda", local_rank % torch.cuda.device_count())
        return cls(rank, local_rank, world_size, device)

    def check_device(self) -> None:
        """Raises UserError where GPUs were given to this process and torch sees none: it would train on the CPU."""
        given = [
            name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip() not in ("", "-1")
        ]
        if given and self.device.type == "cpu" and CPUS_FOR_GPUS not in os.environ:
            raise UserError(
                f"CUDA_VISIBLE_DEVICES={','.join(given)} gives this rank GPUs, and torch does not see any: compare "
                "nvidia-smi with python -c 'import torch; print(torch.version.cuda, torch.cuda.is_available())' on "
                "that node. To train on its CPU: CUDA_VISIBLE_DEVICES=, and on a cluster cluster.request_gpus=false"
            )

    def __enter__(self) -> Ranks:
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=self._store(),
            rank=self.rank,
            world_size=self.world_size,
            timeout=self.timeout,
            # NCCL would guess the GPU from the rank where a barrier comes first.
            device_id=self.device if on_gpu else None,
        )
        return self

    def _store(self) -> Any:
        """Where the ranks find each other: nowhere for one, in a file or at rank 0's socket as the launcher says; None:
        as torch's own launcher says.
        """
        if self.world_size == 1:
            return dist.HashStore()  # type: ignore[attr-defined]  # documented, and not in torch's list of exports
        if file := os.environ.get(STORE):
            return dist.FileStore(file, self.world_size)  # type: ignore[attr-defined]
        if (listener := os.environ.get(LISTENER)) is None:
            return None
        return dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            self.world_size,
            is_master=self.rank == 0,
            timeout=self.timeout,
            wait_for_workers=False,
            master_listen_fd=int(listener) if self.rank == 0 else None,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error other ranks may be waiting in a collective: leave without a word to them.
        if kind is None:
            dist.destroy_process_group()


def bn_group_of(rank: int, *, world_size: int, bn_group: int, timeout: timedelta = TIMEOUT) -> dist.ProcessGroup | None:
    """The process group of the `bn_group` consecutive ranks that share BN statistics with `rank`.

    Collective: every rank makes every group, in the same order. None where a rank needs no other.
    """
    if bn_group == 1:
        return None
    firsts = range(0, world_size, bn_group)
    # Without a time-out of its own a group has torch's, not that of the whole: half an hour.
    groups = [dist.new_group(list(range(first, first + bn_group)), timeout=timeout) for first in firsts]
    own = groups[rank // bn_group]
    assert isinstance(own, dist.ProcessGroup)
    return own


def sum_over_ranks(values: Tensor) -> Tensor:
    """`values` summed over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_over_ranks(own: bool, device: torch.device) -> bool:
    """Whether `own` is true on any rank."""
    return bool(sum_over_ranks(torch.tensor(float(own), device=device)).item())


def union_over_ranks(own: dict[str, str]) -> dict[str, str]:
    """The entries of all ranks; where several have a key, the last rank's."""
    parts: list[dict[str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return {key: value for part in parts if part for key, value in part.items()}

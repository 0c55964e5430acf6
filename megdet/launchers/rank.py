"""The program of a rank, and its environment: the same for every launcher."""

from __future__ import annotations

from collections.abc import Mapping

from megdet.runs.folder import ATTEMPT

RANK_PROGRAM = ("-m", "megdet.run")
"""Python's arguments before the path of the plan."""

NO_TRIM = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""glibc keeps freed memory for the next step; giving it back and faulting it in again is a quarter of a CPU step."""


def rank_environment(
    inherited: Mapping[str, str],
    *,
    attempt: str,
    rank: int,
    local_rank: int,
    ranks: int,
    ranks_per_node: int,
    address: str,
    port: int,
    threads: int | None = None,
) -> dict[str, str]:
    """Who a rank is (torchrun's names), where rank 0 is, and which attempt it is part of.

    Settings of the user's own for threads and malloc stay. `threads`: of one rank; None: torch's choice.
    """
    defaults = {"PYTHONUNBUFFERED": "1", **NO_TRIM}
    if threads is not None:
        defaults["OMP_NUM_THREADS"] = str(threads)
    return {
        **defaults,
        **inherited,
        ATTEMPT: attempt,
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks_per_node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }

"""The program of a rank, and its environment: the same for every launcher."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from megdet.config.locations import PACKAGE
from megdet.runs.rank_environment import ATTEMPT, LISTENER, STORE

RANK_PROGRAM = ("-m", "megdet.run")
"""Python's arguments before the path of the plan."""

HERE = "127.0.0.1"
"""The address of ranks that are all on one machine, where nobody else can reach them."""
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

NO_TRIM = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""glibc keeps freed memory for the next step; giving it back and faulting it in again is a quarter of a CPU step."""


SAFE_PATH = "PYTHONSAFEPATH"
"""Python's: modules of the current folder do not come before all others, such as the checkout that was launched in."""


def with_code(inherited: Mapping[str, str], frozen: Path | None) -> dict[str, str]:
    """The environment of a process that imports this very megdet, or its copy in the folder `frozen`.

    Other modules are found as before: in the current folder, then by PYTHONPATH.
    """
    before = list(filter(None, [inherited.get("PYTHONPATH")]))
    if frozen is None:
        return {**inherited, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *before])}
    path = os.pathsep.join([str(frozen), str(Path.cwd()), *before, str(PACKAGE.parent)])
    return {**inherited, "PYTHONPATH": path, SAFE_PATH: "1"}


def rank_environment(
    inherited: Mapping[str, str],
    *,
    attempt: str,
    rank: int,
    local_rank: int,
    ranks: int,
    ranks_per_node: int,
    address: str = HERE,
    port: int = 0,
    listener: int | None = None,
    store: Path | None = None,
    threads: int | None = None,
) -> dict[str, str]:
    """Who a rank is (torchrun's names), where the ranks meet, and which attempt it is part of.

    They meet at a port of rank 0's host: `listener` is the number of the open socket there for rank 0, -1 for the
    others. Or, where one launcher starts all of them, in a file `store` in a folder of the user's own.
    Settings of the user's own for threads and malloc stay. `threads`: of one rank; None: torch's choice.
    """
    defaults = {"PYTHONUNBUFFERED": "1", **NO_TRIM}
    if threads is not None:
        defaults["OMP_NUM_THREADS"] = str(threads)
    meeting = {STORE: str(store)} if store else {LISTENER: str(listener)}
    if address == HERE:
        meeting["GLOO_SOCKET_IFNAME"] = LOOPBACK
    return {
        **defaults,
        **meeting,
        **inherited,
        ATTEMPT: attempt,
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks_per_node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }

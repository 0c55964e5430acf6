"""Real ranks for tests: processes joined by gloo on this host, kept from one call to the next."""

from __future__ import annotations

import atexit
import multiprocessing as mp
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any


def _serve(rank: int, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while True:
        try:
            world_size, store, function, args = pipe.recv()
        except EOFError:
            return
        try:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{store}",
                rank=rank,
                world_size=world_size,
                timeout=timedelta(seconds=60),
            )
            answer = ("value", function(*args))
            dist.barrier()
            dist.destroy_process_group()
        except BaseException:
            answer = ("error", traceback.format_exc())
        pipe.send(answer)
        if answer[0] == "error":
            return


class _Pool:
    """Rank processes that are started when first needed; all are replaced after an error in one."""

    def __init__(self) -> None:
        self._ranks: list[tuple[Any, Connection]] = []

    def ensure(self, world_size: int) -> list[Connection]:
        context = mp.get_context("spawn")
        while len(self._ranks) < world_size:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(len(self._ranks), theirs), daemon=True)
            process.start()
            theirs.close()
            self._ranks.append((process, ours))
        return [pipe for _, pipe in self._ranks[:world_size]]

    def close(self) -> None:
        for process, pipe in self._ranks:
            pipe.close()
            process.terminate()
            process.join()
        self._ranks.clear()


_pool = _Pool()
atexit.register(_pool.close)


def run_ranks(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call `function(*args)` on every rank of a new gloo group; the ranks' return values, in order.

    `function` must be importable (module level). It finds its rank with `dist.get_rank()`.
    """
    pipes = _pool.ensure(world_size)
    with tempfile.TemporaryDirectory() as folder:
        for pipe in pipes:
            pipe.send((world_size, f"{folder}/store", function, args))
        answers = []
        for pipe in pipes:
            try:
                answers.append(pipe.recv())
            except EOFError:
                answers.append(("error", "the rank ended without an answer"))
    errors = [f"rank {rank}:\n{text}" for rank, (kind, text) in enumerate(answers) if kind == "error"]
    if errors:
        _pool.close()
        raise AssertionError("\n".join(errors))
    return [value for _, value in answers]

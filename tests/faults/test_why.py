"""Faults of many kinds, each in a real run on two ranks, on a rank and at a step drawn at random: `megdet why` names
kind and rank.

MEGDET_TIMES repeats all of them (1), MEGDET_SEED draws other ranks and steps. What was told is printed, and kept in the
file that MEGDET_TOLD names: `python -m tests.faults.confusion FILE` makes a table of it.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from megdet.launchers.jobs import Jobs
from megdet.launchers.local.one_run import run_local
from megdet.runs import causes
from megdet.runs.causes import Cause
from megdet.runs.folder import folder_of
from megdet.runs.status import Status
from tests.faults.confusion import Told
from tests.faults.test_hangs import program, two_ranks

TIMES = int(os.environ.get("MEGDET_TIMES", "1"))
SEED = int(os.environ.get("MEGDET_SEED", "0"))
AT_A_STEP = """
import signal, torch
from megdet.errors import UserError
from megdet.model.detector import Detector
real, passes = Detector.forward, []
def forward(self, *given):
    if self.training:
        passes.append(1)
    if len(passes) == {step} and int(os.environ["RANK"]) == {rank}:
        {fault}
    return real(self, *given)
Detector.forward = forward
"""
KINDS: dict[str, tuple[str, Cause]] = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", causes.KILLED),
    "segmentation fault": ("os.kill(os.getpid(), signal.SIGSEGV)", causes.CRASHED),
    "abort": ("os.abort()", causes.CRASHED),
    "stopped": ("os.kill(os.getpid(), signal.SIGSTOP)", causes.HUNG),
    "hangs": ("time.sleep(1000)", causes.HUNG),
    "ends without a word": ("os._exit(9)", causes.ERROR),
    "KeyError 'timeout_s'": ("raise KeyError('timeout_s')", causes.ERROR),
    "ValueError with NCCL in it": ("raise ValueError('NCCL is no backbone')", causes.ERROR),
    "wrong shape": ("torch.zeros(2, 3) @ torch.zeros(2, 3)", causes.ERROR),
    "AssertionError": ("assert False, 'connection refused'", causes.ERROR),
    "ImportError": ("import no_such_package", causes.ERROR),
    "main memory": ("torch.empty(1 << 60, dtype=torch.uint8)", causes.HOST_MEMORY),
    "MemoryError": ("raise MemoryError", causes.HOST_MEMORY),
    "GPU memory": ("raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')", causes.CUDA_MEMORY),
    "disk full": ("raise OSError(28, 'No space left on device')", causes.CONFIG_OR_DATA),
    "file gone": ("open('no/such/image.jpg')", causes.CONFIG_OR_DATA),
    "mistake of the user": ("raise UserError('data.max_bad_images=0: an image cannot be read')", causes.CONFIG_OR_DATA),
    "connection reset": ("raise ConnectionResetError(104, 'Connection reset by peer')", causes.NETWORK),
    "NCCL error": ("raise torch.distributed.DistBackendError('NCCL error: unhandled system error')", causes.NETWORK),
    "loss is not a number": ("next(p for p in self.parameters() if p.requires_grad).data.fill_(float('nan'))",
                             causes.DIVERGED),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_why_names_kind_and_rank(kind: str, tmp_path: Path, shapes_root: Path) -> None:
    fault, cause = KINDS[kind]
    generator = random.Random(f"{SEED} {kind}")
    wrong = []
    for time in range(TIMES):
        rank, step = generator.randrange(2), generator.randint(2, 9)
        place = tmp_path / str(time)
        place.mkdir()
        plan = two_ranks(place, shapes_root)
        status = run_local(plan, program=(str(program(place, AT_A_STEP.format(step=step, rank=rank, fault=fault))),))
        assert status == (Status.DIVERGED if cause is causes.DIVERGED else Status.FAILED)
        folder = folder_of(plan)
        found = Jobs().look_at([folder]).diagnosis(folder)
        assert found is not None
        of_all = cause is causes.DIVERGED
        told = Told(kind, cause.name, found.cause.name, None if of_all else rank, found.rank)
        told.keep()
        print(f"\n{told} in step {step}: {found.reason}", end="")
        if found.cause is not cause or told.rank not in (None, found.rank):
            wrong.append((told, found.reason))
    assert not wrong

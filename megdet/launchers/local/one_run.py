"""Runs planned experiments on this machine: what it has, what fits, and one run at a time in a folder."""

from __future__ import annotations

import copy
import fcntl
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.processes import STOP_GRACE_S, RankProcesses
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, run_folder
from megdet.runs.status import Status

RANK_COMMAND = (sys.executable, "-m", "megdet.run")
MAX_CPU_RANKS = 64
LOCK_PATIENCE_S = 0.5
"""Who only looks whether a run is being run holds its lock for an instant."""


@cache
def devices_here() -> int:
    """GPUs of this machine that may be used: those of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return sum(1 for device in visible.split(",") if device.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(1 for line in listed.stdout.splitlines() if line.startswith("GPU "))


def resolve_cluster(config: Config) -> Config:
    """The config with `cluster.gpus_per_node=auto` as the number of this machine.

    Without a GPU that is 1, or as many CPU processes as `gpus` asks for.
    """
    if config.cluster.gpus_per_node != "auto":
        return config
    asked = min(config.gpus, MAX_CPU_RANKS) if isinstance(config.gpus, int) and config.gpus > 0 else 1
    config = copy.deepcopy(config)
    config.cluster.gpus_per_node = devices_here() or asked
    return config


def check_fits_here(plan: Plan) -> None:
    """Raises UserError where a plan needs more ranks than this machine can run."""
    devices = devices_here()
    if plan.layout.gpus <= (devices or MAX_CPU_RANKS):
        return
    here = f"{devices}" if devices else f"none (at most {MAX_CPU_RANKS} CPU processes stand in for them)"
    raise UserError(
        f"{plan.run_id} is planned for gpus={plan.layout.gpus} on {plan.layout.nodes} nodes, and this machine has "
        f"{here}; use cluster=local for a layout that fits here (the result is the same), or sweep.dry_run=true"
    )


def folder_of(plan: Plan) -> RunFolder:
    """Where a plan's run keeps everything."""
    return run_folder(plan.config.runs_dir, plan.run_id)


def is_being_run(folder: RunFolder) -> bool:
    """Whether a launcher, or a rank of one, is at work in a run folder, which may be read-only."""
    try:
        lock = os.open(folder.lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def run_local(plan: Plan, *, command: Sequence[str] = RANK_COMMAND, stop_grace_s: float = STOP_GRACE_S) -> Status:
    """Run (or go on with) a plan on this machine until it ends; how it ended.

    Writes plan.json and starts `command PLAN` once per rank. A rank that dies takes the others with it.
    SIGINT, SIGTERM and SIGHUP reach the ranks as SIGTERM; a second one kills them. Only for the main thread.

    Raises UserError where the run is being run already.
    """
    folder = folder_of(plan)
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder, patience_s=LOCK_PATIENCE_S) as lock:
            owned = folder.claim(f"local-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
            owned.write_plan(plan.to_json())
            owned.forget_failure()
            # From here on it is this machine's word that counts, not that of a job it once was.
            folder.submission.unlink(missing_ok=True)
            ranks = RankProcesses(
                owned,
                command=command,
                ranks=plan.layout.gpus,
                on_gpus=devices_here() > 0,
                lock=lock,
                stop_grace_s=stop_grace_s,
            )
            return ranks.run()
    except BlockingIOError:
        raise UserError(
            f"{plan.run_id} is being run by another launcher (folder {folder.path}); wait for it, or stop it first"
        ) from None


@contextmanager
def _locked(folder: RunFolder, *, patience_s: float) -> Iterator[int]:
    """The folder's lock; ranks inherit it, so that it is held until the last of them is gone.

    Raises BlockingIOError where another process holds it for longer than `patience_s`.
    """
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
            time.sleep(0.02)
        yield lock
    finally:
        os.close(lock)

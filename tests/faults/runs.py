"""Small real runs to break, as processes of their own, and the run that nothing has disturbed."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from megdet.config.schema import Config
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.folder import folder_of as run_folder_of
from megdet.runs.journal import read_journal
from tests.training.test_run import config_of, start, wait_for_step

NUMBERS = ("loss", "grad_norm", "lr", "mmAP", "AP50", "rpn_positive", "roi_negative")


def a_plan(tmp_path: Path, shapes_root: Path, **asked: Any) -> Plan:
    """Three epochs of four steps on one rank, with a checkpoint after every step."""
    config: Config = replace(config_of(tmp_path, shapes_root), checkpoint_every_min=1e-9, **asked)
    return make_plan(config)


def finish(plan: Plan) -> str:
    """Start (or go on with) a run by hand and wait for its end, which must be good; what it said."""
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def refused(plan: Plan) -> str:
    """A run that must not start; its one message."""
    process = start(plan)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in output, output
    return output


def stopped_after(plan: Plan, step: int) -> RunFolder:
    """A run that was asked to stop once it had made `step` steps; the same command goes on with it."""
    process: subprocess.Popen[str] = start(plan)
    wait_for_step(plan, step)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    return run_folder_of(plan)


def killed_after(plan: Plan, step: int) -> RunFolder:
    """A run that was killed once it had made `step` steps."""
    process = start(plan)
    wait_for_step(plan, step)
    process.kill()
    process.communicate(timeout=60)
    return run_folder_of(plan)


def weights_of(folder: RunFolder) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder.checkpoint, weights_only=True)["model"]
    return weights


def measured_by(folder: RunFolder) -> list[dict[str, Any]]:
    """What a run has measured, step by step and epoch by epoch."""
    lines = [line for line in read_journal(folder) if line["kind"] != "event"]
    return [{key: line.get(key) for key in ("kind", "step", "epoch", *NUMBERS)} for line in lines]


def is_the_same_as(folder: RunFolder, undisturbed: RunFolder) -> bool:
    """Bit for bit the same weights, and every metric exactly once with the same value."""
    ours, theirs = weights_of(folder), weights_of(undisturbed)
    same_weights = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return same_weights and measured_by(folder) == measured_by(undisturbed)


def events_of(folder: RunFolder) -> list[str]:
    return [line["event"] for line in read_journal(folder) if line["kind"] == "event"]

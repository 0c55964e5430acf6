"""What rank 0 writes of an attempt, without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.status import Status
from megdet.sweep import ready
from megdet.training.assemble import recorder_of
from megdet.training.provenance import made_from
from megdet.training.recorder import ratios_percent
from megdet.training.state import TrainingState
from megdet.training.system_metrics import SystemMetrics
from megdet.training.totals import Step
from tests.runs.folders import owned


def begin(plan: Plan, folder: Path, *, step: int, pretrained: bool, data_sha256: str) -> None:
    recorder = recorder_of(plan, owned(folder), step=step)
    made = made_from(plan, data_sha256=data_sha256, device="CPU (of a test)", pretrained=pretrained)
    recorder.started(TrainingState(step=step), made_from=made)
    recorder.ended(Status.INTERRUPTED, TrainingState(step=step))


def test_each_attempt_names_its_code_and_the_content_of_what_it_read(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_text("weights")
    config = Config()
    config.cluster.gpus_per_node, config.tracking.enabled = 8, False
    config.model.backbone.weights = str(weights)
    plan = make_plan(config, commit="a", dirty=True)
    begin(plan, tmp_path, step=0, pretrained=True, data_sha256="1" * 12)
    weights.unlink()  # a checkpoint needs it no more
    begin(replace(plan, commit="b", dirty=False), tmp_path, step=7, pretrained=False, data_sha256="2" * 12)

    started, resumed = [line for line in read_journal(RunFolder(tmp_path)) if line["event"] in ("started", "resumed")]
    assert (started["commit"], started["dirty"], resumed["commit"], resumed["dirty"]) == ("a", True, "b", False)
    assert (started["data_sha256"], resumed["data_sha256"]) == ("1" * 12, "2" * 12)
    assert started["device"] == resumed["device"] == "CPU (of a test)"
    assert started["weights_sha256"] == "9a129038d9a0", "what `printf weights | sha256sum` begins with"
    assert "weights_sha256" not in resumed


def test_a_ratio_is_recorded_for_each_pair_of_positives_and_negatives_by_name() -> None:
    counts = {
        "rpn_positive": 3.0,
        "rpn_negative": 60.0,
        "mask_positive": 1.0,
        "mask_negative": 0.0,
        "roi_positive": 5.0,
    }
    assert ratios_percent(counts) == {"rpn_ratio_percent": 5.0, "mask_ratio_percent": None}
    assert ratios_percent({"tokens": 7.0}) == {}


def test_system_metrics_are_in_the_journal_before_the_step_they_belong_to_and_only_where_asked_for(
    tmp_path: Path,
) -> None:
    for asked in (True, False):
        config = Config()
        config.cluster.gpus_per_node, config.tracking.enabled, config.tracking.system_metrics = 8, False, asked
        recorder = recorder_of(make_plan(config), owned(tmp_path / str(asked)), step=0)
        step = Step(1, lr=0.1, losses={"loss_rpn": 2.0}, counts={}, grad_norm=1.0)
        recorder.step(step, epoch=0.1, images_per_s=3.0)
        recorder.ended(Status.INTERRUPTED, TrainingState(step=1))
    kinds = [line["kind"] for line in read_journal(RunFolder(tmp_path / "False"))]
    assert kinds == ["step", "event"]
    system, at, _ = read_journal(RunFolder(tmp_path / "True"))
    assert (system["kind"], system["step"], at["kind"], at["step"]) == ("system", 1, "step", 1)
    assert 0 <= system["cpu_utilization_percentage"] <= 100 and system["system_memory_usage_megabytes"] > 1


def test_system_metrics_have_the_names_and_units_of_mlflows_own_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's library is stood in for: one GPU of 80 GB, a quarter full, at 250 W."""
    pynvml = pytest.importorskip("pynvml")
    gpu = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=20e9, total=80e9),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=90),
        "nvmlDeviceGetPowerUsage": lambda _: 250_000,
        "nvmlDeviceGetEnforcedPowerLimit": lambda _: 500_000,
    }
    for name, stand_in in gpu.items():
        monkeypatch.setattr(pynvml, name, stand_in)
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    theirs = {}
    for monitor in (CPUMonitor(), GPUMonitor()):
        monitor.collect_metrics()
        theirs |= monitor.aggregate_metrics()
    ours = SystemMetrics().read()
    assert ours.keys() == theirs.keys() - {"gpu_0_power_usage_percentage"}
    assert {name: ours[name] for name in ours if name.startswith("gpu")}.items() <= theirs.items()
    assert ours["system_memory_usage_megabytes"] == pytest.approx(theirs["system_memory_usage_megabytes"], rel=0.2)


def test_system_metrics_without_their_packages_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(runs_dir=str(tmp_path / "runs"))
    config.cluster.gpus_per_node, config.tracking.system_metrics = 8, True
    monkeypatch.setattr(ready, "find_spec", lambda name: None if name == "psutil" else object())
    with pytest.raises(UserError, match=r"tracking.system_metrics=true needs psutil; pip install 'megdet\[system\]'"):
        ready.make_ready([make_plan(config)], anew=False)
    assert not (tmp_path / "runs").exists()

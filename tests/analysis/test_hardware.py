from __future__ import annotations

from pathlib import Path

import pytest

from megdet.analysis import make_tables
from megdet.analysis.figures import speed_up, training_time
from megdet.analysis.frames import load_runs
from megdet.analysis.hardware import hardware_of
from megdet.analysis.wanted import select
from tests.analysis.paper_runs import group_of
from tests.runs.fabricate import fabricate_run

CPU, A100, V100 = "CPU (AMD EPYC)", "NVIDIA A100", "NVIDIA V100"


def table(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert make_tables.main(["--from", str(folder), *words]) == 0
    return capsys.readouterr().out


def test_processes_on_a_cpu_are_not_called_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "gpus": 1}, device=CPU)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "gpus": 2, "seed": 1}, device=CPU, hours=5)
    assert "; trained on CPU (AMD EPYC)." in table(tmp_path, capsys, "--table", "2").replace("\n", ".")
    figure = training_time.draw(group_of(tmp_path))
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["10.0 (1 CPU process)", "5.0 (2 CPU processes)"]
    figure = speed_up.draw(group_of(tmp_path))
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["CPU processes", "GPUs"]


def test_times_on_two_devices_are_not_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (device, hours) in enumerate(((A100, 10.0), (A100, 12.0), (V100, 30.0))):
        fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": seed}, device=device, hours=hours)
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0}, device=V100, hours=20.0)
    for number in ("2", "3"):
        printed = table(tmp_path, capsys, "--table", number)
        assert "trained on NVIDIA A100 (2 runs), NVIDIA V100 (" in printed
        assert "11.0 ± 1.4 (2) (8 x NVIDIA A100), 30.0 (8 x NVIDIA V100)" in printed
        assert "20.0 (16 x NVIDIA V100)" in printed or number == "3"
        assert "37.0 ± 0.0 (3)" in printed, "what is learned has nothing to do with it"
    assert "NVIDIA V100" in table(tmp_path, capsys, "--table", "2", "--provenance").partition("Provenance")[2]


def test_a_speed_up_is_of_the_device_that_most_runs_had(tmp_path: Path) -> None:
    for seed, (device, gpus) in enumerate(((A100, 8), (A100, 4), (A100, 2), (V100, 1))):
        fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": seed, "gpus": gpus}, device=device)
    assert {point.gpus for point in speed_up.points_of(group_of(tmp_path))} == {2, 4, 8}


def test_a_run_that_does_not_say_had_the_device_that_the_others_agree_on(tmp_path: Path) -> None:
    for seed, device in enumerate((CPU, "", CPU)):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed, "gpus": 1}, device=device)
    runs = load_runs(str(tmp_path)).runs
    assert set(hardware_of(runs)) == {"1 CPU process"}
    fabricate_run(tmp_path, {"batch": 16, "seed": 3, "gpus": 1}, device=A100)
    found = load_runs(str(tmp_path))
    assert sorted(hardware_of(found.runs)) == ["1 GPU", "1 x CPU (AMD EPYC)", "1 x CPU (AMD EPYC)", "1 x NVIDIA A100"]
    assert list(select(found, device=A100).runs["seed"]) == [3]

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megdet.analysis.sweep_results import write_results
from megdet.runs.sweep_folder import record_sweep
from tests.runs.fabricate import fabricate_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep of two runs; a third run is beside them that it did not ask for."""
    runs = [
        fabricate_run(tmp_path, {"batch": 16, "bn_size": 16}, mmAP=37.1),
        fabricate_run(tmp_path, {"batch": 64, "bn_size": 32}, mmAP=36.9),
    ]
    fabricate_run(tmp_path, {"batch": 256, "bn_size": 32}, mmAP=11.9)
    ids = [run.name for run in runs]
    return record_sweep(tmp_path, name="x", command="x", run_ids=ids, uri=None, experiment="paper", settings={})


def test_a_sweeps_tables_and_figures_are_of_its_own_runs(sweep: Path) -> None:
    write_results(sweep)
    for name in ("tables.md", "tables.html"):
        text = (sweep / name).read_text()
        assert "37.1" in text and "36.9" in text and "11.9" not in text
    figures = {path.name for path in (sweep / "figures").iterdir()}
    assert "validation_curves.png" in figures and {Path(name).suffix for name in figures} == {".png"}


@pytest.mark.slow
def test_they_are_made_again_only_when_a_run_has_gone_on(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(sweep)
    assert "tables and figures of the sweep" in capsys.readouterr().out
    write_results(sweep)
    assert capsys.readouterr().out == ""
    journal = next(sweep.parents[1].glob("b16-*/metrics.jsonl"))
    later = (sweep / "tables.html").stat().st_mtime_ns + 10**6
    os.utime(journal, ns=(later, later))
    write_results(sweep)
    assert "tables and figures of the sweep" in capsys.readouterr().out


def test_what_goes_wrong_with_them_is_a_warning(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for journal in sweep.parents[1].glob("b*/metrics.jsonl"):
        journal.write_text("not json\n")
    write_results(sweep)
    said = capsys.readouterr().err
    assert "could not be written" in said and "line 1" in said and "megdet tables" in said


def test_a_sweep_that_has_not_begun_has_none(sweep: Path) -> None:
    for file in (*sweep.parents[1].glob("b*/metrics.jsonl"), *sweep.parents[1].glob("b*/state.json")):
        file.unlink()
    write_results(sweep)
    assert [path.name for path in sweep.iterdir()] == ["sweep.json"]


def test_figures_that_could_not_be_written_are_made_when_the_sweep_is_asked_for_again(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep / "figures").write_text("in the way")
    write_results(sweep)
    assert "could not be written" in capsys.readouterr().err and "37.1" in (sweep / "tables.md").read_text()
    (sweep / "figures").unlink()
    write_results(sweep)
    assert (sweep / "figures" / "validation_curves.png").exists()
    assert "tables and figures of the sweep" in capsys.readouterr().out

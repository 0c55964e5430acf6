from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from megdet.analysis import make_figures, make_report, make_tables
from tests.runs.fabricate import fabricate_run

PROGRAMS: dict[str, tuple[Callable[[Sequence[str] | None], int], str]] = {
    "make_tables": (make_tables.main, "folder"),
    "make_report": (make_report.main, "folder"),
    "make_figures": (make_figures.main, "file"),
}
"""Each with what it cannot write to."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_output_that_cannot_be_written_is_a_message_and_exit_code_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, wrong = PROGRAMS[name]
    fabricate_run(tmp_path / "runs", {"batch": 16})
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    figure = ["--figure", "loss"] if name == "make_figures" else []
    for out in (tmp_path / wrong, tmp_path / "file" / "below"):
        assert main(["--from", str(tmp_path / "runs"), "--out", str(out), *figure]) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"{name}: --out {out}: cannot be written") and len(said.err.splitlines()) == 1
        assert said.out == "" and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("option", ["--sweep", "--experiment", "--model", "--data"])
def test_every_program_chooses_runs_by_the_same_options(
    name: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    main, _ = PROGRAMS[name]
    assert main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), option, "nobody"]) == 2
    assert capsys.readouterr().err.startswith(f"{name}: {option} nobody: no such run; there is ")
    assert not (tmp_path / "out").exists()

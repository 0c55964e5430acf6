"""The commands of the README, of the other pages and of conf/ run: as they are, as a dry run, or up to their options.

Every command of a block without a language is one of: run here (`megdet`, the programs in analysis/), planned
(`launch.py`), asked for its help (`python -m`), found in the Makefile, or listed in NOT_RUN with the reason.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megdet import cli
from tests.docs.pages import ROOT, Command, all_commands, files_told
from tests.runs.fabricate import fabricate_run
from tests.test_launch import launch
from tests.tracking.databases import new_database

pytestmark = [
    pytest.mark.slow,  # a process for each command, some two minutes together
    # MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

NOT_RUN = {
    ".": "changes the shell",
    "cd": "changes the shell",
    "export": "changes the shell",
    "eval": "changes the shell; tests/test_launch.py has completion",
    "git": "clones from elsewhere",
    "pip": "installs; tests/test_wheel.py does so offline",
    "python -m pip": "installs; tests/test_wheel.py does so offline",
    "pre-commit": "is not one of the packages that are installed here",
    "mlflow": "serves until it is stopped; tests/tracking starts a server",
    "sudo": "needs a database server",
    "megdet cluster": "asks Slurm; tests/launchers/slurm/test_discovery.py has it",
    "megdet predict": "needs a run that has trained; tests/docs/test_trained_runs.py has it",
    "megdet eval": "as predict",
    "megdet stability": "trains for minutes; tests/sweep/test_stability.py has it",
    "megdet advise": "needs a run that has measured its noise scale; tests/cli/test_advise.py has it",
    "megdet export": "as predict",
    "megdet ensemble": "as predict; tests/trained/test_ensemble.py has it",
}
"""Commands that are not run here, by their first words, and why."""

FILTERS = ("--from", "--against")
"""What chooses runs for tables, figures and reports, beside KEY=VALUE: those that a page has in mind are not here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader would be: with finished runs, a database of MLflow, and the files that the pages tell to write."""
    folder = tmp_path_factory.mktemp("reader")
    for asked in ({"batch": 16}, {"batch": 16, "bn_size": 0}, {"batch": 256}):
        run = fabricate_run(folder / "runs", {**asked, "tracking.enabled": False})
        (run / "log-rank0.txt").write_text("step 1\n")
    new_database(folder)
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    for name, text in files_told().items():
        if (ROOT / name).exists():
            continue  # the page shows a file of megdet's own
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        if name.startswith("draw_"):  # it makes what the commands below it work on
            subprocess.run([sys.executable, name], cwd=folder, check=True)
    return folder


def plan(words: tuple[str, ...], folder: Path) -> None:
    """`launch.py`, as a dry run where it would run something. No run here has trained, to begin from."""
    words = tuple(word for word in words if not word.startswith("model.init_from="))
    only_told = {"--help", "-h", "--cfg", "-c", "--hydra-help", "--info", "-sc"} & set(words)
    done = launch(folder, *words, *(() if only_told else ("sweep.dry_run=true",)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not used" not in done.stderr


def look(words: tuple[str, ...], folder: Path) -> None:
    """`megdet COMMAND`, of a run that is there where the page names one."""
    [run, *_] = sorted((folder / "runs").glob("b*"))
    named = [run.name if re.fullmatch(r"(runs/)?(RUN|b\d+-bn\d+\S*)", word) else word for word in words]
    assert cli.main(named) == 0


def tabulate(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """`megdet tables | figures | report`, of all runs. Nobody has studied them: a table of a study says how to."""
    kept, left = [words[0]], list(words[1:])
    while left:
        word = left.pop(0)
        if word.partition("=")[0] in FILTERS:
            left = left if "=" in word else left[1:]
        elif word.startswith("--") or "=" not in word:
            kept.append(word)
    code = cli.main(kept)
    assert code == 0 or re.search("no run has a .* yet; .* makes it", capsys.readouterr().err)


def ask_for_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m MODULE`: it has help, and in it every option that the page gives it."""
    monkeypatch.setattr(sys, "argv", [words[0], "--help"])
    monkeypatch.delitem(sys.modules, words[0], raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    help_text = capsys.readouterr().out
    assert not ended.value.code and "usage:" in help_text
    for option in (word.partition("=")[0] for word in words[1:] if word.startswith("-")):
        assert re.search(rf"{option}\b", help_text), f"{words[0]} has no {option}"


def is_in_the_makefile(words: tuple[str, ...]) -> None:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", all_commands(), ids=str)
def test_a_command_of_the_pages_runs(
    command: Command, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    match command.words:
        case ("python", "launch.py", *words) | ("megdet", "launch", *words):
            plan(tuple(words), folder)
        case ("python", program, *words) if program.startswith("analysis/make_"):
            assert (ROOT / program).exists()
            tabulate((Path(program).stem.removeprefix("make_"), *words), capsys)
        case ("megdet", "tables" | "figures" | "report", *_):
            tabulate(command.words[1:], capsys)
        case ("megdet", "data", *words):
            assert cli.main(["data", *words]) == 0
        case ("megdet", ("--help" | "--version") as word):
            with pytest.raises(SystemExit) as ended:
                cli.main([word])
            assert not ended.value.code
        case ("megdet", name, *_) if f"megdet {name}" in NOT_RUN:
            pass
        case ("megdet", *words):
            look(tuple(words), folder)
        case ("python", program) if program in files_told():
            assert (folder / program).exists()  # and was run, unless it needs a run that has trained
        case ("make", *words):
            is_in_the_makefile(tuple(words))
        case ("python", "-m", module, *words) if module != "pip":
            ask_for_help((module, *words), capsys, monkeypatch)
        case words:
            known = any(str(command).startswith(f"{start} ") or str(command) == start for start in NOT_RUN)
            assert known, (
                f"{command.place}: `{command}` is not tried here. A block that holds no commands needs a language, "
                "such as text; a command that cannot be tried needs an entry in NOT_RUN, with the reason"
            )


def test_the_pages_have_the_commands_that_a_reader_needs() -> None:
    """So that what reads the pages cannot come to read nothing."""
    starts = {command.words[:2] for command in all_commands()}
    assert {("make", "demo"), ("make", "test"), ("python", "launch.py"), ("megdet", "status")} <= starts

"""The copy of the code that runs are started with: whole, one for each state, used instead of what is edited."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.config.locations import PACKAGE
from megdet.errors import UserError
from megdet.launchers.rank import with_code
from megdet.planning.code_version import sha256_of_sources
from megdet.planning.plan import Plan
from megdet.runs import code
from megdet.runs.code import code_to_run, forget_unused_code, freeze_code, frozen_code, frozen_folder
from megdet.runs.folder import folder_of
from tests.runs.fabricate import plan_of
from tests.runs.folders import owned

NOW = sha256_of_sources(PACKAGE)[:12]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return replace(plan_of({"runs_dir": str(tmp_path / "runs")}, ""), code=NOW)


@pytest.fixture(autouse=True)
def _own_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies are held as long as a process lives; here, as long as a test."""
    held: dict[Path, int] = {}
    monkeypatch.setattr(code, "_held", held)
    yield
    release(held)


def release(held: dict[Path, int]) -> None:
    for lock in held.values():
        os.close(lock)
    held.clear()


def test_the_copy_is_the_code_once_for_each_state(plan: Plan) -> None:
    freeze_code(plan)
    place = frozen_code(plan)
    assert place is not None and sha256_of_sources(place / "megdet") == sha256_of_sources(PACKAGE)
    before = place.stat().st_ino
    release(code._held)
    freeze_code(plan)
    assert place.stat().st_ino == before and [path.name for path in place.parent.iterdir()] == [NOW]


def test_a_process_goes_on_with_the_code_that_it_began_a_sweep_with(plan: Plan, tmp_path: Path) -> None:
    assert code_to_run(plan.config.runs_dir) == NOW
    code._held[frozen_folder(plan.config.runs_dir, "0123456789ab")] = os.open(os.devnull, os.O_RDONLY)
    assert code_to_run(plan.config.runs_dir) == "0123456789ab"
    assert code_to_run(tmp_path / "others") == NOW


def test_an_installed_release_needs_no_copy(plan: Plan) -> None:
    freeze_code(replace(plan, code=""))
    assert frozen_code(replace(plan, code="")) is None and not Path(plan.config.runs_dir).exists()


def test_code_that_was_edited_since_the_plan_is_refused(plan: Plan) -> None:
    with pytest.raises(UserError, match="was edited while its runs were planned"):
        freeze_code(replace(plan, code="0123456789ab"))
    assert list((Path(plan.config.runs_dir) / ".code").iterdir()) == []


def test_a_rank_imports_the_copy_and_its_user_s_modules_though_it_starts_in_an_edited_checkout(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_code(plan)
    checkout = tmp_path / "checkout"
    (checkout / "megdet").mkdir(parents=True)
    (checkout / "megdet" / "__init__.py").write_text("raise SystemExit('edited')\n")
    (checkout / "mine.py").write_text("import megdet; print(megdet.__file__)\n")
    monkeypatch.chdir(checkout)
    environment = with_code({**os.environ, "PYTHONPATH": str(checkout)}, frozen_code(plan))
    done = subprocess.run([sys.executable, "-m", "mine"], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == str(frozen_code(plan) / "megdet" / "__init__.py"), done.stderr  # type: ignore[operator]


def test_without_a_copy_this_very_package_is_imported(tmp_path: Path) -> None:
    environment = with_code({**os.environ, "PYTHONPATH": ""}, None)
    done = subprocess.run(
        [sys.executable, "-c", "import megdet; print(megdet.__file__)"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == str(PACKAGE / "__init__.py"), done.stderr


def test_a_copy_goes_when_no_run_was_made_with_it_and_no_launcher_uses_it(plan: Plan) -> None:
    runs, place = Path(plan.config.runs_dir), frozen_code(plan)
    assert place is not None
    freeze_code(plan)
    assert forget_unused_code(runs) == [], "a launcher is about to start runs with it"
    owned(folder_of(plan).path).write_plan(plan.to_json())
    release(code._held)
    assert forget_unused_code(runs) == [], "a run was made with it"
    shutil.rmtree(folder_of(plan).path)
    assert forget_unused_code(runs) == [place] and not place.exists()

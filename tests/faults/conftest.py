"""The run that nothing has disturbed, for all tests of one module to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.runs.folder import RunFolder, folder_of
from tests.faults.runs import a_plan, finish
from tests.launchers.conftest import command, plan_for, planned_run

__all__ = ["command", "plan_for", "planned_run"]  # fixtures


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> RunFolder:
    plan = a_plan(tmp_path_factory.mktemp("undisturbed"), shapes_root)
    finish(plan)
    return folder_of(plan)

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.tracking import client

from .databases import new_database


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """An empty store of MLflow's."""
    return new_database(tmp_path / "store")


@pytest.fixture(autouse=True)
def warnings_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_warned", set())

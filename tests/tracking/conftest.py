from __future__ import annotations

from pathlib import Path

import pytest

from .databases import new_database


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """An empty store of MLflow's."""
    return new_database(tmp_path / "store")

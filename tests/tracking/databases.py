"""MLflow databases for tests, ready to use: making the tables takes seconds, so it is done once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from megdet.tracking.client import prepare
from megdet.tracking.uri import default_uri


@functools.cache
def _fresh() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        assert prepare(default_uri(Path(folder)), "fresh")
        return (Path(folder) / "mlflow.db").read_bytes()


def new_database(folder: Path) -> str:
    """The URI of a new database `mlflow.db` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").write_bytes(_fresh())
    return default_uri(folder)

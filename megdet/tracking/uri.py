"""Where MLflow keeps its records: a server, or a database on this host."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from megdet.errors import UserError

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


def default_uri(folder: Path) -> str:
    """MLFLOW_TRACKING_URI, else the sqlite database `mlflow.db` in `folder`, absolute: a relative one would depend on
    the cwd. UserError where the variable names what no MLflow client can open.
    """
    asked = os.environ.get("MLFLOW_TRACKING_URI")
    if asked:
        return absolute_uri(asked)
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def absolute_uri(uri: str) -> str:
    """`uri`, an sqlite path in it made absolute. UserError for what no MLflow client can open."""
    if not _can_be_opened(uri):
        raise UserError(
            f"{uri!r} is neither a tracking server nor a database; use http://HOST:PORT or "
            "sqlite:////ABSOLUTE/PATH/mlflow.db, or leave it out"
        )
    path = sqlite_path(uri)
    return f"sqlite:///{path}" if path else uri


def artifact_location(uri: str) -> str | None:
    """The folder `mlartifacts` beside an sqlite database; None for a server, which has its own."""
    path = sqlite_path(uri)
    return (path.parent / "mlartifacts").as_uri() if path else None


def without_password(uri: str) -> str:
    """`uri` as it may be shown."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def _can_be_opened(uri: str) -> bool:
    """Whether a client could try: a known scheme, a host and a port that are ones."""
    try:
        parts = urlsplit(uri)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # http://[::1, http://host:port
        return False
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite":
        return not parts.netloc and parts.path.strip("/") != ""
    return scheme in SCHEMES and (has_host or scheme not in ("http", "https"))


def sqlite_path(uri: str) -> Path | None:
    """The file of an sqlite database, absolute; None for anything else."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None

"""Where MLflow keeps its records: a server, or a database on this host."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from megdet.errors import UserError

_PASSWORD = re.compile(r"(?<=://)(?P<user>[^/@:?#]*:)(?P<own>[^/?#]+)(?=@)|(?P<key>[?&]password=)(?P<option>[^&#]+)")
"""Between user and host, or among a database's options."""
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")


def default_uri(folder: Path) -> str:
    """MLFLOW_TRACKING_URI, else the sqlite database `mlflow.db` in `folder`, absolute: a relative one would depend on
    the cwd. UserError where the variable names what no MLflow client can open.
    """
    asked = os.environ.get("MLFLOW_TRACKING_URI")
    if asked:
        return absolute_uri(asked)
    return sqlite_uri(folder.resolve() / "mlflow.db")


def absolute_uri(uri: str, *, kept: bool = True) -> str:
    """`uri`, an sqlite path in it made absolute. UserError for what no MLflow client can open.

    `kept`: whether it will stand in files, where a password must not.
    """
    if not _can_be_opened(uri):
        raise UserError(
            f"{without_password(uri)!r} is neither a tracking server nor a database; use http://HOST:PORT or "
            "sqlite:////ABSOLUTE/PATH/mlflow.db, or leave it out"
        )
    if kept and without_password(uri) != uri:
        raise UserError(
            f"tracking.uri={without_password(uri)} has a password, which plan.json and MLflow would keep for everybody "
            "to read. Put it into the environment: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, "
            "a variable of your choice for a database (tracking.uri='postgresql://ME:$DB_PASSWORD@HOST/DB')"
        )
    path = sqlite_path(uri)
    return sqlite_uri(path) if path else uri


def with_password(uri: str) -> str:
    """`uri` with the variable that stands for its password replaced by what the environment has.

    Raises UserError where it has none.
    """
    try:
        return _PASSWORD.sub(lambda found: _before(found) + _from_environment(_secret(found)), uri)
    except KeyError as error:
        raise UserError(f"tracking.uri={uri} names ${error.args[0]}, which is not set here; export it") from None


def without_secrets(text: str, uri: str) -> str:
    """What somebody says about `uri`, without the password that the environment has for it."""
    for found in _PASSWORD.finditer(uri):
        password = _secret(found)
        secret = os.environ.get(password[1:]) if password.startswith("$") else password
        text = text.replace(secret, "***") if secret else text
    return text


def _before(found: re.Match[str]) -> str:
    return found["user"] or found["key"]


def _secret(found: re.Match[str]) -> str:
    return found["own"] or found["option"]


def _from_environment(password: str) -> str:
    return quote(os.environ[password[1:]], safe="") if password.startswith("$") else password


def artifact_location(uri: str) -> str | None:
    """The folder `mlartifacts` beside an sqlite database; None for a server, which has its own."""
    path = sqlite_path(uri)
    return (path.parent / "mlartifacts").as_uri() if path else None


def without_password(uri: str) -> str:
    """`uri` as it may be shown; the name of a variable is no secret."""
    return _PASSWORD.sub(lambda found: found[0] if _secret(found).startswith("$") else f"{_before(found)}***", uri)


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
    return Path(unquote(uri.removeprefix("sqlite:///"))).resolve() if uri.startswith("sqlite:///") else None


def sqlite_uri(path: Path) -> str:
    """The URI of a database file, as MLflow reads it: what would end the path or begin an escape is escaped.

    MLflow 3.17 makes an empty folder beside one that needed that, by the name with the escapes in it.
    """
    return "sqlite:///" + re.sub("[%?]", lambda found: quote(found[0]), str(path))

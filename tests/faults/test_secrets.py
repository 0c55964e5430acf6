"""Passwords stay in the environment, and ranks on one machine listen to nobody else."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.errors import UserError
from megdet.launchers.local.one_run import run_local
from megdet.runs.folder import folder_of
from megdet.runs.journal import read_journal
from megdet.runs.status import Status
from megdet.sweep.points import plan_points
from megdet.tracking.client import warn
from megdet.tracking.uri import absolute_uri, with_password, without_password, without_secrets
from tests.faults.runs import a_plan

URIS = (
    "http://me:hunter2@host:5000", "postgresql://me:hunter2@host/db", "mysql+pymysql://me:hunter2@host/db?charset=utf8",
    "postgresql://host/db?user=me&password=hunter2", "http://me:hun@ter2@host",
)  # fmt: skip


@pytest.mark.parametrize("uri", URIS)
def test_a_password_is_refused_before_anything_keeps_it_and_never_shown(
    uri: str, tmp_path: Path, shapes_root: Path
) -> None:
    config = a_plan(tmp_path, shapes_root).config
    config.tracking.enabled, config.tracking.uri = True, uri
    (point,) = plan_points([Asked((), config)], to_run_here=False)
    assert point.plan is None and "MLFLOW_TRACKING_PASSWORD" in point.why and "ter2" not in point.why
    assert "ter2" not in without_password(uri)
    assert not list(tmp_path.rglob("plan.json"))


def test_a_wrong_uri_is_refused_without_its_password() -> None:
    with pytest.raises(UserError) as refused:
        absolute_uri("ftp://me:hunter2@host")
    assert "hunter2" not in str(refused.value) and "ftp://me:***@host" in str(refused.value)


def test_a_variable_stands_for_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://me:$DB_PASSWORD@host/db"
    assert absolute_uri(uri) == uri == without_password(uri)
    with pytest.raises(UserError, match=r"names \$DB_PASSWORD, which is not set here"):
        with_password(uri)
    monkeypatch.setenv("DB_PASSWORD", "hunter/2@")
    assert with_password(uri) == "postgresql://me:hunter%2F2%40@host/db"
    assert with_password("http://host:5000") == "http://host:5000"
    assert without_secrets("cannot log in with hunter/2@", uri) == "cannot log in with ***"


def test_what_a_server_says_is_repeated_without_the_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    with caplog.at_level(logging.WARNING):
        warn("postgresql://me:$DB_PASSWORD@host/db", RuntimeError("no such user: me:hunter2@host"))
    assert "no such user" in caplog.text and "hunter2" not in caplog.text


def listening_to_the_world(pids: set[int]) -> list[str]:
    """The sockets of these processes that listen on anything but the loopback."""
    inodes = set()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(file))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            loopback = local.startswith(("0100007F:", "0" * 24 + "01000000:", "0000000000000000FFFF00000100007F:"))
            if state == "0A" and f"socket:[{inode}]" in inodes and not loopback:
                found.append(local)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists() or not hasattr(socket, "AF_INET"), reason="Linux tells")
def test_ranks_on_one_machine_listen_on_the_loopback_alone(tmp_path: Path, shapes_root: Path) -> None:
    plan = a_plan(tmp_path, shapes_root, gpus=2)
    folder, seen, open_to_all = folder_of(plan), [], []

    def look() -> None:
        while not any(line["kind"] == "step" for line in read_journal(folder)):
            time.sleep(0.05)
        ranks = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(folder.plan).encode() in (process / "cmdline").read_bytes():
                    ranks.add(int(process.name))
            except OSError:
                continue
        seen.extend(ranks)
        open_to_all.extend(listening_to_the_world(ranks))

    thread = threading.Thread(target=look)
    thread.start()
    assert run_local(plan) == Status.FINISHED
    thread.join()
    assert len(seen) >= 2 and open_to_all == []

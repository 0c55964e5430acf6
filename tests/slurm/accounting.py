"""The database behind `sacct`: MariaDB on loopback and Slurm's slurmdbd in front of it."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from tests.slurm.configuration import slurmdbd_conf
from tests.slurm.daemons import Daemons, wait_until


def start_accounting(folder: Path, daemons: Daemons, *, port: int, database_port: int) -> None:
    """Start both, with an empty database. Raises RuntimeError with the end of a log where one does not answer."""
    data, socket = folder / "mariadb", folder / "mariadb.socket"
    install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    daemons.start(
        "mariadbd",
        [
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}",
            f"--pid-file={folder}/mariadbd.pid", "--bind-address=127.0.0.1", f"--port={database_port}",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900",
        ],
    )  # fmt: skip
    client = ["mariadb", "--no-defaults", "--user=root", f"--socket={socket}"]
    if not wait_until(lambda: _runs(*client, "--execute=select 1"), timeout_s=150):
        raise RuntimeError(f"mariadbd does not answer:\n{daemons.last_lines('mariadbd')}")
    password = secrets.token_hex(8)
    statements = (
        "create database slurm_acct_db; "
        f"create user slurm@'127.0.0.1' identified by '{password}'; "
        f"create user slurm@localhost identified by '{password}'; "
        "grant all on slurm_acct_db.* to slurm@'127.0.0.1', slurm@localhost"
    )
    subprocess.run([*client, f"--execute={statements}"], check=True, capture_output=True, timeout=30)
    conf = folder / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(slurmdbd_conf(folder, port=port, database_port=database_port, password=password))
    daemons.start("slurmdbd", ["slurmdbd", "-D"], SLURM_CONF=str(folder / "slurm.conf"))


def _runs(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

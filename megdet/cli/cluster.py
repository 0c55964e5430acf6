"""`megdet cluster`: what the cluster has."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.config.cluster import ClusterSettings
from megdet.errors import UserError
from megdet.runs.as_json import print_json

if TYPE_CHECKING:
    from megdet.launchers.slurm.discovery import Cluster

SUMMARY = "show what Slurm has to run on; --write: a file to start from"
HELP = """\
Ask Slurm what it has: partitions with their nodes, GPUs, cores, memory and time limits. `python launch.py -m ...
hydra/launcher=submitit_slurm` asks the same, and needs no file; one is for what it should not find out each time,
and for what only you know: setup lines, a container, memory, an account.

  megdet cluster                        what there is
  megdet cluster --write                conf/cluster/mine.yaml, to be filled in; used with cluster=mine
  megdet cluster --write big --partition long
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON (docs/programs.md has its keys)")
    parser.add_argument("--partition", help="of the file; default: the default partition")
    parser.add_argument(
        "--write", nargs="?", const="mine", metavar="NAME", help="write conf/cluster/NAME.yaml here (mine)"
    )


def run(parsed: argparse.Namespace) -> int:
    """Show, and write if asked to; always 0. Raises UserError where Slurm does not answer or the file exists."""
    from megdet.launchers.slurm.client import SlurmClient, SlurmError
    from megdet.launchers.slurm.discovery import discover
    from megdet.launchers.slurm.limits import read_limits

    try:
        call = SlurmClient().call
        found = read_limits(call).within(discover(call), ClusterSettings())
    except SlurmError as error:
        raise UserError(f"Slurm does not say what there is ({error}); ask on a login node of the cluster") from None
    if parsed.json:
        print_json(asdict(found))
        return _write(found, parsed) if parsed.write else 0
    for shape in found.shapes:
        print(shape.describe() + (f"; features {', '.join(shape.features)}" if shape.features else ""))
    account = f"your account is {found.account}; " if found.account else ""
    limit = f"; you may have {found.max_submit_jobs} jobs at a time" if found.max_submit_jobs else ""
    print(f"{account}an array may have {found.max_array_size - 1} jobs{limit}")
    return _write(found, parsed) if parsed.write else 0


def _write(found: Cluster, parsed: argparse.Namespace) -> int:
    from megdet.launchers.slurm.site_file import site_file

    path = Path("conf") / "cluster" / f"{parsed.write}.yaml"
    if path.exists():
        raise UserError(f"{path} exists; choose another name, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(site_file(found, name=parsed.write, partition=parsed.partition))
    print(f"written to {path}; use it with cluster={parsed.write}", file=sys.stderr if parsed.json else sys.stdout)
    return 0

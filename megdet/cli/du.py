"""`megdet du`: what runs take on disk."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from megdet.cli.disk import bytes_in, files_in, replaced_runs, size_text, sweeps_folder
from megdet.cli.runs import DEFAULT, select_runs
from megdet.runs.as_json import print_json
from megdet.runs.code import CODE
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import CANARIES, PICTURES, PROBES

SUMMARY = "what runs take on disk, the largest first"
HELP = """\
List what runs take on disk: checkpoints (weights and momenta: the present one, the one before, and those kept for runs
that go on from there), pictures, logs and records. Below them what sweeps and canaries take, the copies of the code
that runs were started with, and runs that were begun anew (`megdet rm --replaced` removes these).

  megdet du
  megdet du 'b16-*'
"""
KINDS = ("checkpoints", "pictures", "rest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: all of ./runs")
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")


def run(parsed: argparse.Namespace) -> int:
    """Print the table; always 0."""
    found = {folder.name: _sizes(folder) for folder in select_runs(parsed.runs)}
    rows = dict(sorted(found.items(), key=lambda row: -row[1].total()))
    besides = _besides(parsed.runs)
    if parsed.json:
        print_json({"runs": [{"run": name, **sizes} for name, sizes in rows.items()], "besides": besides})
    else:
        _print(rows, besides)
    return 0


def _besides(words: Sequence[str]) -> dict[str, int]:
    """What lies beside the runs of a whole folder; nothing where single runs are named."""
    runs = Path(words[0] if words else DEFAULT)
    if len(words) > 1 or (words and RunFolder(runs).exists) or not runs.is_dir():
        return {}
    begun_anew = sum(bytes_in(folder.path) for folder in replaced_runs(runs))
    return {
        "sweeps": bytes_in(sweeps_folder(runs)),
        "canaries": bytes_in(runs / CANARIES),
        "stability": bytes_in(runs / PROBES),
        "code": bytes_in(runs / CODE),
        "begun anew": begun_anew,
    }


def _sizes(folder: RunFolder) -> Counter[str]:
    sizes = Counter(dict.fromkeys(KINDS, 0))
    for path, size in files_in(folder.path):
        is_checkpoint = path.suffix == folder.checkpoint.suffix
        sizes["checkpoints" if is_checkpoint else "pictures" if path.parent.name == PICTURES else "rest"] += size
    return sizes


def _print(rows: dict[str, Counter[str]], besides: dict[str, int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("run", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for kind in (*KINDS, "all"):
        table.add_column(kind, justify="right", no_wrap=True)
    for name, sizes in rows.items():
        table.add_row(name, *(size_text(sizes[kind]) for kind in KINDS), size_text(sizes.total()))
    if len(rows) > 1:
        table.add_section()
        total: Counter[str] = sum(rows.values(), Counter())
        table.add_row(f"{len(rows)} runs", *(size_text(total[kind]) for kind in KINDS), size_text(total.total()))
    for name, size in besides.items():
        if size:
            table.add_row(name, "", "", "", size_text(size))
    Console(highlight=False, markup=False).print(table)

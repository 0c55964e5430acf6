"""The tables and figures of one sweep, written into its folder; MLflow shows them as the sweep's artifacts.

`launch.py -m` calls this when a sweep is over. Asked for again when nothing has changed, it costs nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from megdet.runs.run_files import JOURNAL, STATE
from megdet.runs.sweep_folder import Sweep

TABLES_TEXT, TABLES_PAGE, FIGURES = "tables.md", "tables.html", "figures"


def write_results(folder: Path) -> None:
    """Write tables.md, tables.html and figures/*.png of the runs of the sweep in `folder`, if any has begun.

    The sweep itself is over and well: what goes wrong here is a warning.
    """
    try:
        newest = _last_change(folder)
        page = folder / TABLES_PAGE
        if newest and (not page.exists() or page.stat().st_mtime_ns < newest):
            _write(folder)
            # What a run has written meanwhile is newer.
            os.utime(page, ns=(newest, newest))
    except Exception as error:
        print(
            f"the sweep's tables and figures could not be written ({type(error).__name__}: {error}); "
            "`megdet tables` and `megdet figures` make them of its runs",
            file=sys.stderr,
            flush=True,
        )


def _last_change(folder: Path) -> int:
    """When a run of the sweep last wrote something, in nanoseconds; 0 where none has begun."""
    runs_dir, runs = folder.parents[1], Sweep.read(folder).run_ids
    files = [runs_dir / run / name for run in runs for name in (JOURNAL, STATE)]
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


def _write(folder: Path) -> None:
    # Imported here: most sweeps that end have nothing new.
    from megdet.analysis.frames import STEPS, load_runs
    from megdet.analysis.make_figures import write_figures
    from megdet.analysis.make_tables import tables_of
    from megdet.analysis.render import html_page, markdown
    from megdet.analysis.tables.registry import PAPER_TABLES

    runs = load_runs(str(folder.parents[1]), steps=STEPS)
    runs = runs.where(runs.runs["run_id"].isin(Sweep.read(folder).run_ids))
    tables = tables_of(runs, PAPER_TABLES.values())
    (folder / TABLES_TEXT).write_text(markdown(tables), encoding="utf-8")
    if len(runs.epochs) or len(runs.steps):
        for path in write_figures(runs, folder / FIGURES):
            if path.suffix == ".svg":
                path.unlink()  # MLflow's pages show PNG
    # The last of all: without it, what was interrupted or failed is made again.
    (folder / TABLES_PAGE).write_text(html_page(tables), encoding="utf-8")
    print(f"tables and figures of the sweep: {folder}", flush=True)

"""How long MLflow's own pages take to show a sweep of 2,000 runs, in a real browser.

python -m benchmarks.mlflow_ui                  # 2,000 runs, five visits each; needs Chromium
python -m benchmarks.mlflow_ui --runs 200 --repeats 2

A run and its sweep are pushed by our mirror into SQLite; the run's rows are then copied in the database, each copy
with its own name, params and mmAP. `first visit`: nothing of the pages is in the browser's cache; the others follow
it. Processor seconds are of server and browser together: what a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.analysis import fabricate, mlflow_server
from benchmarks.report import write_report
from megdet.runs.folder import RunFolder
from megdet.runs.sweep_folder import record_sweep
from megdet.tracking.client import prepare
from megdet.tracking.mirror import mirror
from megdet.tracking.sweep_mirror import mirror_sweep
from megdet.tracking.view import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

VIEWS = (View.SWEEPS, View.BEST_FIRST)
EXPERIMENT, SWEEP = "megdet", "batch=16,32,64,128,256"
FULL_TABLE_PX = 1000
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    parser.add_argument("--screenshot", type=Path, help="a PNG of the table, sorted by mmAP")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("no Chromium here; Debian and Ubuntu have one: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = f"sqlite:///{folder}/mlflow.db"
        experiment, parent = fill(folder, database, arguments.runs)
        with mlflow_server(database, folder) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            visits = [
                visit(browser, f"{server}/#/experiments/{experiment}/runs", parent, arguments)
                for _ in range(arguments.repeats)
            ]
            browser.close()
    print(f"{'':32} {'seconds':>8} {'processor seconds':>18}   (medians)")
    times_s = {step: [one[step][0] for one in visits] for step in visits[0]}
    processor_s = {step: [one[step][1] for one in visits] for step in visits[0]}
    for step in times_s:
        print(f"{step:32} {statistics.median(times_s[step]):8.2f} {statistics.median(processor_s[step]):18.2f}")
    numbers = {"runs": arguments.runs, "times_s": times_s, "processor_s": processor_s}
    print(f"written to {write_report('mlflow_ui', numbers, arguments.out)}")


def visit(
    browser: Browser, page_of_runs: str, parent: str, arguments: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Seconds that each step of a visit takes, from the click to what it should show; and of processors."""
    page = browser.new_page(viewport={"width": 1600, "height": FULL_TABLE_PX})
    page.set_default_timeout(120_000)
    by_sweep, best_first = (f"{page_of_runs}?workflowType=machine_learning&viewStateShareKey={view}" for view in VIEWS)
    a_run = page.locator(".ag-center-cols-container .ag-row").nth(10)
    the_sweep = page.locator(".ag-row").get_by_text(SWEEP).first
    steps: dict[str, tuple[Callable[[], object], Locator]] = {
        "first visit: the sweep's row": (lambda: open_page(page, by_sweep), the_sweep),
        "its runs, when it is opened": (lambda: page.locator(".ag-row button").first.click(), a_run),
        "again: the sweep's row": (lambda: page.reload(wait_until="commit"), the_sweep),
        "the best runs by mmAP": (lambda: open_page(page, best_first), a_run),
        "the sweep's own page": (
            lambda: open_page(page, f"{page_of_runs}/{parent}"),
            page.get_by_text("Tables and figures of them").first,
        ),
    }
    taken = {}
    for step, (do, shown) in steps.items():
        start, processor = time.perf_counter(), processor_seconds()
        do()
        shown.wait_for()
        taken[step] = time.perf_counter() - start, processor_seconds() - processor
        if arguments.screenshot and "mmAP" in step:
            page.wait_for_timeout(1000)
            page.screenshot(path=arguments.screenshot)
    page.context.close()
    return taken


def processor_seconds() -> float:
    """Of all processes that this one has started, and theirs."""
    ticks, children = {}, defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))
            children[int(fields[1])].append(int(path.parent.name))
    found = [os.getpid()]
    for process in found:
        found += children[process]
    return sum(ticks[process] for process in found[1:]) / os.sysconf("SC_CLK_TCK")


def open_page(page: Page, url: str) -> None:
    # Another # alone would not load the page again.
    page.goto("about:blank")
    page.goto(url, wait_until="commit")


def fill(folder: Path, uri: str, number: int) -> tuple[str, str]:
    """A sweep of `number` runs in MLflow; the ids of the experiment and of the sweep's run."""
    fabricate(folder / "runs", number, steps=200)
    run_ids = sorted(path.name for path in (folder / "runs").iterdir())
    sweep = record_sweep(
        folder / "runs",
        name=SWEEP,
        command=f"python launch.py -m {SWEEP}",
        run_ids=run_ids,
        uri=uri,
        experiment=EXPERIMENT,
        settings={"batch": "16, 32, 64, 128, 256"},
    )
    first = RunFolder(folder / "runs" / run_ids[0])
    if not (prepare(uri, EXPERIMENT) and mirror_sweep(sweep, uri, EXPERIMENT) and mirror(first, uri, EXPERIMENT)):
        raise SystemExit("the mirror failed")
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        (parent, experiment) = database.execute(
            "select run_uuid, experiment_id from tags natural join runs where key = 'kind' and value = 'sweep'"
        ).fetchone()
        copy_run(database, parent, number)
    return str(experiment), str(parent)


def copy_run(database: sqlite3.Connection, parent: str, number: int) -> None:
    """Copies of the one run below `parent`, until there are `number` of it."""
    (first,) = database.execute("select run_uuid from runs where run_uuid != ?", (parent,)).fetchone()
    asked = itertools.cycle(itertools.product((16, 32, 64, 128, 256), (0, 16, 32)))
    ids = [(f"{copy:032x}", *next(asked), copy) for copy in range(1, number)]
    for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
        columns = [column for _, column, *_ in database.execute(f"pragma table_info({table})")]
        rows = database.execute(f"select {', '.join(columns)} from {table} where run_uuid = ?", (first,)).fetchall()
        place = columns.index("run_uuid")
        marks = ", ".join("?" * len(columns))
        for run_uuid, *_ in ids:
            copied = ([run_uuid if i == place else value for i, value in enumerate(row)] for row in rows)
            database.executemany(f"insert into {table} ({', '.join(columns)}) values ({marks})", copied)
    for run_uuid, batch, bn_size, seed in ids:
        name = f"b{batch}-bn{bn_size}-normal-s{seed}"
        database.execute(
            "update runs set name = ?, start_time = start_time + ? where run_uuid = ?", (name, seed, run_uuid)
        )
        for param, number_asked in {"batch": batch, "bn_size": bn_size, "seed": seed}.items():
            change = "update params set value = ? where run_uuid = ? and key = ?"
            database.execute(change, (str(number_asked), run_uuid, param))
        for tag, value in {"run_id": f"{name}-{run_uuid[-8:]}", "mlflow.runName": name}.items():
            database.execute("update tags set value = ? where run_uuid = ? and key = ?", (value, run_uuid, tag))
        mmap = 30 + 8 * random.Random(seed).random()
        database.execute(
            "update latest_metrics set value = ? where run_uuid = ? and key = 'final/mmAP'", (mmap, run_uuid)
        )


if __name__ == "__main__":
    main()

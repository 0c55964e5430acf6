"""How long tables and figures wait for their runs: from run folders, from an MLflow database, from an MLflow server.

python -m benchmarks.analysis                # 2,000 runs of 11 epochs and 1,000 logged steps each
python -m benchmarks.analysis --runs 200 --repeats 3

The run folders are fabricated; MLflow is given one run by our own mirror, copied within its database under other
names. Each reading starts in a new process, as the scripts do. `tables` is what Tables 2 to 4 need, `ratios` what
Table 1 needs, `curves` what the figures over epochs need, `steps` the curves of the learning rate and the loss too.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.report import ROOT, write_report
from megdet.config.schema import Config
from megdet.planning.plan import make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import COCO_METRICS, Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.tracking.mirror import mirror

EPOCHS = 11
READ = """
import sys, time
from megdet.analysis.frames import EPOCHS, STEPS, load_runs
from megdet.analysis.tables.table1 import MEASURES

needs = {"tables": ((), ()), "ratios": (MEASURES, ()), "curves": (EPOCHS, ()), "steps": (EPOCHS, STEPS)}
epochs, steps = needs[sys.argv[2]]
start, start_cpu = time.perf_counter(), time.process_time()
found = load_runs(sys.argv[1], epochs=epochs, steps=steps)
seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
assert len(found.runs) == int(sys.argv[3]) and found.runs["mmAP"].notna().all()
assert sys.argv[2] == "tables" or len(found.epochs) == 11 * len(found.runs)
assert sys.argv[2] != "steps" or len(found.steps) > 100 * len(found.runs)
print([seconds, cpu_seconds])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000, help="logged steps of a run")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--needs", nargs="+", default=["tables", "ratios", "curves", "steps"])
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    arguments = parser.parse_args()
    times_s: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fabricate(folder / "runs", arguments.runs, steps=arguments.steps)
        database = f"sqlite:///{folder}/mlflow.db"
        copy_in_mlflow(next((folder / "runs").iterdir()), database, arguments.runs)
        with mlflow_server(database, folder) as server:
            for source, where in {"folders": f"{folder}/runs", "SQLite": database, "server": server}.items():
                for need in arguments.needs:
                    taken = [seconds_to_read(where, need, arguments.runs) for _ in range(arguments.repeats)]
                    times_s.setdefault(source, {})[need] = taken
                    seconds, cpu_seconds = map(statistics.median, zip(*taken, strict=True))
                    print(f"{source:8} {need:7} {seconds:8.2f} s, of the reader's CPU {cpu_seconds:8.2f} s", flush=True)
    numbers = {"runs": arguments.runs, "steps": arguments.steps, "times_s": times_s}
    print(f"written to {write_report('analysis', numbers, arguments.out)}")


def fabricate(runs: Path, number: int, *, steps: int) -> None:
    """Finished runs of one experiment that differ in their seed; their journals are alike."""
    config = Config()
    config.cluster.nodes, config.cluster.gpus_per_node = 16, 8
    journal = b""
    for seed in range(number):
        config.seed = seed
        plan = make_plan(config, commit="c0ffee" * 6 + "c0ff")
        folder = RunFolder(runs / plan.run_id).claim("benchmark")
        folder.write_plan(plan.to_json())
        folder.write_state(RunState(Status.FINISHED, attempts=1, started="2026-11-20T10:00:00+00:00", train_s=36000.0))
        if not journal:
            write_journal(folder, steps)
            journal = folder.journal.read_bytes()
        folder.journal.write_bytes(journal)


def write_journal(folder: RunFolder, steps: int) -> None:
    names = (*COCO_METRICS, "rpn_ratio_percent", "roi_ratio_percent")
    with Journal(folder) as journal:
        for step in range(1, steps + 1):
            epoch = EPOCHS * step / steps
            journal.step(20 * step, epoch=epoch, lr=0.02, loss=2 / step, grad_norm=1.5, images_per_s=9.7)
            if int(epoch) > int(EPOCHS * (step - 1) / steps):
                numbers = {name: 3.0 * epoch for name in names}
                journal.epoch(int(epoch), step=20 * step, train_s=60 * epoch, eval_s=6 * epoch, lr=0.02, **numbers)


def copy_in_mlflow(folder: Path, uri: str, number: int) -> None:
    """Push one run by our mirror, then copy its rows in the database until there are `number` of it."""
    if not mirror(RunFolder(folder), uri, "megdet"):
        raise SystemExit("the mirror failed")
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        (first,) = database.execute("select run_uuid from runs").fetchone()
        for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
            columns = [column for _, column, *_ in database.execute(f"pragma table_info({table})")]
            rows = database.execute(f"select {', '.join(columns)} from {table}").fetchall()
            place = columns.index("run_uuid")
            marks = ", ".join("?" * len(columns))
            for copy in range(1, number):
                copied = ([f"{copy:032x}" if i == place else v for i, v in enumerate(row)] for row in rows)
                database.executemany(f"insert into {table} ({', '.join(columns)}) values ({marks})", copied)
        database.execute("update tags set value = value || run_uuid where key = 'run_id' and run_uuid != ?", (first,))


@contextmanager
def mlflow_server(database: str, folder: Path) -> Iterator[str]:
    """The URI of a server of the database, on this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--host", "127.0.0.1"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([*command, "--port", str(port), "--workers", "1"], stdout=log, stderr=log)
    try:
        for _ in range(120):
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (URLError, OSError):
                time.sleep(0.5)
        else:
            raise SystemExit((folder / "server.log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def seconds_to_read(source: str, need: str, runs: int) -> tuple[float, float]:
    """Of the clock, and of the reading process's CPU: the one to go by on a machine that does other things too."""
    command = [sys.executable, "-c", READ, source, need, str(runs)]
    # Our mirror has told MLflow, in this process, to give up sooner than a reader should.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, cpu_seconds = json.loads(done.stdout)
    return seconds, cpu_seconds


if __name__ == "__main__":
    main()

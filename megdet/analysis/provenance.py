"""The runs behind a table, with ids, commits and hashes, as a table below it."""

from __future__ import annotations

import pandas as pd

from megdet.analysis.commits import short_commits
from megdet.analysis.table import NOT_RUN, Column, Kind, Row, Table, table_of

FACTS = {
    "experiment hash": "experiment_id", "plan": "plan_sha256", "seed": "seed", "# of GPUs": "gpus", "device": "device",
    "status": "status", "commit": "commits", "code": "code", "data": "data_sha256", "weights": "weights_sha256",
}  # fmt: skip
COLUMNS = (Column("run", Kind.NAMING), *(Column(heading, Kind.FACT) for heading in FACTS))
ABOUT = (
    "The run id ends in a hash over all settings that decide the result, with the seed; the experiment hash is over "
    "the same without it, the plan's over settings, layout and steps (plan_sha256). code: whether it was that of the "
    "commit; if not, the name of its copy in runs/.code. data, weights: the first digits of the SHA-256 of "
    f"the data's content and of the file that training began from; {NOT_RUN}: not recorded, or no file. a → b: the "
    "run was resumed with another."
)


def provenance_of(table: Table) -> Table | None:
    """The runs behind the table's cells, in the order of its rows; None where it shows no run."""
    if table.runs.empty:
        return None
    # One experiment may have been run with two versions of the code: both are shown.
    runs = table.runs.drop_duplicates(["run_id", "commits", "train_s"])
    shown = runs.assign(commits=short_commits(runs), code=[_code(run) for _, run in runs.iterrows()])
    rows = [
        Row((run["run_id"],), [run["run_id"], *(run[fact] for fact in FACTS.values())]) for _, run in shown.iterrows()
    ]
    name = table.title.partition(":")[0]
    return table_of(
        f"Provenance of {name}", table.shown.partition(";")[0], COLUMNS, rows, about=ABOUT, legend="",
        label=f"{table.label}-provenance",
    )  # fmt: skip


def _code(run: pd.Series) -> str:
    if not run["dirty"]:
        return "as committed"
    return f"changed: {run['code_sha256']}" if run["code_sha256"] else "changed"

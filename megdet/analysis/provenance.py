"""Which runs a table was made of: ids, commits and hashes, as a table below it."""

from __future__ import annotations

from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import NOT_RUN, Row, Table
from megdet.runs.provenance import ARROW

COLUMNS = ("run", "experiment hash", "seed", "# of GPUs", "state", "commit", "code", "data", "weights")
ABOUT = (
    "The run id ends in a hash over all settings that decide the result, with the seed; the experiment hash is over "
    "the same without it. code: whether it was that of the commit. data, weights: the first digits of the SHA-256 of "
    f"the data's content and of the file that training began from; {NOT_RUN}: not recorded, or no file. a → b: the "
    "run was resumed with another."
)


def provenance_of(table: Table) -> Table | None:
    """The runs behind the table's cells, in the order of its rows; None where it shows no run."""
    # One experiment may have been run with two versions of the code: both are shown.
    runs = {(run.run_id, run.commits, run.train_s): run for row in table.rows for run in row.runs}
    if not runs:
        return None
    name = table.title.partition(":")[0]
    rows = tuple(_row(run) for run in runs.values())
    return Table(f"Provenance of {name}", table.runs.partition(";")[0], COLUMNS, rows, ABOUT, legend="")


def _row(run: RunRecord) -> Row:
    code = "changed" if run.dirty else "as committed"
    commits = ARROW.join(run.commits)
    files = (run.data_sha256 or None, run.weights_sha256 or None)
    cells = (run.run_id, run.experiment_id, str(run.seed), str(run.gpus), run.state, commits, code, *files)
    return Row(cells, key=(run.run_id,), runs=(run,))

"""The paper's claim on time: 16 images on 8 GPUs took 33.2 hours, 256 on 128 GPUs 4.1 (Table 3)."""

from __future__ import annotations

from functools import cache

import pandas as pd

from megdet.analysis.claims.evidence import Evidence
from megdet.analysis.claims.verdict import Mark, Verdict
from megdet.analysis.hardware import ON_CPU, hardware_of, of_one_device
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import BASE, RowKey, row_name
from megdet.planning.cost_fit import fit, table3_times
from megdet.settings.counted import counted

CLAIMED = 8.0
LARGE: RowKey = (256, 16, "normal", 1.0)


def faster(evidence: Evidence) -> Verdict:
    """Judged by runs on the paper's numbers of GPUs alone; without them it says what the cost model predicts, and how
    much faster more ranks made one row here.
    """
    timed = of_one_device(evidence.group.runs[evidence.group.runs["status"] == "finished"])
    before, after = (_hours(evidence.runs(key), timed, key) for key in (BASE, LARGE))
    if before is not None and after is not None:
        mark = Mark.REPRODUCED if before / after >= CLAIMED else Mark.NOT_REPRODUCED
        return Verdict(mark, f"{before / after:.1f} times faster")
    used = ", ".join(hardware_of(evidence.group.runs.sort_values("gpus", kind="stable")).unique())
    why = [f"needs 8 and 128 GPUs; these runs had {used}", predicted(), scaling(evidence, timed)]
    return Verdict(Mark.NOT_TESTABLE, "; ".join(filter(None, why)))


def _hours(runs: pd.DataFrame, timed: pd.DataFrame, key: RowKey) -> float | None:
    """The mean hours of those of a row's runs that are `timed` and had the paper's GPUs."""
    gpus = next(row.gpus for row in paper_rows("table3") if row.key == key)
    of_row = timed.loc[runs.index.intersection(timed.index)]
    on_gpus = ~of_row["device"].str.startswith(ON_CPU)
    seconds = of_row.loc[on_gpus & (of_row["gpus"] == gpus), "train_s"]
    return float(seconds.mean()) / 3600 if len(seconds) else None


@cache
def predicted() -> str:
    """What the cost model says of the two rows when it is fitted to the paper's other 18 times."""
    times = {(t.plan.config.batch, t.plan.config.bn_size, t.plan.config.schedule.name): t for t in table3_times()}
    two = [times[key[:3]] for key in (BASE, LARGE)]
    model = fit([time for time in times.values() if time not in two])
    before, after = (model.hours(time.plan) for time in two)
    printed = " and ".join(f"{time.hours:g}" for time in two)
    return (
        f"the cost model, fitted to the other {len(times) - 2} times of the paper, says {before:.1f} and {after:.1f} h "
        f"(paper {printed}): {before / after:.1f} times faster"
    )


def scaling(evidence: Evidence, timed: pd.DataFrame) -> str:
    """How much faster a row was on more GPUs (or CPU ranks) here; empty where no row ran on several numbers of them."""
    seconds = {key: timed.loc[runs.index.intersection(timed.index)] for key, runs in evidence.rows.items()}
    means = {key: runs.groupby("gpus")["train_s"].mean().sort_index() for key, runs in seconds.items()}
    key = max(means, key=lambda key: len(means[key]), default=None)
    if key is None or len(means[key]) < 2:
        return ""
    (least, longest), *others = means[key].items()
    faster, *more = (f"{longest / took:.2f} times as fast on {gpus} ranks" for gpus, took in others)
    than = f"{faster} as on {counted(least, 'rank')}"
    return f"here {row_name(key)} was {' and '.join([than, *more])}"

"""The rows of the paper's tables: which settings make a row, how rows are named, and their order everywhere."""

from __future__ import annotations

import pandas as pd

KEY = ("batch", "bn_size", "schedule", "lr.scale")
"""What the rows of the paper's tables vary."""
RowKey = tuple[int, int, str, float]
"""The values of KEY. The number of GPUs is no part of it: it does not change what is learned."""
BASE: RowKey = (16, 0, "normal", 1.0)
"""16-base, the baseline of Table 3: what improvement and speed-up are against."""


def by_row(runs: pd.DataFrame) -> dict[RowKey, pd.DataFrame]:
    """The runs of each row, by seed; the rows in their order (`place_of`)."""
    parts = {key_of(part.iloc[0]): part for _, part in runs.sort_values(["seed", "run_id"]).groupby(list(KEY))}
    return {key: parts[key] for key in sorted(parts, key=place_of)}


def key_of(run: pd.Series) -> RowKey:
    """The row that a run belongs to."""
    batch, bn_size, schedule, scale = run[list(KEY)]
    return int(batch), int(bn_size), str(schedule), float(scale)


def place_of(key: RowKey) -> tuple[bool, str, int, int, float]:
    """Sort key of rows: normal schedule first, then batch, BN size, full learning rate first."""
    batch, bn_size, schedule, scale = key
    return schedule != "normal", schedule, batch, bn_size, -scale


def label_of(key: RowKey) -> str:
    """A row's name as the paper prints it: `256 (long)`."""
    batch, _, schedule, scale = key
    remarks = [] if schedule == "normal" else [schedule]
    if scale != 1:
        remarks.append("half learning rate" if scale == 0.5 else f"{scale:g}x learning rate")
    return str(batch) + (f" ({', '.join(remarks)})" if remarks else "")


def bn_label(bn_size: int) -> str:
    """`BN 16`, or `frozen BN`."""
    return f"BN {bn_size}" if bn_size else "frozen BN"


def row_name(key: RowKey) -> str:
    """A row's name where BN size has no column: `256 (long), BN 16`."""
    return f"{label_of(key)}, {bn_label(key[1])}"

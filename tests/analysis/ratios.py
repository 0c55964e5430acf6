"""Fabricated runs with the ratios of Table 1."""

from __future__ import annotations

import json
from pathlib import Path


def with_ratios(folder: Path, *, rpn: float, roi: float) -> Path:
    """The run's epochs with ratios that rise by `rpn` and `roi` percent in each."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "epoch":
            line |= {"rpn_ratio_percent": rpn * line["epoch"], "roi_ratio_percent": roi * line["epoch"]}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder

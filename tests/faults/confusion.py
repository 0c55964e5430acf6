"""What `megdet why` told of faults whose kind and rank were known, as a table.

    python -m tests.faults.confusion results/faults/told.jsonl

The file is what tests/faults/test_why.py appends to where MEGDET_TOLD names it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Told:
    """One injected fault, and the words for it. `rank` None: of the run as a whole."""

    kind: str
    cause: str
    told: str
    rank: int | None
    told_rank: int | None

    def keep(self) -> None:
        """Append to the file that MEGDET_TOLD names, if any."""
        if place := os.environ.get("MEGDET_TOLD"):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            with Path(place).open("a") as file:
                file.write(json.dumps(asdict(self)) + "\n")


def table(all_told: Sequence[Told]) -> str:
    """Markdown: a row for each kind of fault, with the causes that were told and how often the rank was right."""
    lines = ["| fault | cause | times | told | rank right |", "|---|---|--:|---|--:|"]
    kinds = dict.fromkeys((one.kind, one.cause) for one in all_told)
    for kind, cause in kinds:
        of_kind = [one for one in all_told if (one.kind, one.cause) == (kind, cause)]
        told = ", ".join(f"{name} {count}" for name, count in Counter(one.told for one in of_kind).most_common())
        ranked = [one for one in of_kind if one.rank is not None]
        right = f"{sum(one.rank == one.told_rank for one in ranked)} of {len(ranked)}" if ranked else ""
        lines.append(f"| {kind} | {cause} | {len(of_kind)} | {told} | {right} |")
    right_cause = sum(one.cause == one.told for one in all_told)
    both = sum(one.cause == one.told and one.rank in (None, one.told_rank) for one in all_told)
    lines.append(f"\nCause right: {right_cause} of {len(all_told)}; cause and rank: {both} of {len(all_told)}.")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Told(**json.loads(line)) for line in Path(sys.argv[1]).read_text().splitlines()]))

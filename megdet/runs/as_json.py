"""What commands print with `--json`, for programs; docs/programs.md has the keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from megdet.runs.files import strict

FORMAT = 1
"""Of all of them: raised when a key goes or means another thing. New keys may come without."""


def print_json(values: Mapping[str, Any]) -> None:
    """One object on standard output; NaN and infinities, which JSON lacks, become null."""
    print(json.dumps(strict({"format": FORMAT, **values}), indent=2))

"""Our rows beyond those of the paper's table."""

from __future__ import annotations

from collections.abc import Callable

from megdet.analysis.comparable import Group
from megdet.analysis.paper import key_of_asked
from megdet.analysis.rows import KEY, RowKey, by_row, label_of
from megdet.analysis.setting_values import setting_text
from megdet.analysis.table import OURS
from megdet.analysis.table_spec import RowSpec, TableSpec


def own_rows(spec: TableSpec, group: Group, belongs: Callable[[RowKey], bool], *, base: str = "") -> list[RowSpec]:
    """Those of the group that `belongs` takes and the spec has not, marked; `base` follows a frozen one's batch."""
    printed = {key_of_asked(row.asked) for row in spec.rows if row.asked}
    return [
        RowSpec(_label(key, base if key[1] == 0 else ""), dict(zip(KEY, map(setting_text, key), strict=True)), {})
        for key in by_row(group.runs)
        if key not in printed and belongs(key)
    ]


def _label(key: RowKey, base: str) -> str:
    return label_of(key).replace(str(key[0]), f"{key[0]}{base}", 1) + OURS

"""Table 3: mini-batch sizes, BN sizes, GPUs and training policies."""

from __future__ import annotations

from collections.abc import Collection

from megdet.analysis.comparable import Group
from megdet.analysis.paper import paper_spec
from megdet.analysis.rows import BASE, RowKey, by_row
from megdet.analysis.table import Table
from megdet.analysis.tables.own_rows import own_rows
from megdet.analysis.tables.recipe import Recipe
from megdet.analysis.tables.spec_table import spec_table


def make(group: Group | None) -> Table | None:
    """The paper's rows, then ours with BN that it does not have.

    It has one baseline, 16-base; where that was not run, the frozen runs whose batch also ran with BN stand in for it.
    """
    spec = paper_spec("table3")
    keys = by_row(group.runs) if group else {}
    own = own_rows(spec, group, lambda key: key[1] > 0 or _is_baseline(key, keys), base="-base") if group else []
    return spec_table(spec, group, title=f"Table 3: {spec.title}", own=own)


def _is_baseline(key: RowKey, keys: Collection[RowKey]) -> bool:
    batch, _, schedule, scale = key
    with_bn = any(other[0] == batch and other[1] > 0 and other[2] == schedule for other in keys)
    return scale == 1 and with_bn and BASE not in keys


RECIPE = Recipe("3", make, is_of_the_paper=True)

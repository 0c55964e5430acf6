"""Table 2: mini-batch sizes without BN."""

from __future__ import annotations

from megdet.analysis.comparable import Group
from megdet.analysis.paper import paper_spec
from megdet.analysis.table import Table
from megdet.analysis.tables.own_rows import own_rows
from megdet.analysis.tables.recipe import Recipe
from megdet.analysis.tables.spec_table import spec_table


def make(group: Group | None) -> Table | None:
    """The paper's rows, then ours with frozen BN that it does not have."""
    spec = paper_spec("table2")
    own = own_rows(spec, group, lambda key: key[1] == 0) if group else []
    return spec_table(spec, group, title=f"Table 2: {spec.title}", own=own)


RECIPE = Recipe("2", make, is_of_the_paper=True)

"""Table 2: mini-batch sizes without BN."""

from __future__ import annotations

from megdet.analysis.comparable import Group
from megdet.analysis.paper import paper_sheet
from megdet.analysis.table import Table
from megdet.analysis.tables.own_rows import own_rows
from megdet.analysis.tables.recipe import Recipe
from megdet.analysis.tables.sheet_table import sheet_table


def make(group: Group | None) -> Table | None:
    """The paper's rows, then ours with frozen BN that it does not have."""
    sheet = paper_sheet("table2")
    own = own_rows(sheet, group, lambda key: key[1] == 0) if group else []
    return sheet_table(sheet, group, title=f"Table 2: {sheet.title}", own=own)


RECIPE = Recipe("2", make, is_of_the_paper=True)

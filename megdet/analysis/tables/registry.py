"""All tables by name. A new one is a module with a RECIPE, and its name in this list."""

from __future__ import annotations

from megdet.analysis.claims import table as claims
from megdet.analysis.tables import bn_statistics, gradient_variance, table1, table2, table3, table4
from megdet.analysis.tables.recipe import Recipe

TABLES: dict[str, Recipe] = {
    table.RECIPE.name: table.RECIPE
    for table in (table1, table2, table3, table4, claims, bn_statistics, gradient_variance)
}
PAPER_TABLES = {name: recipe for name, recipe in TABLES.items() if recipe.is_of_the_paper}
"""Those that are made where none is asked for by name."""

"""The same weights under other BN statistics: what `megdet.studies.bn_study` found."""

from __future__ import annotations

from megdet.analysis.cells import Seeds, decimals, signed
from megdet.analysis.comparable import Group
from megdet.analysis.studies import bn_statistics, early_text, missing_text, studied_label, studied_rows
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe
from megdet.runs.run_files import BN_STUDY

COCO = ("mmAP", "AP50", "AP75", "mmAR")
RUNNING = "running average"
COLUMNS = (
    *(Column(name, Kind.NAMING) for name in ("Batch size", "BN size", "statistics")),
    *(Column(name, Kind.MEASURED, decimals(1), better="up") for name in COCO),
    Column("difference", Kind.DIFFERENCE, signed(decimals(1))),
)
LEGEND = (
    "In percent; over several seeds, mean ± standard deviation (seeds). running average: as training left it, and as "
    "every other table has it. precise: the mean over the BN batches of so many training images, last weights. "
    "groups of k: each k evaluation images are normalised by their own statistics. difference: mmAP less that with "
    "the running average of the same runs. Bold: the best of its column."
)


def make(group: Group | None) -> Table | None:
    """The COCO numbers of a group's runs under each of the BN statistics that were tried; None without a study."""
    rows, about = [], []
    for key, early, part in studied_rows(bn_statistics(group.frames), group.frames) if group else ():
        usual = part[part["statistics"] == RUNNING].set_index("run")["mmAP"]
        for name, found in part.groupby("statistics", sort=False):
            numbers = [Seeds(tuple(found[metric].dropna()) if metric in found else ()) for metric in COCO]
            changes = (found.set_index("run")["mmAP"] - usual).dropna()
            change = changes.mean() if len(changes) and name != RUNNING else None
            cells = [studied_label(key, early), key[1], name, *numbers, change]
            rows.append(Row((*key, early, name), cells, (), found))
        about.append(early_text(key, early, part, BN_STUDY))
    if not group or not rows:
        return None
    title = "BN statistics: the same weights under other statistics"
    return table_of(
        title, group.title, COLUMNS, rows, about=" ".join(filter(None, about)), legend=LEGEND, label="bn-statistics"
    )


RECIPE = Recipe("bn", make, missing=missing_text(BN_STUDY))

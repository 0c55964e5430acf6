"""The same weights under other BN statistics: what `megdet.studies.bn_study` found."""

from __future__ import annotations

from statistics import fmean

from megdet.analysis.cells import Cell, Seeds, decimals, signed
from megdet.analysis.comparable import Group
from megdet.analysis.studies import (
    Statistics,
    StudiedRow,
    Study,
    bn_studies,
    early_rows_text,
    missing_text,
    runs_of,
    studied_rows,
)
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe
from megdet.runs.journal import BN_STUDY

COCO = ("mmAP", "AP50", "AP75", "mmAR")
RUNNING = "running average"
COLUMNS = (
    Column("Batch size", Kind.NAMING),
    Column("BN size", Kind.NAMING),
    Column("statistics", Kind.NAMING),
    *(Column(name, Kind.MEASURED, decimals(1), better="up") for name in COCO),
    Column("difference", Kind.DIFFERENCE, signed(1)),
)
LEGEND = (
    "In percent; over several seeds, mean ± standard deviation (seeds). running average: as training left it, and as "
    "every other table has it. precise: the mean over the BN batches of so many training images, last weights. "
    "groups of k: each k evaluation images are normalised by their own statistics. difference: mmAP less that with "
    "the running average of the same runs."
)


def make(group: Group | None) -> Table | None:
    """The COCO numbers of a group's runs under each of the BN statistics that were tried; None without a study."""
    rows = studied_rows(bn_studies(group.frames)) if group else []
    made = []
    for row in rows:
        names = dict.fromkeys(name for study in row.studies for name in study.found)
        made += [_row(row, name, [study for study in row.studies if name in study.found]) for name in names]
    if not group or not made:
        return None
    title = "BN statistics: the same weights under other statistics"
    about = early_rows_text(rows, BN_STUDY)
    return table_of(title, group.title, COLUMNS, made, about=about, legend=LEGEND, label="bn-statistics")


def _row(row: StudiedRow[Statistics], name: str, studies: list[Study[Statistics]]) -> Row:
    def cell(metric: str) -> Cell:
        return Seeds(tuple(value for study in studies if (value := study.found[name].get(metric)) is not None))

    mmAPs = [(study.found[name]["mmAP"], study.found.get(RUNNING, {}).get("mmAP")) for study in studies]
    changes = [one - usual for one, usual in mmAPs if one is not None and usual is not None]
    change = fmean(changes) if changes and name != RUNNING else None
    cells = [row.label, row.key[1], name, *(cell(metric) for metric in COCO), change]
    return Row((*row.key, row.early, name), cells, (), runs_of(studies))


RECIPE = Recipe("bn", make, missing=missing_text(BN_STUDY))

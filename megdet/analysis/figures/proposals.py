"""Figure 2: training images with the positive and negative proposals that a step sampled in them, over training."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from megdet.analysis.comparable import Group
from megdet.analysis.figures.pictures import WIDTH, height_of, hide, show, whole
from megdet.analysis.figures.small_and_large import small_and_large
from megdet.analysis.figures.style import entitle, new_figure
from megdet.analysis.paper import ratio_table
from megdet.analysis.rows import by_row, row_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

NAME = "proposals"
PATTERN = "pictures/proposals-*.png"
NARROW = 2
"""Blocks of no more columns stand side by side; wider ones below each other."""
_EPOCH = re.compile(r"proposals-epoch(\d+)-")


def draw(group: Group) -> Figure | None:
    """A block for a small and a large batch (Table 1's, where they were run); None without a picture.

    A row per epoch; in it the images with the smallest share of positives first, under its numbers of both.
    """
    drawn = tuple(row.key for row in ratio_table().rows)
    rows = by_row(group.runs[group.runs.index.isin(group.epochs["run"])])
    blocks = [
        block for key in small_and_large(rows, drawn) if (block := _first_with_pictures(group, rows[key])) is not None
    ]
    if not blocks:
        return None
    columns = max(len(images) for _, epochs in blocks for images in epochs.values())
    heights = [0.4 + sum(height_of(images) + 0.3 for images in epochs.values()) for _, epochs in blocks]
    if columns <= NARROW:
        figure = new_figure((WIDTH * columns + 0.4) * len(blocks), max(heights) + 0.5)
        parts = figure.subfigures(1, len(blocks), squeeze=False)[0]
    else:
        figure = new_figure(WIDTH * columns + 0.4, sum(heights) + 0.5)
        parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for (run, epochs), part in zip(blocks, parts, strict=True):
        _draw(part, run, epochs, columns)
    about = "Proposals of a training step, positive (thick, orange) : negative (thin, blue; some of them drawn)"
    entitle(figure, about, group, pd.concat([run for run, _ in blocks]))
    return figure


def _draw(part: SubFigure, run: pd.DataFrame, epochs: dict[int, list[Path]], columns: int) -> None:
    heights = [height_of(images) for images in epochs.values()]
    rows = part.subplots(len(epochs), columns, squeeze=False, height_ratios=heights)
    part.suptitle(f"{row_name(next(iter(by_row(run))))}, seed {run['seed'].item()}", fontsize=9, fontweight="bold")
    for (epoch, images), row in zip(epochs.items(), rows, strict=True):
        row[0].set_ylabel(f"epoch {epoch}", fontsize=8)
        for axes in row:
            hide(axes)
        for path, axes in zip(images, row, strict=False):
            show(path, axes)
            axes.set_title(_ratio(path), fontsize=8)


def _first_with_pictures(group: Group, runs: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, list[Path]]] | None:
    for run in runs.index:
        epochs: dict[int, list[Path]] = defaultdict(list)
        for path in sorted(whole(group.frames.files(run, PATTERN)), key=_share):
            if found := _EPOCH.match(path.name):
                epochs[int(found[1])].append(path)
        if epochs:
            return runs.loc[[run]], dict(sorted(epochs.items()))
    return None


def counts_of(path: Path) -> tuple[int, int] | None:
    """Positive and negative proposals of a picture, from its PNG texts; None where it has none (older runs)."""
    with Image.open(path) as picture:
        texts = picture.info
    return (int(texts["positive"]), int(texts["negative"])) if "positive" in texts else None


def _share(path: Path) -> tuple[float, str]:
    positive, negative = counts_of(path) or (0, 0)
    return positive / max(1, positive + negative), path.name


def _ratio(path: Path) -> str:
    counts = counts_of(path)
    return f"{counts[0]} : {counts[1]}" if counts else ""

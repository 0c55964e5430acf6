"""Figure 5: what the best run detects in the first validation images, with the ground truth dashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megdet.analysis.comparable import Group
from megdet.analysis.figures.pictures import WIDTH, height_of, hide, show, whole
from megdet.analysis.figures.style import entitle, new_figure
from megdet.analysis.rows import by_row, row_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "detections"
PATTERN = "pictures/detections-*.png"
COLUMNS = 3


def draw(group: Group) -> Figure | None:
    """The pictures of the finished run of the highest mmAP that left some; None without one."""
    finished = group.runs[group.runs["mmAP"].notna()].sort_values(["mmAP", "run_id"], ascending=[False, True])
    for run in finished.index:
        if paths := whole(group.frames.files(run, PATTERN)):
            best = finished.loc[[run]]
            break
    else:
        return None
    rows = [paths[first : first + COLUMNS] for first in range(0, len(paths), COLUMNS)]
    heights = [height_of(row) for row in rows]
    figure = new_figure(WIDTH * COLUMNS + 0.3, sum(heights) + 0.1 * len(rows) + 0.4)
    all_axes = figure.subplots(len(rows), COLUMNS, squeeze=False, height_ratios=heights).ravel()
    for axes in all_axes:
        hide(axes)
    for path, axes in zip(paths, all_axes, strict=False):
        show(path, axes)
    about = f"{row_name(next(iter(by_row(best))))}, seed {best['seed'].item()}: mmAP {best['mmAP'].item():.1f} %"
    entitle(figure, f"Detections of the best run ({about}); white, dashed: ground truth", group, best)
    return figure

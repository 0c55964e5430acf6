"""How an MLflow experiment presents itself: a note on how to look, and saved views with what matters.

The saved views are what MLflow's own pages write for "Views > Save as new view" (MLflow 3); other versions do not
look at them. No view is the default: without a link that names one, MLflow shows columns of its own. So the note,
which is on each page of the experiment, begins with such links.
"""

from __future__ import annotations

import json
from enum import StrEnum


class View(StrEnum):
    """A saved view, by its key in the addresses of MLflow's pages."""

    BEST_FIRST = "megdet-best"
    SWEEPS = "megdet"


COLUMNS = (
    *(f"metrics.`final/{name}`" for name in ("mmAP", "train_s")),
    *(f"params.`{name}`" for name in ("batch", "bn_size", "schedule", "lr.scale", "seed", "model", "data")),
    *(f"tags.`{name}`" for name in ("status", "gpus", "sweep")),
)

NAMES = {View.BEST_FIRST: "Runs, best mmAP first", View.SWEEPS: "Sweeps, newest first"}
ORDERS = {View.BEST_FIRST: "metrics.`final/mmAP`", View.SWEEPS: "attributes.start_time"}
"""By what a view sorts, the largest first."""
FIRST_CHARTS = {"final/mmAP": "BAR", "mmAP": "LINE", "loss": "LINE", "step/loss": "LINE"}
"""MLflow adds the other metrics below them, in the order of their names."""

NOTE = """\
{links}

A sweep is a run with its runs below it: the + beside its name opens it; its description has a table of its runs and
its artifacts the tables and figures. The links above show the columns and charts that matter; they are in **Views**
too.

Filters to type into the search field:

- `tags.status = 'running'`, `tags.outcome = 'diverged'`, `tags.kind = 'sweep'`
- `tags.sweep LIKE '%table3%'`: a sweep and all its runs
- `params.model = 'r50_fpn' AND params.bn_size = '32' AND metrics.`final/mmAP` > 36`

A run with the status `replaced` was begun anew (`sweep.on_existing=force`): the run of the same name has the result.
Params are text to MLflow; the tags `asked/batch`, `asked/bn_size` and `asked/lr` have zeros in front, so that they sort
as numbers. Sorted by anything but *Created*, the runs of all sweeps are one flat list.
"""


def page_of_runs(experiment_id: str, view: View) -> str:
    """The address of an experiment's runs in MLflow's pages."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={view}"


def experiment_tags(experiment_id: str) -> dict[str, str]:
    """The tags of an experiment that MLflow's pages read."""
    links = " | ".join(f"**[{NAMES[view]}]({page_of_runs(experiment_id, view)})**" for view in View)
    return {
        # Otherwise its pages are those for chat bots.
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": NOTE.format(links=links),
        **{f"mlflow.sharedViewState.{view}": json.dumps(_saved_view(view)) for view in View},
    }


def _saved_view(view: View) -> dict[str, object]:
    section = {"uuid": view, "name": "mmAP and loss", "display": True, "isReordered": True, "deleted": False}
    state = {
        "searchFilter": "",
        "orderByKey": ORDERS[view],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "compareRunSections": [section],
        "compareRunCharts": [_chart(metric, kind, section=view) for metric, kind in FIRST_CHARTS.items()],
    }
    return {"name": NAMES[view], "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}


def _chart(metric: str, kind: str, *, section: str) -> dict[str, object]:
    chart = {
        "type": kind,
        "uuid": f"{section}-{metric}",
        "metricKey": metric,
        "displayName": metric,
        "metricSectionId": section,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    }
    if kind == "BAR":
        return chart
    return chart | {
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }

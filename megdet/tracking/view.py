"""How an MLflow experiment presents itself: a note on how to look, and the columns that matter as a saved view.

The saved view is what MLflow's own pages write for "Views > Save as new view" (MLflow 3); other versions do not
look at it.
"""

from __future__ import annotations

import json

VIEW_KEY = "megdet"
COLUMNS = (
    *(f"params.`{name}`" for name in ("batch", "bn_size", "schedule", "lr.scale", "seed", "model", "data")),
    *(f"metrics.`final/{name}`" for name in ("mmAP", "train_s")),
    *(f"tags.`{name}`" for name in ("status", "gpus", "sweep")),
)

NOTE = """\
A sweep is a run with its runs below it: the + beside its name opens it; its description has a table of its runs and
its artifacts the tables and figures. **Views > MegDet** shows the columns that matter.

Filters to type into the search field:

- `tags.status = 'running'`, `tags.outcome = 'diverged'`, `tags.kind = 'sweep'`
- `tags.sweep LIKE '%table3%'`: a sweep and all its runs
- `params.model = 'r50_fpn' AND params.bn_size = '32'`
- ``metrics.`asked/batch` >= 64 AND metrics.`final/mmAP` > 36``

A run with the status `replaced` was begun anew (`sweep.on_existing=force`): the run of the same name has the result.
Params are text to MLflow; `asked/batch`, `asked/bn_size` and `asked/lr` are there to sort and compare as numbers.
Sorted by anything but *Created*, the runs of all sweeps are one flat list.
"""


def experiment_tags() -> dict[str, str]:
    """The tags of an experiment that MLflow's pages read."""
    return {
        # Otherwise its pages are those for chat bots.
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": NOTE,
        f"mlflow.sharedViewState.{VIEW_KEY}": json.dumps(_saved_view()),
    }


def _saved_view() -> dict[str, object]:
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
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
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
    }
    return {"name": "MegDet", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}

"""A sweep on record: what it is called, its folder, its parent run in MLflow."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from megdet.config.locations import LAUNCH
from megdet.planning.identity import semantic_settings
from megdet.planning.plan import Plan
from megdet.runs.folder import run_folder
from megdet.runs.sweep_folder import Sweep, record_sweep

HEADLINES = ("batch", "bn_size", "schedule", "lr.scale", "seed", "model", "data", "precision")
"""The settings that a sweep shows with all their values."""


def sweep_name(arguments: Sequence[str], *, swept: Sequence[str], rows: str | None) -> str:
    """`table3 seed=0,1`, `demo batch=16,32`: rows and experiment by name, and the swept overrides as written.

    `arguments` are the command line's; `swept` are the keys that have more than one value there.
    """
    named = {key.lstrip("+"): value for key, _, value in (argument.partition("=") for argument in arguments)}
    words = []
    if rows:
        words.append(named["sweep"] if "sweep" in swept else Path(rows).stem)
    if "experiment" in named and "experiment" not in swept:
        words.append(named["experiment"])
    words += [f"{key}={value}" for key, value in named.items() if key in swept and key not in ("sweep", "sweep.rows")]
    return " ".join(words) or " ".join(arguments)


def put_on_record(
    plans: Sequence[Plan], arguments: Sequence[str], *, swept: Sequence[str], rows: str | None
) -> Path | None:
    """The folder of the sweep of these plans, made or found; None for a single run, which is no sweep.

    MLflow, where it is used, then has the sweep, with those of its runs that there are already.
    """
    unique = {plan.run_id: plan for plan in plans}
    if len(unique) < 2:
        return None
    config = plans[0].config
    folder = record_sweep(
        Path(config.runs_dir),
        name=sweep_name(arguments, swept=swept, rows=rows),
        command=f"{LAUNCH} -m {shlex.join(arguments)}",
        run_ids=list(unique),
        uri=config.tracking.uri if config.tracking.enabled else None,
        experiment=config.tracking.experiment,
        settings=_headlines(plans),
    )
    sweep = Sweep.read(folder)
    if sweep.uri is not None:
        # Imported here: MLflow's side is not needed where nothing is tracked.
        from megdet.tracking.client import prepare
        from megdet.tracking.mirror import mirror
        from megdet.tracking.note import noted_in

        known = noted_in(folder) is not None
        if not known:
            prepare(sweep.uri, sweep.experiment)  # where nothing is left to start, nobody has
        push_sweep(folder)
        for run_id in () if known else sweep.run_ids:
            mirror(run_folder(folder.parents[1], run_id), sweep.uri, sweep.experiment)
    return folder


def push_sweep(folder: Path) -> bool:
    """Update the sweep's run in MLflow, if it is tracked. False, with a warning, if that failed."""
    sweep = Sweep.read(folder)
    if sweep.uri is None:
        return True
    from megdet.tracking.sweep_mirror import mirror_sweep

    return mirror_sweep(folder, sweep.uri, sweep.experiment)


def conclude_sweep(folder: Path) -> None:
    """The launcher is done with a sweep: MLflow gets what it lacks of it, and the user a way to look."""
    from megdet.tracking.client import browse_hint, prepare
    from megdet.tracking.mirror import mirror

    sweep = Sweep.read(folder)
    is_there = push_sweep(folder) and sweep.uri is not None
    # What a run could not push in time at its own end. A damaged folder keeps none of the others back; a server that
    # does not answer is not asked for each of them.
    for run_id in sweep.run_ids:
        if not (is_there and sweep.uri):
            break
        pushed = mirror(run_folder(folder.parents[1], run_id), sweep.uri, sweep.experiment)
        is_there = pushed or prepare(sweep.uri, sweep.experiment)
    hint = browse_hint(folder) if is_there else ""
    if hint:
        print(hint, flush=True)


def _headlines(plans: Sequence[Plan]) -> dict[str, str]:
    values: dict[str, dict[str, None]] = {name: {} for name in HEADLINES}
    for plan in plans:
        settings = semantic_settings(json.loads(plan.to_json())) | {"seed": str(plan.config.seed)}
        for name in HEADLINES:
            values[name][settings[name]] = None
    return {name: ", ".join(found)[:5000] for name, found in values.items()}

"""Runs, read from run folders or from MLflow: the same records either way, complete or not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.jobs import Jobs, Look
from megdet.planning.identity import semantic_settings
from megdet.runs.folder import RunFolder, run_folders
from megdet.runs.journal import COCO_METRICS, KINDS, read_journal
from megdet.runs.provenance import provenance_of
from megdet.runs.status import Status
from megdet.runs.sweep_folder import Sweep, sweep_folders
from megdet.tracking.uri import default_uri

CURVES = ("mmAP", "loss", "lr", "train_s", "eval_s")
"""What is read of each epoch unless asked otherwise; journals give all numbers of an epoch."""
STEP_CURVES = ("step/epoch", "step/lr", "step/loss")
"""What is read of each step unless asked otherwise."""
FACTS = ("run_id", "experiment_id", "experiment", "state", "seed", "gpus", "commit", "dirty")
"""What of a run can be asked for as if it were a tag."""

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class RunRecord:
    """One run: what was asked, where it stands, what came out."""

    run_id: str
    experiment_id: str
    experiment: str
    """The MLflow experiment that the run belongs to."""
    state: str
    """finished or diverged: a result. Else planned, running, failed or interrupted, and of a run that was handed over
    to a cluster also queued, requeued, cancelled or lost."""
    settings: Mapping[str, str] = field(repr=False)
    """All that decides the result except the seed, flat, as text (`megdet.planning.identity`)."""
    seed: int
    gpus: int
    commit: str
    """Of the code of the last attempt."""
    dirty: bool
    """Whether the code differed from its commit, in any attempt."""
    train_s: float
    """Seconds of training so far, without evaluation."""
    epochs: tuple[Numbers, ...] = field(repr=False)
    """One per epoch done: `epoch`, the COCO numbers in percent, `train_s` (cumulative), `loss`, `lr`, ..."""
    final: Numbers
    """The COCO numbers after the last epoch; empty unless the run has finished."""
    steps: tuple[Numbers, ...] = field(repr=False, default=())
    """Of the steps that were logged: `step`, `epoch` (a fraction), `lr`, `loss` (None where not finite), ..."""
    reason: str = ""
    """One line on why the run is in that state, if there is more to say."""
    files: Callable[[str], list[Path]] = field(repr=False, compare=False, default=lambda pattern: [])
    """The run's files whose path in its folder fits a pattern (`pictures/*.png`); from MLflow, fetched when asked."""
    folder: Path | None = field(repr=False, default=None)
    """Its run folder; None from MLflow."""
    sweeps: tuple[str, ...] = ()
    """The names of the sweeps that asked for it."""
    tags: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Its tags in MLflow; a run folder has none."""
    commits: tuple[str, ...] = ()
    """Of the code that trained it, one after the other; `commit` is the last."""
    data_sha256: str = ""
    """The data's fingerprint (`megdet.data.fingerprint`), `a → b` where it changed; empty where not recorded."""
    weights_sha256: str = ""
    """The same of the file with the weights that it began from; empty where there is none, or not recorded."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "commits", self.commits or (self.commit,))

    def tag(self, key: str) -> tuple[str, ...]:
        """What the run has under `key`: a fact, a setting, its sweeps or a tag of MLflow; () where nothing."""
        if key == "sweep":
            return self.sweeps
        value = str(getattr(self, key)) if key in FACTS else self.settings.get(key, self.tags.get(key))
        return () if value is None else (value,)

    def has_tag(self, asked: str) -> bool:
        """Whether the run has what is `asked` as KEY=VALUE; of a commit, its first characters are enough."""
        key, _, value = asked.partition("=")
        return any(own == value or (key == "commit" and value and own.startswith(value)) for own in self.tag(key))

    @property
    def batch(self) -> int:
        return int(self.settings["batch"])

    @property
    def bn_size(self) -> int:
        return int(self.settings["bn_size"])

    @property
    def schedule(self) -> str:
        return self.settings["schedule"]

    @property
    def lr_scale(self) -> float:
        return float(self.settings.get("lr.scale", 1))

    @property
    def model(self) -> str:
        return self.settings["model"]

    @property
    def data(self) -> str:
        return self.settings["data"]

    @property
    def schedule_epochs(self) -> int:
        return int(self.settings["schedule.epochs"])

    @property
    def milestones(self) -> list[int]:
        """Epochs done when the learning rate drops."""
        return [int(epoch) for epoch in json.loads(self.settings.get("schedule.milestones", "[]"))]


def load_runs(source: str | None = None, *, curves: Sequence[str] = CURVES + STEP_CURVES) -> list[RunRecord]:
    """The runs of a runs folder or an MLflow store, by run id; UserError where there are none.

    `source` is a folder, or an MLflow URI (`sqlite:///...`, `http://...`). None: ./runs if it exists, else
    MLFLOW_TRACKING_URI, else ./mlflow.db. `curves` are the numbers of epochs, and of
    steps as `step/...`, that are needed: each costs time. Run folders that are damaged are left out, with a line
    each on stderr. A run that MLflow has in several experiments has a record in each, the one begun last and come
    furthest first.
    """
    if source is None:
        here = default_uri(Path.cwd())
        source = "runs" if Path("runs").is_dir() else os.environ.get("MLFLOW_TRACKING_URI", here)
    if "://" in source:
        from megdet.analysis.mlflow_runs import from_mlflow  # loads MLflow: seconds

        runs = from_mlflow(source, curves=curves)
    else:
        runs = _from_run_folders(Path(source), steps=any(name.startswith("step/") for name in curves))
    return sorted(runs, key=lambda run: run.run_id)


def select(runs: Sequence[RunRecord], **wanted: str | None) -> list[RunRecord]:
    """The runs of a sweep, experiment, model, data set, ... as wanted, each once; None: any. UserError if none is left.

    Of a run that MLflow has in several experiments it is the record that `load_runs` gives first.
    """
    left = list(runs)
    for name, value in wanted.items():
        if value is not None:
            there = sorted({own for run in left for own in run.tag(name)})
            left = [run for run in left if value in run.tag(name)]
            if not left:
                raise UserError(f"--{name} {value}: no such run; there is {', '.join(there) or 'none'}")
    once: dict[str, RunRecord] = {}
    for run in left:
        once.setdefault(run.run_id, run)
    return list(once.values())


def _from_run_folders(source: Path, *, steps: bool) -> list[RunRecord]:
    folders = run_folders(source)
    sweeps, look = _sweeps(source), Jobs().look_at(folders)
    runs = []
    for folder in folders:
        try:
            runs.append(_from_run_folder(folder, sweeps, look, steps=steps))
        except (UserError, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
    if not runs:
        raise UserError(f"{source}: none of its {len(folders)} runs can be read, for the reasons above")
    return runs


def _from_run_folder(folder: RunFolder, sweeps: Mapping[str, Sequence[str]], look: Look, *, steps: bool) -> RunRecord:
    """Raises UserError where a file of the run is damaged."""
    plan = folder.read_plan()
    try:
        settings, planned_epochs = semantic_settings(plan), plan["schedule"]["epochs"]
    except UserError as error:
        raise UserError(f"{folder.path}: {error}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.plan} is damaged ({error}); move the run folder away") from None
    # The journal last: of a run that has finished by now it is complete.
    stand, state = look.stand(folder), folder.state()
    journal = read_journal(folder, kinds=KINDS if steps else ("epoch", "event"))
    epochs = tuple(line for line in journal if line["kind"] == "epoch")
    stands, reason = stand.status, stand.why
    if stands == Status.FINISHED and [line["epoch"] for line in epochs] != list(range(1, planned_epochs + 1)):
        stands, reason = Status.FAILED, f"it finished, but its journal has {len(epochs)} of {planned_epochs} epochs"
    made_from = provenance_of(journal, plan)
    return RunRecord(
        run_id=plan["run_id"],
        experiment_id=plan["experiment_id"],
        experiment=plan["config"]["tracking"]["experiment"],
        state=stands,
        settings=settings,
        seed=plan["config"]["seed"],
        gpus=plan["layout"]["gpus"],
        commit=made_from.commits[-1],
        dirty=made_from.dirty,
        train_s=state.train_s if state else 0.0,
        epochs=epochs,
        final={name: epochs[-1].get(name) for name in COCO_METRICS} if stands == Status.FINISHED else {},
        steps=tuple(line for line in journal if line["kind"] == "step"),
        reason=reason,
        files=lambda pattern: sorted(folder.path.glob(pattern)),
        folder=folder.path,
        sweeps=tuple(sweeps.get(plan["run_id"], ())),
        commits=made_from.commits,
        data_sha256=made_from.data_sha256,
        weights_sha256=made_from.weights_sha256,
    )


def _sweeps(folder: Path) -> dict[str, list[str]]:
    """By run id, the names of the sweeps that a runs folder knows of."""
    names: dict[str, list[str]] = {}
    for sweep in map(Sweep.read, sweep_folders(folder)):
        for run_id in sweep.run_ids:
            names.setdefault(run_id, []).append(sweep.name)
    return names

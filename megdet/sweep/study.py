"""A study: Optuna chooses the points of a sweep a few at a time, from the mmAP of those before.

Optuna's ask-and-tell interface does the choosing. What has run is in the run folders, as ever: the same command asks
for the same points again (samplers are seeded), skips what is done, and so goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.config.search_space import NumberRange, SearchSpace
from megdet.config.study import StudySettings
from megdet.errors import ExitCode, UserError
from megdet.launchers.interface import Launcher
from megdet.planning.plan import Plan
from megdet.runs.folder import folder_of
from megdet.runs.prediction import check_budget
from megdet.runs.status import Status
from megdet.sweep.objective import final_mmap, with_repeated
from megdet.sweep.points import Point, plan_points
from megdet.sweep.record import conclude_sweep, put_on_record
from megdet.sweep.sweep import run_points

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

STUDY = "study.log"
"""Optuna's journal of a study, in the folder of its sweep."""
OLDEST_OPTUNA = 4
"""Its major version; pyproject.toml has more."""
PATIENCE = 3
"""Trials that may fail, or be no layout, before one has a result."""


def check_installed() -> None:
    """Raises UserError where Optuna, an extra, is missing or too old."""
    try:
        there = version("optuna")
    except PackageNotFoundError:
        there = ""
    if int(there.partition(".")[0] or 0) < OLDEST_OPTUNA:
        found = f"{there} is installed" if there else "none is installed"
        raise UserError(
            f"hydra/sweeper=optuna needs Optuna {OLDEST_OPTUNA} or newer, and {found}: pip install 'megdet[optuna]'"
        )


def run_study(
    space: SearchSpace,
    settings: StudySettings,
    sampler: BaseSampler,
    *,
    compose: Callable[[Sequence[str], Sequence[str]], Asked],
    launcher_for: Callable[[Config], Launcher],
    arguments: Sequence[str],
    conclude: Callable[[Path], None] | None = None,
) -> ExitCode:
    """Run all trials of a study, say which was best, and put it on record; the exit code.

    `compose(fixed, chosen)`: the experiment of a trial. `arguments`, `conclude`: as of `run_points`.
    Raises UserError where the first points break `sweep.max_gpu_hours`, taken for all trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, sampler=sampler, direction="maximize")
    distributions = {key: _distribution(values) for key, values in space.varied.items()}
    launcher: Launcher | None = None
    plans: list[Plan] = []
    said: set[str] = set()
    any_failed = False
    while (number := len(study.trials)) < settings.n_trials:
        trials = [study.ask(distributions) for _ in range(min(settings.n_jobs, settings.n_trials - number))]
        asked = [compose(space.fixed, _overrides(trial)) for trial in trials]
        for one in asked:
            one.config.sweep.wait = True  # the next points depend on these
            one.config.sweep.canary &= number == 0  # trials are alike
        launcher = launcher or launcher_for(asked[0].config)
        if number == 0:
            _check_budget(asked, launcher, settings.n_trials)
        for trial in trials:
            print(f"trial {trial.number + 1} of {settings.n_trials}: {' '.join(_overrides(trial))}", flush=True)
        code = run_points(asked, launcher=launcher, said=said)
        if asked[0].config.sweep.dry_run:
            print(f"the other trials of {settings.n_trials} depend on the results of these", flush=True)
            return code
        points = with_repeated(plan_points(asked, to_run_here=True, launcher=launcher))
        plans += [point.plan for point in points if point.plan]
        if not _tell(study, trials, points):
            print("the study stops here; the same command goes on with it", file=sys.stderr, flush=True)
            return code or ExitCode.INTERRUPTED
        any_failed |= code == ExitCode.RUN_FAILED
        if len(study.trials) >= PATIENCE and not _results(study):
            return code or ExitCode.RUN_FAILED  # the rest would end alike
    if not _results(study):
        return ExitCode.RUN_FAILED
    best = study.best_trial
    print(f"best of {settings.n_trials} trials: mmAP {best.value:.2f} with {' '.join(_overrides(best))}")
    print(f"  {best.user_attrs['run']}", flush=True)
    folder = put_on_record(plans, arguments, swept=list(space.varied), rows=None)
    if folder:
        _write(study, storage, folder / STUDY)
        print(f"the study, for Optuna: {folder / STUDY}", flush=True)
        if conclude:
            conclude(folder)
        conclude_sweep(folder)
    return ExitCode.RUN_FAILED if any_failed else ExitCode.OK


def _distribution(values: object) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, NumberRange):
        return CategoricalDistribution(values.values)  # type: ignore[attr-defined]
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _overrides(trial: Any) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in trial.params.items())


def _check_budget(asked: Sequence[Asked], launcher: Launcher, trials: int) -> None:
    """Hold the study to `sweep.max_gpu_hours`, as if all trials were like the first: none of them is known yet."""
    sweep = asked[0].config.sweep
    first = [point.plan for point in plan_points(asked, to_run_here=False, launcher=launcher) if point.plan]
    check_budget((first * trials)[:trials], sweep.max_gpu_hours, measured_later=sweep.canary)


def _tell(study: Study, trials: Sequence[Trial], points: Sequence[Point]) -> bool:
    """Give Optuna the results; False where a run has none yet, and no error either."""
    from optuna.trial import TrialState

    for trial, point in zip(trials, points, strict=True):
        if point.plan is None or point.status == Status.FAILED:
            study.tell(trial, state=TrialState.FAIL)
        elif point.status is None or not point.status.is_result:
            return False
        else:
            trial.set_user_attr("run", str(folder_of(point.plan).path))
            study.tell(trial, final_mmap(point))
    return True


def _results(study: Study) -> int:
    return sum(trial.value is not None for trial in study.trials)


def _write(study: Study, storage: Any, file: Path) -> None:
    """As Optuna's own tools read it: `JournalStorage(JournalFileBackend(...))`, `optuna-dashboard FILE`."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    file.unlink(missing_ok=True)
    optuna.copy_study(
        from_study_name=study.study_name,
        from_storage=storage,
        to_storage=JournalStorage(JournalFileBackend(str(file))),
        to_study_name=file.parent.name,
    )

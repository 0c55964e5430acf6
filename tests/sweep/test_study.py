"""Optuna chooses points from the results of those before, in real studies with a stand-in for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from optuna import load_study
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages.journal import JournalFileBackend, JournalStorage

from megdet.config.experiments import compose_trial
from megdet.config.locations import CONF
from megdet.config.register import register
from megdet.config.search_space import Choices, NumberRange, SearchSpace, search_space
from megdet.config.study import StudySettings
from megdet.errors import ExitCode, UserError
from megdet.launchers.local.launcher import LocalLauncher
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import Journal, read_journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep import study as study_module
from megdet.sweep.study import PATIENCE, STUDY, run_study
from tests.runs.folders import owned
from tests.test_launch import SMALL, launch

BEST_LR = 0.02


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def hydra_now() -> Hydra:
    hydra = GlobalHydra.instance().hydra
    assert isinstance(hydra, Hydra)
    return hydra


def space_of(*arguments: str, **ranges: str) -> SearchSpace:
    return search_space(arguments, hydra_now().config_loader, ranges=ranges)


class Training:
    """Leaves the mmAP of a run whose best learning rate is BEST_LR; `ends` are statuses to leave instead, by call."""

    def __init__(self, *ends: Status) -> None:
        self.ends, self.rates = list(ends), list[float]()

    def __call__(self, plan: Plan) -> Status:
        lr = plan.config.lr.base
        self.rates.append(lr)
        end = self.ends.pop(0) if self.ends else Status.FINISHED
        folder_of(plan).path.mkdir(parents=True, exist_ok=True)
        folder = owned(folder_of(plan).path)
        folder.write_plan(plan.to_json())
        with Journal(folder) as journal:
            journal.epoch(1, step=1, mmAP=40 - 1e5 * (lr - BEST_LR) ** 2)
        folder.write_state(RunState(end, attempts=1, started="2026-01-01T00:00:00+00:00"))
        return end


def study(
    training: Training,
    *arguments: str,
    sampler: Callable[..., BaseSampler] = RandomSampler,
    n_trials: int = 4,
    n_jobs: int = 1,
) -> ExitCode:
    own = arguments or ("lr.base=tag(log, interval(0.005, 0.05))",)
    keys = {argument.partition("=")[0] for argument in own}
    arguments = (*(word for word in SMALL if word.partition("=")[0] not in keys), *own)
    master: DictConfig = compose("config", return_hydra_config=True)
    return run_study(
        space_of(*arguments),
        StudySettings(n_trials=n_trials, n_jobs=n_jobs),
        sampler(seed=0),
        compose=partial(compose_trial, hydra_now().config_loader, master),
        launcher_for=lambda config: LocalLauncher(run=training),
        arguments=arguments,
    )


def test_ranges_of_hydra_s_grammar_are_where_a_study_looks() -> None:
    space = space_of("a=int(interval(1,8))", "b=tag(log, interval(0.1,2.5))", "c=range(8,1,-2)", "d=x,16", "batch=16")
    assert space.fixed == ("batch=16",)
    assert space.varied == {
        "a": NumberRange(1, 8, step=None, whole=True, log=False),
        "b": NumberRange(0.1, 2.5, step=None, whole=False, log=True),
        "c": NumberRange(2, 8, step=2, whole=True, log=False),
        "d": Choices(("x", "16")),
    }
    assert space_of("e=range(0.5,2.0,0.5)").varied["e"] == NumberRange(0.5, 1.5, step=0.5, whole=False, log=False)


def test_ranges_may_stand_in_a_file_and_the_command_line_has_the_last_word() -> None:
    space = space_of("a=3", "b=1,2", a="interval(1,8)", b="interval(1,8)", c="interval(1,8)")
    assert space.fixed == ("a=3",)
    assert list(space.varied) == ["b", "c"] and space.varied["b"] == Choices(("1", "2"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch=16"], r"nothing to look for.*interval\(0.005, 0.05\)"),
        (["lr.base=interval(1,8)", "lr.base=3"], "both set lr.base"),
        (["lr.base=interval(8,1)"], "ends below its beginning"),
        (["lr.base=tag(log,interval(0,1))"], "above 0"),
        (["lr.base=tag(lgo, interval(0.005,0.5))"], r"tag\(lgo, \.\.\.\) means nothing to a study; use tag\(log"),
        (["batch=range(8,8)"], "empty"),
        (["batch=range(4,8,0)"], "step other than 0"),
    ],
    ids=str,
)
def test_a_space_that_makes_no_sense_is_refused(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of(*arguments)


@pytest.mark.slow
def test_a_study_looks_where_the_results_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    training = Training()
    assert study(training, sampler=TPESampler, n_trials=30) == 0
    assert len(training.rates) == 30 and all(0.005 <= rate <= 0.05 for rate in training.rates)
    out = capsys.readouterr().out
    assert out.count("no GPU here") == 1, "what concerns all trials is said once"
    early, late = training.rates[:10], training.rates[20:]
    assert sum(abs(rate - BEST_LR) for rate in late) < sum(abs(rate - BEST_LR) for rate in early)
    nearest = min(training.rates, key=lambda rate: abs(rate - BEST_LR))
    assert f"best of 30 trials: mmAP {40 - 1e5 * (nearest - BEST_LR) ** 2:.2f} with lr.base={nearest}" in out


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_a_study_that_was_interrupted_goes_on_to_the_same_points(n_jobs: int, tmp_path: Path) -> None:
    whole, begun, rest = Training(), Training(Status.FINISHED, Status.INTERRUPTED), Training()
    (tmp_path / "whole").mkdir()
    assert study(whole, "runs_dir=whole", "lr.base=interval(0.005,0.05)", n_trials=6, n_jobs=n_jobs) == 0
    assert study(begun, "lr.base=interval(0.005,0.05)", n_trials=6, n_jobs=n_jobs) == ExitCode.INTERRUPTED
    assert study(rest, "lr.base=interval(0.005,0.05)", n_trials=6, n_jobs=n_jobs) == 0
    assert begun.rates == whole.rates[:2]
    assert rest.rates == whole.rates[1:], "what was interrupted, and what is new"


def test_points_that_cannot_be_and_failed_runs_count_as_trials_without_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    training = Training()
    assert study(training, "gpus=3,1", n_trials=8) == 0
    assert len(training.rates) == 1, "gpus=3 has no layout, and gpus=1 is one run"
    assert "cannot be split evenly over 3 GPUs" in capsys.readouterr().err
    training = Training(Status.FINISHED, Status.FAILED)
    assert study(training, "lr.base=interval(0.005,0.05)", n_trials=3) == ExitCode.RUN_FAILED
    assert len(training.rates) == 3, "one failure does not end a study"


def test_a_study_whose_first_points_all_fail_ends_soon(capsys: pytest.CaptureFixture[str]) -> None:
    training = Training(*[Status.FAILED] * 9)
    assert study(training, n_trials=9) == ExitCode.RUN_FAILED
    assert len(training.rates) == PATIENCE
    assert study(Training(), "gpus=3,5", n_trials=9) == ExitCode.USER_ERROR
    assert f"trial {PATIENCE + 1} " not in capsys.readouterr().out


def test_a_repeated_point_of_a_batch_has_the_result_of_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    training = Training()
    assert study(training, "lr.base=0.01,0.02", n_trials=6, n_jobs=6) == 0
    assert sorted(training.rates) == [0.01, 0.02]
    assert "best of 6 trials: mmAP 40.00 with lr.base=0.02" in capsys.readouterr().out


def test_a_dry_run_shows_the_first_points_and_a_budget_is_for_all_trials(capsys: pytest.CaptureFixture[str]) -> None:
    training = Training()
    assert study(training, "lr.base=interval(0.005,0.05)", "sweep.dry_run=true") == 0
    assert not training.rates and "the other trials of 4 depend on the results" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing is known"):
        study(training, "lr.base=interval(0.005,0.05)", "sweep.max_gpu_hours=1")
    # A canary of the first run measures it.
    words = ("sweep.max_gpu_hours=1", "sweep.canary=true", "sweep.dry_run=true")
    assert study(training, "lr.base=interval(0.005,0.05)", *words) == 0
    with pytest.raises(UserError, match="asks for a table"):
        study(training, "lr.base=interval(0.005,0.05)", "sweep=table3")


WORDS = ["-m", "hydra/sweeper=optuna", *SMALL]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local_parallel"])
def test_a_study_by_training_is_on_record_and_asked_for_again_trains_nothing(launcher: str, tmp_path: Path) -> None:
    words = [*WORDS, f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2"]
    words += ["lr.base=tag(log, interval(0.005, 0.05))"]
    done = launch(tmp_path, *words)
    assert done.returncode == 0 and "arning" not in done.stderr, done.stdout + done.stderr
    [file] = tmp_path.glob(f"runs/.sweeps/*/{STUDY}")
    written = load_study(study_name=file.parent.name, storage=JournalStorage(JournalFileBackend(str(file))))
    for trial in written.trials:
        journal = read_journal(RunFolder(tmp_path / trial.user_attrs["run"]))
        [mmap] = [line["mmAP"] for line in journal if line["kind"] == "epoch"]
        assert trial.value == mmap
    best = f"best of 3 trials: mmAP {written.best_value:.2f} with lr.base={written.best_params['lr.base']}"
    assert best in done.stdout and len(list(tmp_path.glob("runs/b*/state.json"))) == 3
    again = launch(tmp_path, *words)
    assert again.returncode == 0 and best in again.stdout
    assert "started" not in again.stdout and "[1/" not in again.stdout
    assert len(list(tmp_path.glob(f"runs/.sweeps/*/{STUDY}"))) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lr.base=0.02", "nothing to look for"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: use a whole number of at least 1"),
        ("hydra.sweeper.direction=minimize", "mmAP is better the higher it is"),
        ("hydra.sweeper.n_trails=3", "n_trails"),
        ("hydra/sweeper/sampler=tpa", "tpe"),
        ("+hydra.sweeper.sampler.sed=3", "sed"),
        ("+hydra.launcher.timeout_min=60", "cluster.time_min=60"),
    ],
)
def test_a_mistake_in_a_study_is_one_message(word: str, message: str, tmp_path: Path) -> None:
    words = [*WORDS, word] if word.startswith("lr.base") else [*WORDS, word, "lr.base=interval(0.005,0.05)"]
    done = launch(tmp_path, *words, "sweep.dry_run=true")
    assert done.returncode == 2 and message in done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("there", "said"), [(None, "none is installed"), ("2.10.1", "2.10.1 is installed")])
def test_without_optuna_a_study_says_how_to_get_it(
    there: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if there is None:
            raise PackageNotFoundError(name)
        return there

    monkeypatch.setattr(study_module, "version", version)
    with pytest.raises(UserError, match=rf"{said}: pip install 'megdet\[optuna\]'"):
        study_module.check_installed()

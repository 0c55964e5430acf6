"""Plans, runs and records large mini-batch detection experiments (MegDet, arXiv 1711.07240).

  {command} experiment=tiny                      one run that a laptop can do
  {command} batch=64 bn_size=32 schedule=long    a row of Table 3, on the GPUs of this machine
  {command} -m batch=16,64,256 bn_size=16,32     a sweep: every combination that can be
  {command} -m sweep=table3 seed=0,1             the rows of a table of the paper, with two seeds each
  {command} -m sweep=table3 cluster=paper sweep.dry_run=true
                             their plans on the paper's 128 GPUs; nothing runs

What is asked
  batch            images per optimizer step, over all GPUs
  bn_size          images behind one BN statistic; 0: BN is frozen, the paper's baseline
  lr.scale         times the linear rule lr = 0.02 x batch / 16; 0.5 is Table 2's half learning rate
  seed             another run of the same experiment; sweep.seeds=auto adds them where rows are not told apart yet

Where it runs (never what is learned)
  gpus             processes that train; auto: the paper's layout, or the most that fit
  images_per_gpu   images in one forward pass; accumulation makes up the rest of the batch
  sublinear        activation checkpointing: less memory, slower; auto: from bn_size 32;
                   offload: what it keeps lies in main memory
  cluster          what there is to run on; cluster.elastic=true: on what is in service, where that is less
  hydra/launcher   submitit_slurm: jobs of a Slurm cluster; local_parallel: as many runs at a time as fit here
  hydra/sweeper    optuna, with -m: Optuna looks for the settings with the highest mmAP

Choose with group=option; the files are in {conf}, and files of yours in ./conf add to them
{groups}

Each run lives in runs/<run_id>/. Asked for again, a run that is done is skipped, one that was interrupted goes on,
and one that failed is left until sweep.on_existing=retry_failed.
Exit code: 0 all is well, 1 a run failed, 2 a mistake in what was asked, 3 interrupted.

  {command} --cfg job                            every key and its value
  {command} --hydra-help                         the command line's other flags
  eval "$({command} -sc install=bash)"           completion on Tab
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from megdet.config.compose import composing
from megdet.config.experiments import compose_one
from megdet.config.launcher_settings import refuse_launcher_settings
from megdet.config.locations import CONF, own_conf
from megdet.config.register import HYDRAS_CHOICES, register
from megdet.errors import ExitCode, UserError, outlive_closed_pipes
from megdet.settings.counted import listed

if TYPE_CHECKING:
    from omegaconf import DictConfig

FULL_ERROR = "HYDRA_FULL_ERROR"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def launch(composed: DictConfig) -> float:
    """One experiment: ends the program, or gives its final mmAP to a sweeper of another package.

    Our own sweeps (-m) go through hydra_plugins/megdet_sweeper instead.
    """
    from megdet.launchers.named import launcher_named
    from megdet.sweep.objective import final_mmap
    from megdet.sweep.points import plan_points
    from megdet.sweep.sweep import report, run_points

    try:
        refuse_launcher_settings(HydraConfig.get().overrides.hydra)
        asked = compose_one(composed)
        launcher = launcher_named(HydraConfig.get().runtime.choices["hydra/launcher"], asked.config)
    except UserError as error:
        sys.exit(report(error))
    code = run_points([asked], launcher=launcher)
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        sys.exit(code)
    if asked.config.sweep.dry_run:
        return 0.0  # nothing has run; the sweeper goes on to its next point
    return final_mmap(plan_points([asked], to_run_here=True, launcher=launcher)[0])


def help_text(command: str) -> str:
    """This file's docstring with the options of each group; Hydra's own would take a second to list them."""
    options = {group: set(names) for group, names in HYDRAS_CHOICES.items()}
    for folder in filter(None, (CONF, own_conf())):
        for file in folder.glob("*/**/*.yaml"):
            options.setdefault(str(file.parent.relative_to(folder)), set()).add(file.stem)
    lines = (f"  {group:21} {', '.join(sorted(names))}" for group, names in sorted(options.items()))
    return (__doc__ or "").format(command=command, conf=CONF, groups="\n".join(lines))


def main(arguments: Sequence[str] | None = None, *, command: str = "python launch.py") -> int:
    """Run Hydra so that a user's mistake is one message and exit code 2. `command`: its name in `--help`."""
    outlive_closed_pipes()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(words):
        print(help_text(command))
        return ExitCode.OK
    own = own_conf()
    if own:
        words = ["--config-dir", str(own), *words]
        if not {"-sc", "--shell-completion"} & set(words):
            _name_unused(own)
    if not {"-sc", "--shell-completion"} & set(words):
        # argparse takes no settings behind a flag that stands between them.
        words.sort(key=_is_setting)
    sys.argv[1:] = words  # where Hydra reads them
    traceback_wanted = os.environ.get(FULL_ERROR, "0").lower() not in ("", "0", "false", "no")
    # Hydra would print its errors itself and exit with 1; told so, it raises them.
    os.environ[FULL_ERROR] = "1"
    register()
    try:
        with composing(words):
            launch()
    except UserError as error:
        if traceback_wanted and error.__cause__ is not None:
            raise
        print(error, file=sys.stderr)
        return ExitCode.USER_ERROR
    except KeyboardInterrupt:  # while no run is under way: while it plans, or makes tables and figures
        print("interrupted; the same command goes on", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except SystemExit as ending:
        # Hydra ends the program itself in places, with 1: `--cfg job --package nope`.
        if ending.code == 1 and not isinstance(ending.code, ExitCode):
            return ExitCode.USER_ERROR
        raise
    return ExitCode.OK


def _is_setting(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def _name_unused(own: Path) -> None:
    """Hydra takes the first file of a name that it finds, and looks into megdet's own folder first."""
    files = (file.relative_to(own) for file in sorted(own.rglob("*.yaml")))
    hidden = [f"conf/{file}" for file in files if (CONF / file).exists()]
    if hidden:
        print(f"not used: {listed(hidden, 3)}; megdet has files of the same names, so rename yours", file=sys.stderr)

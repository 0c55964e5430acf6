"""All launchers by name: the one that `hydra/launcher=` names, and the one that started a run."""

from __future__ import annotations

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers import local, slurm
from megdet.launchers.interface import Launcher, LauncherPackage
from megdet.runs.folder import RunFolder

LAUNCHERS: dict[str, LauncherPackage] = {"local": local, "slurm": slurm}
"""By the name that `submission.json` has in a run folder. What takes time to load (submitit) loads when it is used."""

SUBMITIT_LOCAL = (
    "hydra/launcher=submitit_local would start every run at once, each on the same GPUs; use "
    "hydra/launcher=local_parallel (as many runs at a time as this machine has GPUs or cores for), or leave it out "
    "(one run after the other)"
)


def launcher_named(name: str, config: Config) -> Launcher:
    """Raises UserError for a launcher of another package, which would not know plans."""
    for package in LAUNCHERS.values():
        if name in package.NAMES:
            return package.make_launcher(name, config)
    if name == "submitit_local":
        raise UserError(SUBMITIT_LOCAL)
    names = [name for package in LAUNCHERS.values() for name in package.NAMES if name != "basic"]
    raise UserError(f"hydra/launcher={name}: use {', '.join(names)}, or leave it out to run here")


def launcher_of(folder: RunFolder) -> str:
    """The name of the launcher that has started a run; a run that was handed to none belongs to this machine.

    Raises UserError where the folder does not say it, or names a launcher that is not installed.
    """
    submission = folder.submission()
    if submission is None:
        return "local"
    name: str = submission["launcher"]
    if name not in LAUNCHERS:
        raise UserError(f"{folder.submission_file}: launcher {name} is not installed here ({', '.join(LAUNCHERS)} are)")
    return name

"""Before any run starts: data is generated or checked, weights fetched, code kept, and MLflow's experiment is made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from megdet.data.files import check_files
from megdet.data.known import GENERATED, SEED
from megdet.errors import UserError
from megdet.model.weights import ensure_weights
from megdet.planning.plan import Plan
from megdet.runs.code import freeze_code
from megdet.runs.folder import folder_of
from megdet.runs.run_files import REPLACED

SYSTEM_PACKAGES = {"psutil": "psutil", "pynvml": "nvidia-ml-py"}
"""Modules that read how busy a machine is, with the packages that have them."""


def make_ready(plans: Sequence[Plan], *, anew: bool) -> None:
    """Raises UserError where something that the plans need is not there, or the runs folder cannot be written."""
    _check_system_metrics(plans)
    for plan in plans:
        _ensure_files(plan)
    for runs_dir in dict.fromkeys(plan.config.runs_dir for plan in plans):
        _check_writable(Path(runs_dir))
    for plan in plans:
        freeze_code(plan)
        _generate_data(plan)
    if anew:
        for plan in plans:
            _put_aside(folder_of(plan).path)
    _prepare_tracking(plans)


def _ensure_files(plan: Plan) -> None:
    """Check data that is not generated, and fetch weights. Raises UserError."""
    data, model = plan.config.data, plan.config.model
    if data.name not in GENERATED:
        check_files(data)
    if model.init_from is None:
        ensure_weights(model.backbone.weights, model.backbone.name)


def _generate_data(plan: Plan) -> None:
    """Draw the generated set where it is missing. Raises UserError where something else is in its place."""
    data = plan.config.data
    if data.name in GENERATED:
        assert data.train_images is not None and data.val_images is not None, "as planned"
        # Imported here: it brings numpy, which planning does without.
        from megdet.data.generated import generate

        generate(
            data.name,
            Path(data.root),
            train_images=data.train_images,
            val_images=data.val_images,
            image_size=data.min_size,
            seed=SEED,
        )


def _check_writable(runs_dir: Path) -> None:
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir) as file:
            file.write(b"x")
    except OSError as error:
        raise UserError(
            f"runs_dir={runs_dir} cannot be written ({error.strerror}); make room or mend its rights, or choose "
            "another with runs_dir=FOLDER"
        ) from None


def _put_aside(folder: Path) -> None:
    """Rename an old run's folder, so that it is kept but not used."""
    if folder.exists():
        replaced = folder.parent / REPLACED
        replaced.mkdir(exist_ok=True)
        folder.rename(replaced / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6}")


def _check_system_metrics(plans: Sequence[Plan]) -> None:
    """Raises UserError where they are asked for and what reads them is not installed."""
    wanted = any(plan.config.tracking.system_metrics for plan in plans)
    missing = [name for module, name in SYSTEM_PACKAGES.items() if wanted and find_spec(module) is None]
    if missing:
        raise UserError(
            f"tracking.system_metrics=true needs {' and '.join(missing)}; pip install 'megdet[system]', or leave it out"
        )


def _prepare_tracking(plans: Sequence[Plan]) -> None:
    """Once, before many ranks write."""
    places = {(p.config.tracking.uri, p.config.tracking.experiment) for p in plans if p.config.tracking.enabled}
    for uri, experiment in sorted(places, key=str):
        from megdet.tracking.client import prepare as prepare_mlflow

        assert uri is not None, "resolved with the plan"
        prepare_mlflow(uri, experiment)

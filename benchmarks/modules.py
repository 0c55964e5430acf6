"""What each module of the enhanced detector costs: time of a training step and memory, beside the baseline.

    python -m benchmarks.modules --size 800 --images 1
    python -m benchmarks.modules --model tiny --size 128 --images 8

The modules are the rows of `sweeps/ablation.yaml` that are of the model. Each trains in the real loop from random
weights, with BN over the images of the step, on generated images already of their size; in a process of its own, in
turn, so that drifts of the machine meet all of them. Times are medians over all steps but the first two; memory is the
most that was used over what importing takes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from benchmarks.train_step import WARM_UP_STEPS, our_steps, peak_memory_mb
from megdet.config.compose import compose
from megdet.config.locations import SWEEPS
from megdet.config.sweep_file import read_rows, read_sweep_file
from megdet.launchers.rank import NO_TRIM

TABLE = "ablation"
LR = 1e-5
"""So that no module diverges from random weights."""


def modules() -> dict[str, tuple[str, ...]]:
    """The overrides of each module of the model, the baseline first, by its name in the table."""
    labels = [row["label"] for row in read_sweep_file(SWEEPS / f"{TABLE}.yaml")["rows"]]
    rows = {label: row.overrides for label, row in zip(labels, read_rows(TABLE), strict=True)}
    # Images are already of their size here, which is what the others change.
    return {label: overrides for label, overrides in rows.items() if any(map(_is_of_the_model, overrides))}


def _is_of_the_model(override: str) -> bool:
    return override.startswith("model")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One module, in this process."""
    import torch
    import torchvision.models.detection  # noqa: F401  # loaded before memory is read, for every module alike

    torch.set_num_threads(arguments.threads)
    loaded_mb = peak_memory_mb()
    shape = {"size": arguments.size, "images": arguments.images, "steps": arguments.steps}
    asked = [f"model={arguments.model}", *modules()[arguments.module]]
    model = compose([*asked, "model.backbone.weights=none", "model.backbone.frozen_stages=0"]).model
    seconds = our_steps(model, **shape, lr=LR)
    return {"seconds": seconds[WARM_UP_STEPS:], "peak_over_import_mb": peak_memory_mb() - loaded_mb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="r50_fpn", help="of conf/model/")
    parser.add_argument("--size", type=int, default=800, help="shorter side in pixels")
    parser.add_argument("--images", type=int, default=1, help="in a step")
    parser.add_argument("--steps", type=int, default=5, help="of each process, the first two not counted")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each module")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    parser.add_argument("--module", choices=list(modules()), help="this one alone, as JSON")
    arguments = parser.parse_args()
    if arguments.module:
        print(json.dumps(measure(arguments)))
        return
    names = list(modules())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory_mb: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.modules", "--module", name]
            for option in ("model", "size", "images", "steps", "threads"):
                command += [f"--{option}", str(getattr(arguments, option))]
            environment = {**os.environ, **NO_TRIM, "OMP_NUM_THREADS": str(arguments.threads)}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds[name] += found["seconds"]
            memory_mb[name].append(found["peak_over_import_mb"])
    median_s = {name: statistics.median(times) for name, times in seconds.items()}
    peak_mb = {name: statistics.median(values) for name, values in memory_mb.items()}
    baseline = names[0]
    print(f"{arguments.model}, {arguments.images} x {arguments.size} px, {arguments.threads} threads")
    for name in names:
        spread = f"[{min(seconds[name]):.3f}, {max(seconds[name]):.3f}]"
        print(
            f"{name:20} {median_s[name]:7.3f} s/step {spread}  {median_s[name] / median_s[baseline]:5.2f}x   "
            f"peak {peak_mb[name]:6.0f} MB  {peak_mb[name] / peak_mb[baseline]:5.2f}x"
        )
    import torch  # noqa: F401  # so that the report names the GPU

    report = write_report(
        f"modules-{arguments.model}-{arguments.size}px-{arguments.images}",
        {"seconds": seconds, "median_s": median_s, "peak_over_import_mb": peak_mb},
        arguments.out,
    )
    print(f"written to {report}")


if __name__ == "__main__":
    main()

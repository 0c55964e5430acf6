"""How long `launch.py --help` takes beside a bare Hydra app of one key, and what a planned point costs.

python -m benchmarks.start_up
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import ROOT, write_report

BARE = """
import hydra

@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    pass

main()
"""


def seconds_of(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bare = Path(name)
        (bare / "app.py").write_text(BARE)
        (bare / "config.yaml").write_text("batch: 16\n")
        commands = {
            "bare_hydra_help": ([sys.executable, "app.py", "--help"], bare),
            "megdet_help": ([sys.executable, "launch.py", "--help"], ROOT),
            "megdet_plan_100": (
                [
                    *(sys.executable, "launch.py", "-m", "cluster=paper", "data=shapes", "sweep.dry_run=true"),
                    *("batch=range(16,416,16)", "bn_size=0,2,4,8"),
                ],
                ROOT,
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.repeats):
            for name, (command, folder) in commands.items():
                times[name].append(seconds_of(command, folder))
    median_s = {name: statistics.median(values) for name, values in times.items()}
    ratio = median_s["megdet_help"] / median_s["bare_hydra_help"]
    for name, values in times.items():
        print(f"{name:16} {median_s[name]:.3f} s [{min(values):.3f}, {max(values):.3f}]")
    print(f"megdet_help/bare_hydra_help: {ratio:.2f}x")
    report = write_report(
        "start_up", {"times_s": times, "median_s": median_s, "ratios": {"help": ratio}}, arguments.out
    )
    print(f"written to {report}")


if __name__ == "__main__":
    main()

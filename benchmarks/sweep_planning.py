"""What a point of a sweep costs before anything runs, beside Hydra's own multirun of a function that does nothing.

python -m benchmarks.sweep_planning

Ours composes, plans, predicts and shows 1,000 points (`sweep.dry_run=true`). Hydra's basic sweeper and launcher compose
fewer points of the same conf/ and call the function in the same process. Both are given with and without the seconds
that one point alone takes, which is mostly starting Python.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.report import ROOT, write_report
from benchmarks.start_up import seconds_of

STOCK = """
import hydra
from megdet.config.register import register
from megdet.config.locations import CONF

register()

@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(config):
    pass

main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000, help="of ours")
    parser.add_argument("--stock-points", type=int, default=100, help="of Hydra's multirun")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    arguments = parser.parse_args()
    points = {"megdet": arguments.points, "hydra": arguments.stock_points}
    one: dict[str, list[float]] = {name: [] for name in points}
    many: dict[str, list[float]] = {name: [] for name in points}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stock.py").write_text(STOCK)
        start = {
            "megdet": [sys.executable, str(ROOT / "launch.py"), "-m", "cluster=paper", "sweep.dry_run=true"],
            "hydra": [sys.executable, "stock.py", "-m", "cluster=paper", "hydra/sweeper=basic", "hydra/launcher=basic"],
        }
        for _ in range(arguments.repeats):
            for system, command in start.items():
                for taken, count in ((one, 1), (many, points[system])):
                    grid = f"batch=range(16,{16 * count + 1},16)"
                    taken[system].append(seconds_of([*command, "bn_size=8", grid], folder))
    total_s = {system: statistics.median(taken) for system, taken in many.items()}
    one_s = {system: statistics.median(taken) for system, taken in one.items()}
    point_s = {system: (total_s[system] - one_s[system]) / (count - 1) for system, count in points.items()}
    whole_point_s = {system: total_s[system] / count for system, count in points.items()}
    ratios = {
        "hydra/megdet, a point more": point_s["hydra"] / point_s["megdet"],
        "hydra/megdet, start included": whole_point_s["hydra"] / whole_point_s["megdet"],
    }
    for system, count in points.items():
        low, high = min(many[system]), max(many[system])
        print(
            f"{system:7} {count:5} points {total_s[system]:7.2f} s [{low:.2f}, {high:.2f}], "
            f"one {one_s[system]:.2f} s, {1000 * point_s[system]:.2f} ms a point more"
        )
    for ratio_name, ratio in ratios.items():
        print(f"{ratio_name}: {ratio:.1f}x")
    numbers = {"points": points, "times_s": many, "one_point_times_s": one, "point_s": point_s, "ratios": ratios}
    print(f"written to {write_report('sweep_planning', numbers, arguments.out)}")


if __name__ == "__main__":
    main()

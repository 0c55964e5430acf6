"""Everything that only a GPU can show, on one GPU and in under eight minutes.

    python -m benchmarks.gpu                         on a GPU: all parts
    python -m benchmarks.gpu --device cpu --quick    tries the benchmark itself, with tiny images
    python -m benchmarks.gpu --only speed,loader     some parts

No network and no MLflow. Numbers are printed as they are found and written as JSON; at the end stands what failed. Exit
code 1: a part failed, was stopped, or missed a goal.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.runner import PartResult, run_part
from benchmarks.report import write_report
from megdet.launchers.rank import NO_TRIM

BUDGETS_S = {
    "agreement": 60.0,
    "speed": 140.0,
    "host_waits": 60.0,
    "memory": 60.0,
    "loader": 40.0,
    "switches": 40.0,
    "whole_run": 70.0,
}
"""The parts in their order, and the most seconds that each may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="tiny images and few steps: tries the benchmark, not the GPU"
    )
    parser.add_argument("--only", default=",".join(BUDGETS_S), help="parts, with commas between them")
    parser.add_argument("--seconds", type=float, default=460.0, help="the most that all parts may take together")
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - BUDGETS_S.keys():
        parser.error(f"--only: there is no part {', '.join(sorted(unknown))}; there are {', '.join(BUDGETS_S)}")
    os.environ.update(NO_TRIM)
    bench, began = Bench(arguments.device, arguments.quick), time.monotonic()
    results = []
    for part in parts:
        left_s = began + arguments.seconds - time.monotonic()
        print(f"\n{part}", flush=True)
        if left_s < 5:
            results.append(PartResult(part, error=f"not begun: all parts together have {arguments.seconds:.0f} s"))
            continue
        results.append(
            run_part(f"benchmarks.gpu.{part}", bench, budget_s=min(BUDGETS_S[part], left_s), on_found=_print)
        )
        print(f"{results[-1].seconds:.0f} s", flush=True)
    report = write_report("gpu", {"device": arguments.device, "quick": bench.quick, **_numbers(results)}, arguments.out)
    print(f"\nwritten to {report}")
    return _print_failures(results)


def _print(found: Found) -> None:
    print(f"  {found}", flush=True)


def _numbers(results: list[PartResult]) -> dict[str, object]:
    return {
        result.part.removeprefix("benchmarks.gpu."): {
            "found": [{**asdict(found), "reached": found.reached} for found in result.found],
            "error": result.error,
            "seconds": result.seconds,
        }
        for result in results
    }


def _print_failures(results: list[PartResult]) -> int:
    missed = [(result.part, found) for result in results for found in result.found if found.reached is False]
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"\n{result.part} failed: {result.error}")
    if missed:
        print("\nnot reached:")
    for part, found in missed:
        print(f"  {part}: {found}")
    if not missed and not failed:
        print("nothing failed")
    return 1 if missed or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

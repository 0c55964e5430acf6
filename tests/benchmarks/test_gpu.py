"""`python -m benchmarks.gpu`, tried without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.found import Found
from tests.benchmarks.parts import HOW

ROOT = Path(__file__).resolve().parents[2]
RUN_PART = """
import sys
from benchmarks.gpu.found import Bench
from benchmarks.gpu.runner import run_part
if __name__ == "__main__":
    result = run_part("tests.benchmarks.parts", Bench("cpu", True), budget_s=30, on_found=lambda found: None)
    print(len(result.found), result.error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [("raises", "ArithmeticError: no such kernel"), ("crashes", "exit code 139"), ("hangs", "its 30 s")],
)
def test_a_part_that_goes_wrong_says_so_and_keeps_what_it_had_found(how: str, said: str, tmp_path: Path) -> None:
    program = tmp_path / "run_part.py"
    program.write_text(RUN_PART)
    environment = {**os.environ, HOW: how, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 ") and said in done.stdout


@pytest.mark.slow
def test_the_parts_run_on_a_cpu_and_are_written_down(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    parts = ["agreement", "host_waits", "memory"]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--only", ",".join(parts)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--out", out], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads(out.read_text())["numbers"]
    assert all(numbers[part]["error"] == "" and numbers[part]["found"] for part in parts)
    assert "nothing failed" in done.stdout


@pytest.mark.parametrize(
    ("found", "reached"),
    [
        (Found("a", 2.0, at_most=2.0), True),
        (Found("a", 2.1, at_most=2.0), False),
        (Found("a", float("nan"), at_most=2.0), False),
        (Found("a", 2.1, at_least=2.0), True),
        (Found("a", 1.9, at_least=2.0), False),
        (Found("a", 1.9), None),
    ],
)
def test_a_number_reaches_its_goal_or_misses_it(found: Found, reached: bool | None) -> None:
    assert found.reached is reached

"""docs/cluster.md from its first command to its last, on the cluster that `make slurm-up` makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import COMMANDS, ROOT, blocks, commands_of, files_told
from tests.slurm.cluster import SlurmCluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

PAGE = ROOT / "docs" / "cluster.md"
NOT_RUN = {
    "make": "tests/slurm/test_cluster.py starts and ends clusters",
    "git": "clones; this is the clone",
    "cd": "changes the shell",
    ".": "changes the shell",
    "export": "the environment below has it",
    "sudo": "needs a PostgreSQL server",
    "pip": "installs",
    "mlflow": "serves until it is stopped; tests/tracking starts servers",
}
SITE = "conf/cluster/mine.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout, as far as the page's commands see one, with the file that the page tells to write."""
    for name in ("launch.py", "analysis"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / SITE).parent.mkdir(parents=True)
    (tmp_path / SITE).write_text(files_told()[SITE])
    return tmp_path


def run(words: tuple[str, ...], folder: Path, cluster: SlurmCluster) -> str:
    """What a command prints, as a reader would see it in a script."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    settings = {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment = {**os.environ, **settings, **cluster.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def shown(after: str) -> list[str]:
    """The lines of the page's block of text whose first line begins like this."""
    [lines] = [block.text.splitlines() for block in blocks(PAGE) if block.text.startswith(after)]
    return lines


def test_the_page_goes_from_nothing_to_its_result(slurm_accounting: SlurmCluster, folder: Path) -> None:
    said: dict[str, str] = {}
    for block in blocks(PAGE):
        for command in commands_of(block) if block.language in COMMANDS else ():
            if command.words[0] not in NOT_RUN:
                runs = sorted(path.name for path in folder.glob("runs/b*"))
                example = {"RUN": runs[0], "b16-*": "b8-*"} if runs else {}
                said[str(command)] = run(tuple(example.get(w, w) for w in command.words), folder, slurm_accounting)

    [found] = [text for command, text in said.items() if command == "megdet cluster"]
    assert set(shown("gpu (default)")[:2]) <= set(found.splitlines())

    # Name (without what depends on every setting), batch, bn_size, gpus: as the page shows them.
    row = re.compile(r"^ *\d+ +(b\d+-bn\d+-\S+)-\w{8} +(\d+) +(\d+) +(\d+) ", re.MULTILINE)
    planned = next(text for command, text in said.items() if "batch=4,8" in command and "dry_run" in command)
    assert row.findall(planned) == row.findall("\n".join(shown("#  run")))
    assert len(row.findall(planned)) == len(list(folder.glob("runs/b*/state.json"))) == 4

    assert said["megdet status"].count("finished") >= 4
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown("| Batch size")]
    table = next(text for command, text in said.items() if command.endswith("--table 3")).splitlines()
    ours = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    assert cells[0] == ours[0]
    for name in cells[1:]:
        [measured] = [line for line in ours if line[:4] == name[:4]]
        assert re.fullmatch(r"(\*\*)?\d+\.\d(\*\*)?", measured[4]), measured

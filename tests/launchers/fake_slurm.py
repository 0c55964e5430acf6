"""A Slurm of this machine alone: sbatch, srun, squeue, scontrol and scancel as programs that do what the real ones do.

`install(folder)` puts them into a folder for the PATH. Jobs run at once, as processes; there are no accounts (sacct
fails). tests/slurm has the real one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = "FAKE_SLURM"
"""Environment variable: where the jobs are kept."""
NODES_UP = "nodes-up"
"""In that folder: how many nodes are in service, one GPU each; without it all jobs start."""
KILL_WAIT_S = 5.0
FORGOTTEN_S = 600.0
"""A job that has waited for so long is one that a test has left."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


def install(folder: Path) -> dict[str, str]:
    """The environment of a user of this Slurm."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sacct", "sinfo"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        (programs / name).chmod(0o755)
    return {FOLDER: str(folder), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def record(job: str) -> Iterator[dict[str, Any]]:
    """What is known of a job, for reading and changing."""
    path = Path(os.environ[FOLDER]) / f"{job}.json"
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        values = json.load(file)
        yield values
        file.seek(0)
        file.truncate()
        json.dump(values, file)


def records() -> list[dict[str, Any]]:
    found = []
    for path in sorted(Path(os.environ[FOLDER]).glob("*.json")):
        with record(path.stem) as values:
            found.append(dict(values))
    return found


def sbatch(script: str) -> int:
    text = Path(script).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    number = 1000 + 10 * len(list(Path(os.environ[FOLDER]).glob("*.json")))
    last = re.match(r"0-(\d+)", options.get("array", ""))
    jobs = [f"{number}_{element}" for element in range(int(last.group(1)) + 1)] if last else [str(number)]
    for job in jobs:
        values = {"job": job, "name": options["job-name"], "state": "PENDING", "status": 0, "restarts": 0}
        values |= {"script": str(Path(script).resolve()), "options": options, "requeue": False, "pid": 0}
        (Path(os.environ[FOLDER]) / f"{job}.json").write_text(json.dumps(values))
        subprocess.Popen(
            [sys.executable, "-S", __file__, "run", job],
            start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    print(f"Submitted batch job {number}")
    return 0


def run(job: str) -> int:
    """The life of one job, restarts and all."""
    until = time.monotonic() + FORGOTTEN_S
    while time.monotonic() < until:
        with record(job) as values:
            if values["state"] == "CANCELLED":
                return 0
            needed = int(values["options"]["nodes"])
        if needed > nodes_up(needed):
            time.sleep(0.05)
            continue
        with record(job) as values:
            if values["state"] == "CANCELLED":
                return 0
            options, array = values["options"], job.partition("_")
            environment = {
                **os.environ, "SLURM_JOB_ID": str(os.getpid()) if array[2] else job, "SLURM_JOB_NUM_NODES": "1",
                "SLURM_NNODES": "1", "SLURM_NTASKS": options["ntasks-per-node"],
                "SLURM_RESTART_COUNT": str(values["restarts"]), "SLURMD_NODENAME": "localhost",
            }  # fmt: skip
            if array[2]:
                environment |= {"SLURM_ARRAY_JOB_ID": array[0], "SLURM_ARRAY_TASK_ID": array[2]}
            output = options["output"].replace("%A", array[0]).replace("%a", array[2]).replace("%j", job)
            with Path(output).open("a") as log:
                shell = subprocess.Popen(
                    ["bash", values["script"]],
                    env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            values |= {"state": "RUNNING", "pid": shell.pid, "requeue": False}
        code = shell.wait()
        end_group(shell.pid, signal.SIGKILL)
        with record(job) as values:
            if values["requeue"]:
                values |= {"state": "PENDING", "restarts": values["restarts"] + 1}
                continue
            values["status"] = code << 8 if code >= 0 else -code
            if values["state"] != "CANCELLED":
                values["state"] = "FAILED" if code else "COMPLETED"
        return 0
    return 1


def srun(*words: str) -> int:
    """As many tasks as the job has; one that fails takes the others with it."""
    command = list(words)
    while command[0].startswith("--"):
        # submitit gives --output a word of its own.
        del command[: 2 if command[0] == "--output" else 1]
    tasks = [
        subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(int(os.environ["SLURM_NTASKS"]))
    ]
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)  # the tasks get them too
    kill_at: float | None = None
    while True:
        codes = [task.poll() for task in tasks]
        if None not in codes:
            return max(128 - code if code < 0 else code for code in codes if code is not None)
        if any(codes) and kill_at is None:
            kill_at = time.monotonic() + KILL_WAIT_S
            rank = next(rank for rank, code in enumerate(codes) if code)
            code = codes[rank] or 0
            words = signal.strsignal(-code) if code < 0 else f"Exited with exit code {code}"
            print(f"srun: error: localhost: task {rank}: {words}", file=sys.stderr)
            for task in tasks:
                task.terminate()
        if kill_at and time.monotonic() > kill_at:
            for task in tasks:
                task.kill()
        time.sleep(0.02)


def nodes_up(otherwise: int) -> int:
    try:
        return int((Path(os.environ[FOLDER]) / NODES_UP).read_text())
    except FileNotFoundError:
        return otherwise


def sinfo(*words: str) -> int:
    for state, nodes in (("idle", nodes_up(4)), ("drained", 4 - nodes_up(4))):
        print(f"gpu*|up|infinite|{nodes}|8|100000|gpu:1|(null)|{state}")
    return 0


def squeue(*words: str) -> int:
    for values in records():
        print(f"{values['job']}|{values['state']}|{values['status']}|{values['name']}|None|")
    return 0


def scontrol(*words: str) -> int:
    if words == ("show", "config"):
        print("MaxArraySize            = 1001")
    if words[0] == "requeue":
        with record(words[1]) as values:
            values["requeue"] = True
        end_group(values["pid"], signal.SIGTERM)
    return 0


def scancel(job: str) -> int:
    with record(job) as values:
        if values["state"] not in ENDED:
            values["state"] = "CANCELLED"
    end_group(values["pid"], signal.SIGTERM)
    return 0


def sacct(*words: str) -> int:
    print("Slurm accounting storage is disabled", file=sys.stderr)
    return 1


def end_group(pid: int, number: signal.Signals) -> None:
    if pid:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))

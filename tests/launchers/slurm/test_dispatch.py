"""Submission by submitit: the whole text of scripts, what is pickled, and how a busy Slurm is met."""

from __future__ import annotations

import os
import pickletools
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import submitit

from megdet.errors import UserError
from megdet.launchers.slurm.client import SlurmError
from megdet.launchers.slurm.dispatch import dispatch, script_of
from megdet.launchers.slurm.payload import Payload, job_log
from megdet.launchers.slurm.rank import Rank
from megdet.launchers.slurm.resources import Array, arrays_of
from megdet.planning.plan import Plan
from tests.launchers.conftest import Command, PlanFor, make_folder

GOLDEN = Path(__file__).with_name("golden.sbatch")
SITE = {
    "partition": "gpu", "account": "vision", "qos": "normal", "constraint": "v100", "time_min": 2880,
    "signal_delay_s": 180, "cpus_per_gpu": 5, "mem_gb_per_gpu": 40, "setup": ["module load cuda"],
    "container": "apptainer exec --nv /images/megdet.sif", "python": "/opt/python", "mail_user": "me@example.org",
    "sbatch_options": {"reservation": "detection"}, "srun_args": ["--mpi=none"], "array_parallelism": 4,
}  # fmt: skip
OK = "echo Submitted batch job 5"


def array_of(*plans: Plan) -> Array:
    [array] = arrays_of(plans, max_array_size=1001)
    return array


def payload_of(array: Array) -> Payload:
    """Of runs whose folders are there; its own folder too, as before sbatch."""
    runs = [make_folder(plan) for plan in array.plans]
    payload = Payload.of(runs[0].path.parent / ".submissions" / "sweep-1", runs)
    payload.folder.mkdir(parents=True)
    payload.write()
    return payload


@pytest.fixture
def slurm(command: Command) -> Command:
    """A login node; sbatch is left to the test."""
    command("srun", "exit 0")
    return command


def test_the_script_of_an_array_is_this_text(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megdet.launchers.slurm.dispatch.megdet.__file__", "/shared/megdet/megdet/__init__.py")
    array = array_of(*(plan_for(64, 32, seed=seed, **SITE) for seed in (0, 1, 2)))
    assert script_of(array, Path("/shared/runs/.submissions/megdet-1120-120000-ab12-1")) == GOLDEN.read_text()


def test_a_single_run_is_a_plain_job_and_asks_for_nothing_that_the_site_does_not_want(plan_for: PlanFor) -> None:
    text = script_of(array_of(plan_for(16, 16, request_gpus=False)), Path("/f"))
    for word in ("--array", "--gpus", "--partition", "--account", "--mem", "--cpus-per-task", "--mail", "--wckey"):
        assert word not in text, word
    assert "#SBATCH --output=/f/%j_0_log.out\n" in text


def test_an_option_of_sbatch_that_takes_no_value_is_true(plan_for: PlanFor) -> None:
    options = {"hold": "True", "contiguous": "true", "exclusive": "user", "spread_job": "false"}
    text = script_of(array_of(plan_for(16, 16, sbatch_options=options)), Path("/f"))
    for line in ("#SBATCH --hold\n", "#SBATCH --contiguous\n", "#SBATCH --exclusive=user\n"):
        assert line in text, text
    assert "spread" not in text


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_dry_run_shows_is_what_submitit_submits(
    count: int, slurm: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    """Pins the private parts of submitit that a preview needs, `_make_submission_file_text` and
    `_submitit_command_str`, to what its public `map_array` hands to sbatch."""
    slurm("sbatch", f"cp $1 script; {OK}")
    array = array_of(*(plan_for(16, 16, seed=seed, **SITE) for seed in range(count)))
    payload = payload_of(array)
    assert dispatch(array, payload, already=lambda: None) == "5"
    assert (tmp_path / "script").read_text() == script_of(array, payload.folder)


def test_what_is_pickled_is_a_name_and_a_path(slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", OK)
    array = array_of(plan_for(16, 16), plan_for(16, 16, seed=1))
    payload = payload_of(array)
    dispatch(array, payload, already=lambda: None)
    pickles = [path.read_bytes() for path in sorted(payload.folder.glob("*.pkl"))]
    assert len(pickles) == 2 and pickles[0] == pickles[1], "any element can do with any of them"
    strings = [argument for opcode, argument, _ in pickletools.genops(pickles[0]) if isinstance(argument, str)]
    assert str(payload.file) in strings and Rank.__name__ in strings and Rank.__module__ in strings
    modules = {name for name in strings if "." in name and name != str(payload.file)}
    assert modules == {"submitit.core.utils", Rank.__module__}
    assert len(pickles[0]) < 1000


def test_a_job_s_log_is_where_submitit_says(slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", OK)
    array = array_of(plan_for(16, 16), plan_for(16, 16, seed=1))
    folder = payload_of(array).folder
    for job in ("5", "5_1"):
        assert submitit.SlurmJob(folder=folder, job_id=job).paths.stdout == job_log(folder, job)


def test_a_busy_controller_is_asked_again_and_a_refusal_is_not(
    slurm: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    array = array_of(plan_for(16, 16))
    payload = payload_of(array)
    slurm("sbatch", f"test -e tried && {OK} || {{ touch tried; echo 'error: Socket timed out' >&2; exit 1; }}")
    assert dispatch(array, payload, already=lambda: None, pauses_s=(0.01,)) == "5"
    slurm("sbatch", "echo x >> asked; echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1")
    with pytest.raises(UserError, match="invalid partition specified: gpuu"):
        dispatch(array, payload, already=lambda: None, pauses_s=(0.01,))
    assert (tmp_path / "asked").read_text() == "x\n"


def test_a_job_whose_answer_was_lost_is_not_made_twice(slurm: Command, plan_for: PlanFor, tmp_path: Path) -> None:
    slurm("sbatch", "echo x >> asked; echo 'Socket timed out' >&2; exit 1")
    array = array_of(plan_for(16, 16))
    assert dispatch(array, payload_of(array), already=lambda: "7", pauses_s=(0.01, 0.01)) == "7"
    assert (tmp_path / "asked").read_text() == "x\n"


def test_an_sbatch_that_hangs_is_ended(slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", "exec sleep 100")
    array = array_of(plan_for(16, 16))
    with pytest.raises(SlurmError, match="sbatch timed out"):
        dispatch(array, payload_of(array), already=lambda: None, pauses_s=(0.01,), timeout_s=0.3)


@pytest.mark.parametrize("missing", ["srun", "sbatch"])
def test_without_slurm_a_login_node_is_asked_for(missing: str, command: Command, plan_for: PlanFor) -> None:
    if missing != "srun":
        command("srun", "exit 0")
    array = array_of(plan_for(16, 16))
    with pytest.raises(UserError, match=f"no {missing} on this machine; launch from a login node"):
        dispatch(array, payload_of(array), already=lambda: None)


def test_a_surrounding_job_gives_its_settings_to_no_new_job(
    slurm: Command, plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm("sbatch", f"env > environment; {OK}")
    for name in ("SLURM_JOB_ID", "SBATCH_TIMELIMIT", "PMIX_RANK", "SLURM_CONF"):
        monkeypatch.setenv(name, "of-the-job")
    array = array_of(plan_for(16, 16))
    dispatch(array, payload_of(array), already=lambda: None)
    assert os.environ["SLURM_JOB_ID"] == "of-the-job", "it is still in that job"
    given = [line for line in (tmp_path / "environment").read_text().splitlines() if "of-the-job" in line]
    assert given == ["SLURM_CONF=of-the-job"]


def run_script(text: str, folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """A script with stand-ins for srun and others, as job 5."""
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["bash", "-c", f"PATH={shlex.quote(str(folder))}:$PATH\n{text}"],
        capture_output=True, text=True, timeout=20, env={**os.environ, "SLURM_JOB_ID": "5"},
    )  # fmt: skip


@pytest.mark.parametrize("code", [0, 1, 3, 137])
def test_the_shell_hands_the_ranks_exit_code_on_and_outlives_a_signal(
    code: int, plan_for: PlanFor, tmp_path: Path
) -> None:
    """The last lines of the script, with srun and python as stand-ins."""
    (tmp_path / "5_submitted.pkl").touch()
    text = script_of(array_of(plan_for(16, 16, python=str(tmp_path / "python"))), tmp_path)
    srun = f"kill -TERM $PPID; kill -USR2 $PPID; sleep 0.3; exit {code}"
    done = run_script(text, tmp_path, srun=srun, python='echo "$@"')
    assert done.stdout == f"-u -m megdet.launchers.slurm.end {tmp_path}/runs.json {code}\n", done.stderr


@pytest.mark.parametrize("name", ["a b", "it's", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "&& touch pwned"])
def test_the_name_of_a_folder_is_no_command_to_a_jobs_script(name: str, plan_for: PlanFor, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "5_submitted.pkl").touch()
    text = script_of(array_of(plan_for(16, 16, python=str(tmp_path / "python"))), folder)
    done = run_script(f"cd {tmp_path}\n{text}", tmp_path, srun='echo "$@"', python='printf "%s|" "$@"')
    assert f"|{folder}/runs.json|0|" in done.stdout, done.stdout + done.stderr
    assert not list(tmp_path.rglob("pwned"))


def test_a_job_whose_launcher_was_killed_before_it_gave_it_its_callable_has_it_all_the_same(
    slurm: Command, plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit names a pickle after its job once sbatch has answered; here it never hears an answer."""
    slurm("sbatch", "kill -9 $PPID")
    array = array_of(plan_for(16, 16))
    payload = payload_of(array)
    plan_file = tmp_path / "asked.json"
    plan_file.write_text(array.plans[0].to_json())
    program = (
        "import sys; from pathlib import Path; from megdet.launchers.slurm.dispatch import dispatch; "
        "from megdet.launchers.slurm.payload import Payload; from megdet.launchers.slurm.resources import arrays_of; "
        "from megdet.planning.plan import Plan; plan = Plan.from_json(Path(sys.argv[1]).read_text()); "
        "dispatch(*arrays_of([plan], max_array_size=1), Payload.read(Path(sys.argv[2])), already=lambda: None)"
    )
    died = subprocess.run([sys.executable, "-c", program, str(plan_file), str(payload.file)], timeout=60)
    assert died.returncode == -9
    [left] = payload.folder.glob("*.pkl")
    monkeypatch.undo()
    done = run_script(script_of(array, payload.folder), tmp_path, srun="exit 0")
    assert (payload.folder / "5_submitted.pkl").read_bytes() == left.read_bytes(), done.stderr
    shutil.rmtree(payload.folder)


def test_a_users_defaults_for_sbatch_count_where_no_setting_replaces_them(
    slurm: Command, plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm("sbatch", f"env > environment; {OK}")
    for name in ("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_RESERVATION"):
        monkeypatch.setenv(name, "of-the-user")
    plan = plan_for(16, 16)
    plan.config.cluster.partition = "asked-for"
    array = array_of(plan)
    dispatch(array, payload_of(array), already=lambda: None)
    given = [line for line in (tmp_path / "environment").read_text().splitlines() if "of-the-user" in line]
    assert sorted(given) == ["SBATCH_ACCOUNT=of-the-user", "SBATCH_RESERVATION=of-the-user"]


def test_a_setup_line_that_fails_ends_the_job_with_its_message(plan_for: PlanFor, tmp_path: Path) -> None:
    plan = plan_for(16, 16)
    plan.config.cluster.setup = ["WORD=hello", "echo $WORD > heard", "test -e /no/such/module", "touch went-on"]
    lines = script_of(array_of(plan), tmp_path / "submission").splitlines()
    first, last = (
        next(n for n, line in enumerate(lines) if line.startswith(start)) for start in ("trap 'echo", "trap - ERR")
    )
    script = "\n".join(["#!/bin/bash", *lines[first : last + 1], "touch ranks-began"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 97 and done.stderr == "cluster.setup failed: test -e /no/such/module\n"
    assert (tmp_path / "heard").read_text() == "hello\n"
    assert not (tmp_path / "went-on").exists() and not (tmp_path / "ranks-began").exists()

"""launch.py as a user meets it: a process, its words and its exit code. `test_mistakes.py` has all mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import megdet.launch

LAUNCH = Path(__file__).parents[1] / "launch.py"
SMALL = [
    "experiment=tiny", "gpus=1", "batch=4", "bn_size=4", "data.train_images=8", "data.val_images=2",
    "data.min_size=64", "data.max_size=107", "data.workers=0", "schedule.epochs=1", "schedule.milestones=[]",
    "schedule.factors=[]", "tracking.enabled=false",
]  # fmt: skip


def launch(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python launch.py ARGUMENTS` in `folder`, on a machine without GPU and without cached weights."""
    settings = {"CUDA_VISIBLE_DEVICES": "", "TORCH_HOME": str(folder / "torch"), "COLUMNS": "200", **environment}
    inherited = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        [sys.executable, str(LAUNCH), *arguments],
        cwd=folder, env={**inherited, **settings}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["bath=16"], ["bath", "batch"]),
        (["-m", "batch=16,many"], ["batch=many"]),
        (["-m", "batch=16,8", "bn_size=32"], ["invalid"]),
        (["experiment=[1]"], ["experiment=[1]", "demo"]),
        (["--config-name", "nope"], ["nope"]),
        (["-m", "batch=16,32", "data.root=nowhere"], ["nowhere"]),
        (["experiment=tiny", "model.backbone.weights=no/such.pth"], ["model.backbone.weights=no/such.pth"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_message_and_exit_code_2_of_a_process_too(
    arguments: list[str], parts: list[str], tmp_path: Path
) -> None:
    done = launch(tmp_path, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert all(part in said for part in parts), said
    assert "Traceback" not in said and "HYDRA_FULL_ERROR" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_tracking_server_that_is_down_is_said_once_by_launcher_and_run(tmp_path: Path) -> None:
    done = launch(tmp_path, *SMALL, "tracking.enabled=true", "tracking.uri=http://127.0.0.1:9")
    assert done.returncode == 0 and done.stderr.count("cannot connect (Connection refused)") == 2, done.stderr
    assert "Retrying" not in done.stderr, done.stderr


def test_ctrl_c_while_nothing_runs_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(megdet.launch, "launch", interrupted)
    monkeypatch.setattr(sys, "argv", ["launch.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main changes it
    assert megdet.launch.main([]) == 3
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"


def test_a_traceback_can_be_asked_for(tmp_path: Path) -> None:
    assert "Traceback" in launch(tmp_path, "bath=16", HYDRA_FULL_ERROR="1").stderr
    assert "Traceback" not in launch(tmp_path, "bath=16", HYDRA_FULL_ERROR="0").stderr


def test_help_names_the_knobs_the_groups_and_commands(tmp_path: Path) -> None:
    done = launch(tmp_path, "--help")
    assert done.returncode == 0
    for words in (
        "batch ",
        "bn_size ",
        "gpus ",
        "experiment=tiny",
        "r18_fpn, r50_fpn, tiny",
        "coco2017, custom, digits, shapes",
        "basic, local_parallel, submitit_slurm",
        "random, tpe",
    ):
        assert words in done.stdout, words


@pytest.mark.parametrize(
    "arguments", [["--help"], ["sweep.dry_run=true"], ["-m", "batch=16,32", "sweep.dry_run=true"]], ids=" ".join
)
def test_help_and_planning_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from megdet.launch import main\n"
        "try: assert main() == 0\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'matplotlib', 'numpy', 'PIL', 'hotcoco'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(LAUNCH.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sweep_is_shown_as_a_table_with_what_cannot_be(tmp_path: Path) -> None:
    done = launch(tmp_path, "-m", "batch=16,64,256", "bn_size=16,32", "cluster=paper", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr
    rows = {
        tuple(int(number) for number in match.group(1, 2, 3, 4, 5))
        for match in re.finditer(r"b\d+-bn\d+-normal-s0-\w{8} +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) ", done.stdout)
    }
    # batch, bn_size, gpus, nodes, images_per_gpu: the rows of Table 3
    assert rows == {
        (16, 16, 8, 1, 2),
        (64, 16, 32, 4, 2),
        (64, 32, 16, 2, 4),
        (256, 16, 128, 16, 2),
        (256, 32, 64, 8, 4),
    }
    assert "2. invalid: batch=16 bn_size=32" in done.stdout
    assert "5 new, 1 invalid" in done.stdout
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


@pytest.mark.parametrize("words", [[], ["-m", "batch=16,64,256", "bn_size=16,32"]], ids=["one run", "a sweep"])
def test_a_laptop_is_promised_what_it_can_do(words: list[str], tmp_path: Path) -> None:
    done = launch(tmp_path, *words, "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "Table 3" not in done.stdout and "256 hours" not in done.stdout
    assert f"no GPU here: CPU processes stand in for GPUs, on {cores_in_words()}" in done.stdout
    assert "r50_fpn on coco2017 is not meant for a CPU: about " in done.stdout and "experiment=tiny" in done.stdout
    demo = launch(tmp_path, "experiment=tiny", "sweep.dry_run=true")
    assert "no GPU here" in demo.stdout and "not meant" not in demo.stdout
    cluster = launch(tmp_path, *words, "sweep.dry_run=true", "cluster=paper")
    assert "Table 3" in cluster.stdout and "no GPU here" not in cluster.stdout


def cores_in_words() -> str:
    cores = len(os.sched_getaffinity(0))
    return "1 core" if cores == 1 else f"{cores} cores"


@pytest.mark.slow
def test_what_runs_here_took_predicts_the_next_and_gpus_are_another_thing(tmp_path: Path) -> None:
    assert launch(tmp_path, *SMALL).returncode == 0
    assert "predicted from runs" in launch(tmp_path, *SMALL, "seed=1", "sweep.dry_run=true").stdout
    on_gpus = launch(tmp_path, *SMALL, "seed=1", "sweep.dry_run=true", "cluster.gpus_per_node=1").stdout
    assert "predicted from" not in on_gpus and "no GPU" not in on_gpus


def test_a_hundred_points_are_planned_in_seconds(tmp_path: Path) -> None:
    before = os.times()
    # -m may stand anywhere.
    done = launch(tmp_path, "cluster=paper", "-m", "batch=range(16,1617,16)", "sweep.dry_run=true")
    after = os.times()
    assert done.returncode == 0 and re.search(r"^ *101 ", done.stdout, re.MULTILINE), done.stdout
    # Processor time, as the host may be busy; about 1 s.
    assert after.children_user - before.children_user < 5


def test_the_shell_completes_keys_and_options(tmp_path: Path) -> None:
    assert "complete" in launch(tmp_path, "-sc", "install=bash").stdout
    for line, expected in (("model=", "model=tiny"), ("bn", "bn_size="), ("schedule.war", "schedule.warmup_epochs=")):
        done = launch(tmp_path, "-sc", "query=bash", COMP_LINE=f"python launch.py {line}")
        assert expected in done.stdout.split(), done.stdout + done.stderr


def own_option(folder: Path, name: str, text: str) -> None:
    (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "conf" / name).write_text(text)


def test_files_in_conf_of_the_current_folder_add_options(tmp_path: Path) -> None:
    own_option(tmp_path, "cluster/mine.yaml", "name: mine\nnodes: 4\ngpus_per_node: 4\n")
    own_option(tmp_path, "experiment/half.yaml", "# @package _global_\nlr: {scale: 0.5}\nbatch: 32\n")
    done = launch(tmp_path, "cluster=mine", "experiment=half", "sweep.dry_run=true")
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    # gpus=auto spreads a BN batch of 16 over a node: 4 images on each of its 4 GPUs.
    assert "batch 32 = gpus 8 x images_per_gpu 4" in done.stdout and "lr 0.02," in done.stdout, done.stdout
    swept = launch(tmp_path, "-m", "cluster=mine,paper", "sweep.dry_run=true")
    assert "1 new, 1 repeated" in swept.stdout, swept.stdout + swept.stderr
    assert re.search(r"^  cluster +local, mine, paper, slurm$", launch(tmp_path, "--help").stdout, re.MULTILINE)
    completed = launch(tmp_path, "-sc", "query=bash", COMP_LINE="python launch.py cluster=m")
    assert completed.stdout == "cluster=mine\n" and completed.stderr == ""
    mistyped = launch(tmp_path, "cluster=mime")
    assert mistyped.returncode == 2 and "Did you mean mine?" in mistyped.stderr


def test_own_files_that_have_the_names_of_ours_are_said_not_to_be_used(tmp_path: Path) -> None:
    own_option(tmp_path, "cluster/paper.yaml", "name: paper\nnodes: 1\n")
    own_option(tmp_path, "config.yaml", "batch: 1\n")
    own_option(tmp_path, "cluster/mine.yaml", "name: mine\n")
    done = launch(tmp_path, "cluster=paper", "batch=256", "sweep.dry_run=true")
    assert done.returncode == 0 and "gpus 128" in done.stdout, done.stdout + done.stderr
    assert done.stderr == (
        "not used: conf/cluster/paper.yaml, conf/config.yaml; megdet has files of the same names, so rename yours\n"
    )


def test_another_folder_of_options_may_be_named_instead(tmp_path: Path) -> None:
    own_option(tmp_path, "cluster/mine.yaml", "name: mine\nnodes: 2\n")
    own_option(tmp_path / "other", "cluster/theirs.yaml", "name: theirs\nnodes: 2\n")
    done = launch(tmp_path, "--config-dir", "other/conf", "cluster=theirs", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr


def test_a_run_leaves_its_folder_alone_and_asked_again_is_done(tmp_path: Path) -> None:
    first = launch(tmp_path, *SMALL)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "finished" in first.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]
    [folder] = (tmp_path / "runs").glob("b*")
    assert {"plan.json", "state.json", "metrics.jsonl"} <= {path.name for path in folder.iterdir()}
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    again = launch(tmp_path, *SMALL)
    assert again.returncode == 0 and f"{folder.name}: finished" in again.stdout, again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path in written} == written


@pytest.mark.slow
def test_a_sweeper_of_another_kind_trains_all_its_points(tmp_path: Path) -> None:
    done = launch(tmp_path, "-m", "hydra/sweeper=basic", *SMALL, "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    states = [json.loads(path.read_text())["status"] for path in (tmp_path / "runs").glob("*/state.json")]
    assert states == ["finished", "finished"]


@pytest.mark.parametrize("launcher", ["basic", "local_parallel"])
def test_another_sweeper_plans_all_its_points_in_a_dry_run(launcher: str, tmp_path: Path) -> None:
    done = launch(
        tmp_path, "-m", "hydra/sweeper=basic", f"hydra/launcher={launcher}", *SMALL, "seed=0,1,2", "sweep.dry_run=true"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [seed for seed in range(3) if f"b4-bn4-normal-s{seed}-" in done.stdout] == [0, 1, 2], done.stdout


@pytest.mark.parametrize("mode", [(), pytest.param(("-m",), marks=pytest.mark.slow)], ids=["one run", "a sweep"])
def test_hydras_env_set_reaches_the_ranks_of_one_run_and_of_a_sweep(mode: tuple[str, ...], tmp_path: Path) -> None:
    seed = "seed=0,1" if mode else "seed=0"
    # What only a rank can answer: oneDNN writes a line for each operation that it runs.
    done = launch(tmp_path, *mode, *SMALL, seed, "+hydra.job.env_set.ONEDNN_VERBOSE=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("onednn_verbose") > 10, done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-m", "seed=range(0,600)", "sweep.dry_run=true", "experiment=tiny"]]
)
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(LAUNCH), *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0

"""What a user can write wrong: one message that names the setting and a way out, exit code 2, and no run folder.

Each mistake is made as a user makes it, through the program's own entry, in this process because a hundred processes
would take minutes; `test_launch.py` and `test_in_a_process` below have a handful as real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from megdet.analysis.make_figures import main as figures
from megdet.analysis.make_report import main as report
from megdet.analysis.make_tables import main as tables
from megdet.cli import main as megdet
from megdet.config.compose import compose
from megdet.data.resolve import DataResolver
from megdet.launch import main as launch
from megdet.planning.plan import make_plan

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

DIGITS = "1" * 400
"""Beyond float64; OmegaConf would answer with Python's own OverflowError."""
MORE_DIGITS = "1" * 5000
"""Beyond what Python reads as a number."""
TRAIN = "data.train.annotations"
OWN = "model.backbone.custom"

Mistake = tuple[list[str], str, str]
"""What is written, the setting or argument that the message has to name, and words of its way out."""

# What one experiment is asked for.
SINGLE: list[Mistake] = [
    (["bath=16"], "bath", "Did you mean batch"),
    (["batch"], "batch", "KEY=VALUE"),
    (["=16"], "=16", "KEY=VALUE"),
    (["batch=many"], "batch=many", "a whole number from 1"),
    (["batch=0"], "batch=0", "from 1 to 100000"),
    (["batch=16.0"], "batch=16.0", "a whole number"),
    (["batch=null"], "batch=null", "a whole number"),
    (["batch=true"], "batch=true", "a whole number"),
    (["batch=???"], "batch", "give it a value"),
    (["batch=${batch}"], "batch", "give it a value"),
    (["batch=${nope}"], "batch", "give it a value"),
    (["batch=9223372036854775807"], "batch=9223372036854775807", "from 1 to 100000"),
    ([f"batch={DIGITS}"], "batch=", "from 1 to 100000"),
    ([f"batch={MORE_DIGITS}"], "batch=", "cannot be read"),
    (["batch=16,32"], "batch=16,32", "--multirun"),
    (["batch=range(1,3)"], "batch=range(1,3)", "-m"),
    (["batch=16 bn_size=16"], "batch=16 bn_size=16", "quote it"),
    (["batch=foo(16)"], "batch=foo(16)", "quote it"),
    (["+batch=16"], "batch", "without the +"),
    (["++new_key=1"], "+new_key", "--cfg job"),
    (["+model=tiny"], "model", "without the +"),
    (["~data.root"], "~data.root", "set it to another value"),
    (["batch=16", "bn_size=32"], "bn_size=32", "bn_size=16; batch=32"),
    (["batch=48", "bn_size=32", "images_per_gpu=5"], "images_per_gpu=5", "What would work"),
    (["gpus=999999"], "gpus=999999", "or auto"),
    (["gpus=1.5"], "gpus=1.5", "or auto"),
    (["gpus=7"], "gpus=7", "What would work"),
    (["images_per_gpu=-1"], "images_per_gpu=-1", "or auto"),
    (["seed=-1"], "seed=-1", "of at least 0"),
    ([f"seed={DIGITS}"], "seed=", "of at most"),
    (["precision=fp16"], "precision=fp16", "fp32, tf32, bf16"),
    (["sublinear=1"], "sublinear=1", "auto, true, false"),
    (["log_every=0"], "log_every=0", "at least 1"),
    (["checkpoint_every_min=nan"], "checkpoint_every_min=nan", "a finite number"),
    ([f"lr.scale={DIGITS}"], "lr.scale=", "at most 1e+12"),
    (["lr.scale=1e999"], "lr.scale=", "a finite number"),
    (["lr=0.1"], "lr=0.1", "lr.base"),
    (["schedule.factors=[inf,0.1]"], "schedule.factors=[inf, 0.1]", "a finite number above 0"),
    ([f"schedule.factors=[{DIGITS},0.1]"], "schedule.factors=[", "at most 1e+12"),
    (["schedule.milestones=[10,8]"], "schedule.milestones=[10, 8]", "must rise"),
    (["schedule.milestones=[8]"], "schedule.milestones=[8]", "equal length"),
    (["schedule.milestones=8"], "schedule.milestones=8", "a list"),
    (["schedule.epochs=5"], "schedule.epochs=5", "must rise"),
    (["schedule.warmup_images=1"], "schedule.warmup_images=1", "schedule.warmup_epochs=null"),
    (["cluster=paper", "schedule.warmup_epochs=9", "batch=256"], "schedule.warmup_epochs", "shorten"),
    (["schedule=brief"], "schedule=brief", "long, normal, short"),
    (["schedule.name=../x"], "schedule.name=../x", "letters, digits"),
    (["schedule.name='$(touch x)'"], "schedule.name", "letters, digits"),
    (["optimizer.momentum=2"], "optimizer.momentum=2", "from 0 to 1"),
    (["optimizer.clip_grad_norm=0"], "optimizer.clip_grad_norm=0", "null means not clipped"),
    (["momentun=0.9"], "momentun", "Did you mean optimizer.momentum"),
    (["model=r51"], "model=r51", "Did you mean r50_fpn"),
    (["model=null"], "model=null", "r18_fpn, r50_fpn, tiny"),
    (["model=[tiny,r18_fpn]"], "model=[tiny,r18_fpn]", "-m model=tiny,r18_fpn"),
    (["schedule=[normal,long]"], "schedule=[normal,long]", "-m schedule=normal,long"),
    (["-m", "schedule=[normal,long],short"], "schedule=[normal,long]", "-m schedule=normal,long"),
    (["hydra/launcher=[basic,local_parallel]"], "hydra/launcher=[basic,local_parallel]", "hydra/launcher=NAME"),
    (["hydra/launcher=null"], "hydra/launcher=null", "basic, local_parallel, submitit_slurm"),
    (["experiment=[tiny,nope]"], "experiment=nope", "demo, evidence, tiny"),
    (["model.bn_in=[[1]]"], "model.bn_in=[[1]]", "backbone, fpn"),
    (["model.bn_in=backbone"], "model.bn_in=backbone", "a list"),
    (["model.bn_in=[]"], "model.bn_in=[]", "bn_size=0"),
    (["model.anchors.sizes=[1]"], "model.anchors.sizes=[1]", "give 5 sizes"),
    (["model.rpn.negative_iou=0.9"], "model.rpn.negative_iou=0.9", "model.rpn.positive_iou"),
    (["model.rpn_nms=0.5"], "model.rpn_nms", "Did you mean"),
    (["model.backbone.name=r101"], "model.backbone.name=r101", OWN),
    (["experiment=nope"], "experiment=nope", "demo, evidence, tiny"),
    (["experiment=[1]"], "experiment=[1]", "demo, evidence, tiny"),
    (["experiment=null"], "experiment=null", "demo, evidence, tiny"),
    (["experiment={a: 1}"], "experiment={a: 1}", "demo, evidence, tiny"),
    (["eval.score_threshold=2"], "eval.score_threshold=2", "from 0 to 1"),
    # Parts of one's own.
    ([f"{OWN}=x"], OWN, "_target_"),
    ([f"{OWN}={{_target_: a b}}"], OWN, "dotted path"),
    ([f"{OWN}={{_target_: a.b}}"], OWN, "model.backbone.name=mine"),
    ([f"{OWN}={{_target_: a.b, x: {DIGITS}}}", "model.backbone.name=mine"], OWN, "finite numbers"),
    ([f"{OWN}={{_target_: a.b, lambda: 1}}", "model.backbone.name=mine"], OWN, "keyword arguments"),
    ([f"{OWN}.x=1"], f"{OWN}.x", f"+{OWN}.x"),
    (["bn_size=0", "model.norm.name=x", "model.norm.custom={_target_: a.b}"], "bn_size=0", "model/norm=cgbn"),
    # Paths, data and weights.
    (["data=imagenet"], "data=imagenet", "coco2017, custom, digits, shapes"),
    (["data.root=nowhere"], "data.root=", "data=shapes"),
    (["data.root=~/coco"], "data.root=~/coco", "data.root='~/coco'"),
    (["data.root=/data/a=b"], "data.root=/data/a=b", "data.root='/data/a=b'"),
    (["data.root=/data/my (old) coco"], "data.root=", "data.root='/data/my (old) coco'"),
    (["data.root='~nouser/x'"], "data.root=~nouser/x", "another path"),
    ([f"data.root={'x' * 300}"], "data.root=", "255 in each name"),
    (["data.root=null"], "data.root=null", "one line of text"),
    (["data.root=${oc.env:NOT_SET}"], "data.root", "NOT_SET"),
    (["data.max_size=100"], "data.max_size=100", "data.min_size"),
    (["data=shapes", "data.fingerprint=other"], "data.fingerprint=other", "launch again without"),
    (["data=custom"], "data.train.annotations", "data.val_fraction"),
    (["data=custom", f"{TRAIN}=a.json"], "data.val.annotations", "data.val_fraction=0.1"),
    (["data=custom", f"{TRAIN}=a.json", "data.val.annotations=b.json"], "a.json", f"give {TRAIN}"),
    (["data=custom", f"{TRAIN}=a.json", "data.val_fraction=2"], "data.val_fraction=2", "at most 0.9"),
    (["data=custom", f"{TRAIN}=text.json", "data.val_fraction=0.5"], "text.json", "fetch or generate it again"),
    (["data=custom", f"{TRAIN}=pipe", "data.val_fraction=0.5"], "pipe", f"give {TRAIN}"),
    (["data=custom", f"{TRAIN}='~nouser/x.json'"], f"{TRAIN}=~nouser/x.json", "another path"),
    (["model.mask.layers=2"], "model.mask.layers", "set model.mask.name"),
    (["model.context.channels=8"], "model.context.channels", "leave model.context.channels out"),
    (["model.segmentation.targets=boxes"], "model.segmentation.targets", "model.segmentation.weight"),
    (["model.backbone.weights=none"], "model.backbone.weights=none", "model.backbone.frozen_stages=0"),
    (["experiment=tiny", "model.backbone.weights=imagenet"], "weights=imagenet", "model.backbone.weights=none"),
    (["experiment=tiny", "model.backbone.weights=no.pth"], "weights=no.pth", "give a path"),
    (["model.backbone.weights_sha256=1a2b"], "model.backbone.weights_sha256=1a2b", "weights_sha256=null"),
    (["experiment=tiny", "model.backbone.weights=text.json", "model.backbone.weights_sha256=1a2b"],
     "model.backbone.weights_sha256=1a2b", "launch again without"),
    (["experiment=tiny", "model.backbone.weights=pipe"], "weights=pipe", "give a path"),
    (["experiment=tiny", "model.backbone.weights=/dev/null"], "weights=/dev/null", "give a path"),
    (["experiment=tiny", "model.backbone.weights='~nouser/x'"], "weights=~nouser/x", "another path"),
    (["experiment=tiny", "runs_dir=text.json"], "runs_dir=text.json", "name another"),
    (["experiment=tiny", "runs_dir=/proc/x"], "runs_dir=/proc/x", "choose another"),
    (["runs_dir='~nouser/x'"], "runs_dir=~nouser/x", "another path"),
    (["tracking.uri=''"], "tracking.uri=''", "or null"),
    (["experiment=tiny", "tracking.uri=mlflow.db"], "tracking.uri", "sqlite:////"),
    (["experiment=tiny", "tracking.uri='http://[::1'"], "tracking.uri", "http://HOST:PORT"),
    (["experiment=tiny", "tracking.uri='http://host:port'"], "tracking.uri", "http://HOST:PORT"),
    (["experiment=tiny", "tracking.uri='sqlite://'"], "tracking.uri", "sqlite:////"),
    # Where it runs.
    (["cluster=paper2"], "cluster=paper2", "Did you mean paper"),
    (["cluster.nodes=0"], "cluster.nodes=0", "or auto"),
    (["cluster.time_min=1"], "cluster.time_min=1", "raise time_min"),
    (["cluster.setup=x"], "cluster.setup=x", "a list"),
    (["+cluster.sbatch_options.nodes=7"], "cluster.sbatch_options.nodes=7", "use gpus and cluster.nodes"),
    (["+cluster.sbatch_options.ntasks-per-node=4"], "ntasks-per-node=4", "cluster.gpus_per_node"),
    (["+cluster.sbatch_options.time=5"], "cluster.sbatch_options.time=5", "use cluster.time_min"),
    (["+cluster.sbatch_options.job-name=x"], "cluster.sbatch_options.job-name=x", "leave it out"),
    (["+cluster.sbatch_options.a=[1]"], "cluster.sbatch_options", "texts"),
    (["cluster.sbatch_options.a=1"], "cluster.sbatch_options.a", "+cluster.sbatch_options.a"),
    (["hydra/launcher=joblib"], "hydra/launcher=joblib", "local_parallel"),
    (["hydra/launcher=submitit_local"], "hydra/launcher=submitit_local", "local_parallel"),
    (["+hydra.launcher.slurm_partition=gpu"], "slurm_partition", "cluster.partition=gpu"),
    (["+hydra.launcher.colour=red"], "hydra.launcher.colour", "cluster.*"),
    (["hydra.nope=1"], "hydra.nope", "--cfg hydra"),
    (["hydra.run.dir=/proc/x"], "/proc/x", "No such file"),
    (["sweep=table3"], "sweep.rows=table3", "add -m"),
    (["sweep.on_existing=never"], "sweep.on_existing=never", "retry_failed"),
    (["sweep.wait=perhaps"], "sweep.wait=perhaps", "true or false"),
    (["experiment=tiny", "sweep.max_gpu_hours=0.001"], "sweep.max_gpu_hours=0.001", "sweep.max_gpu_hours=null"),
    (["-batch=16"], "-batch=16", "write batch=16"),
    (["--lr.base=0.1"], "--lr.base=0.1", "write lr.base=0.1"),
    (["--schedule=long"], "--schedule=long", "write schedule=long"),
    (["~batch"], "~batch", "batch=..."),
    (["~schedule"], "~schedule", "schedule=..."),
    (["~lr.base"], "~lr.base", "lr.base=..."),
    (["experiment=tiny", "data.val_fraction=0.5"], "data.val_fraction", "use data=custom"),
    (["experiment=tiny", "model.init_from=/nowhere/b8"], "model.init_from=/nowhere/b8", "name a run"),
    # Flags of Hydra's.
    (["--run", "--multirun"], "--run", "--multirun"),
    (["--config-name", "nope"], "nope", "search path"),
    (["--config-dir", "nowhere"], "nowhere", "not found"),
    (["--cfg", "job", "--package", "nope"], "nope", "not found"),
]  # fmt: skip

# The first three are overrides that Hydra composes for all points, the others are values of points.
SWEEPS: list[Mistake] = [
    (["bath=16,32"], "bath", "Did you mean batch"),
    (["batch=16,32", "model=r51"], "model=r51", "r50_fpn"),
    (["experiment=tiny,nope"], "experiment=nope", "demo, evidence, tiny"),
    (["batch=16,many"], "batch=many", "a whole number"),
    ([f"lr.scale=1,{DIGITS}"], "lr.scale=", "at most 1e+12"),
    (["seed=1,[2]"], "seed=[2]", "a whole number"),
    (["batch=16,32", "batch=8"], "batch=16,32 and batch=8", "keep one"),
    (["batch=range(3,1)"], "batch=range(3,1)", "at least one"),
    (["batch=range(1,inf)"], "batch=range(1,inf)", "finite bounds"),
    (["batch=range(1,3,0)"], "batch=range(1,3,0)", "other than 0"),
    (["batch=range(1,1e18)"], "batch=range(1,1e18)", "fewer values"),
    (["seed=range(0,1000)", "batch=range(0,1000)"], "batch=range(0,1000)", "fewer values"),
    (["sweep.rows=whole.yaml"], "sweep.dry_run is for a whole sweep", "on the command line"),
    (["sweep.rows=of_hydra.yaml"], "hydra/launcher is for a whole sweep", "on the command line"),
    (["sweep.rows=time.yaml"], "12:00:00 is a number of base 60", "quote"),
    (["batch=interval(1,3)"], "batch=interval(1,3)", "a range()"),
    (["experiment=glob(zz*)"], "experiment=glob(zz*)", "at least one"),
    (["batch=16,"], "batch=16,", "quote it"),
    (["seed=0,1", "+hydra.launcher.timeout_min=60"], "timeout_min=60", "cluster.time_min=60"),
    (["seed=0,1", "sweep.on_invalid=no"], "sweep.on_invalid=no", "report, error"),
    (["sweep=tabel3"], "sweep=tabel3", "Did you mean table3"),
    (["sweep.rows=tabel3"], "sweep.rows=tabel3", "Did you mean table3"),
    (["sweep.rows=none.yaml"], "none.yaml", "the path of a YAML file"),
    (["sweep.rows=pipe.yaml"], "pipe.yaml", "the path of a YAML file"),
    (["sweep.rows=torn.yaml"], "torn.yaml", "line 1"),
    (["sweep.rows=twice.yaml"], "twice.yaml", "batch is there twice"),
    (["sweep.rows=latin.yaml"], "latin.yaml", "UTF-8"),
    (["sweep.rows=deep.yaml"], "deep.yaml", "nested too deeply"),
    (["sweep.rows=empty.yaml"], "empty.yaml", "`rows`"),
    (["sweep.rows=paper.yaml"], "paper.yaml", "`ask`"),
    (["sweep.rows=unasked.yaml"], "unasked.yaml, row 2", "ask: {batch: 16}"),
    (["sweep.rows=key.yaml"], "key.yaml, row 1: bach", "Did you mean batch"),
    (["sweep.rows=value.yaml"], "value.yaml, row 1: batch=many", "a whole number"),
    (["sweep.rows=date.yaml"], "date.yaml, row 1", "quote it"),
    (["sweep.rows=number.yaml"], "number.yaml, row 1: lr.scale=", "at most 1e+12"),
    (["sweep.rows=choice.yaml"], "choice.yaml, row 1: model=r51", "r50_fpn"),
    (["sweep.rows=measures.yaml"], "measures.yaml: measures", "did you mean measure?"),
    (["sweep.rows=shows.yaml"], "shows.yaml, names: A is to show zip", "use batch, label"),
    (["sweep.rows=published.yaml"], "published.yaml, row 1, paper: mmAP is good", "write a number, or failed"),
]  # fmt: skip

# The subcommands of `megdet`; RUN stands for a run folder that there is.
COMMANDS: list[Mistake] = [
    ([], "COMMAND", "required"),
    (["statsu"], "statsu", "status"),
    (["status", "nope"], "nope", "run"),
    (["status", "/nope"], "/nope", "run"),
    (["status", "x" * 5000], "xxx", "255 in each name"),
    (["status", "~nouser"], "~nouser", "another path"),
    (["status", "--every", "nan"], "--every", "seconds above 0"),
    (["status", "--evry", "1"], "--evry", "usage"),
    (["wait", "--every", "-1"], "--every", "seconds above 0"),
    (["wait", "nope"], "nope", "run"),
    (["why", "-n", "x"], "-n", "whole number"),
    (["logs"], "RUN", "required"),
    (["logs", "nope"], "nope", "run"),
    (["logs", "RUN", "--rank", "-1"], "--rank", "at least 0"),
    (["logs", "RUN", "-n", "-5"], "-n", "at least 0"),
    (["logs", "RUN", "--rank", "7"], "log-rank7.txt", "has not said anything"),
    (["logs", "RUN", "--job"], "--job", "leave --job out"),
    (["logs", "RUN", "--job", "--rank", "1"], "--rank", "--job"),
    (["cancel"], "name the runs", "--all"),
    (["cancel", "nope"], "nope", "run"),
    (["sync", "--uri", "ftp://x"], "ftp://x", "http://HOST:PORT"),
    (["sync", "--uri", ""], "''", "http://HOST:PORT"),
    (["sync", "--uri", "http://[::1"], "http://[::1", "http://HOST:PORT"),
    (["data", "nope"], "nope", "check"),
    (["data", "check", "bach=1"], "bach", "Did you mean batch"),
    (["data", "check", "experiment=[1]"], "experiment=[1]", "demo, evidence, tiny"),
    (["data", "check", "data.max_size=1"], "data.max_size=1", "data.min_size"),
    (["data", "check", "data.root='~nouser'"], "data.root=~nouser", "another path"),
    (["data", "check", "data=shapes"], "data.root=data/shapes", "drawn when"),
    (["data", "check", "data=custom"], "data.train.annotations", "data.val_fraction"),
    (["launch", "bath=16"], "bath", "Did you mean batch"),
    (["tables", "--table", "9"], "--table 9", "claims"),
]  # fmt: skip

TABLES: list[Mistake] = [
    (["--table", "9"], "--table 9", "claims"),
    (["--table", "none.yaml"], "none.yaml", "the path of a YAML file"),
    (["--table", "torn.yaml"], "torn.yaml", "line 1"),
    (["--table", "deep.yaml"], "deep.yaml", "nested too deeply"),
    (["--table", "empty.yaml"], "empty.yaml: a", "title, label"),
    (["--table", "value.yaml"], "value.yaml", "measure: {mmAP: mmAP}"),
    (["--table", "names.yaml"], "names.yaml: names", "names: {Batch Size: batch}"),
    (["--table", "title.yaml"], "title.yaml: title", "one line of text"),
    (["--table", "bn"], "--table bn", "megdet.studies.bn_study"),
    (["--from", "nope"], "nope", "name another folder"),
    (["--from", "text.json"], "text.json", "name a folder"),
    (["--from", "text.db"], "text.db", "sqlite:///text.db"),
    (["--from", "sqlite:///text.db"], "text.db", "name another"),
    (["--from", "http://["], "http://[", "http://HOST:PORT"),
    (["--from", "x" * 5000], "--from", "255 in each name"),
    (["--format", "pdf"], "--format", "markdown"),
    (["--out", "/proc/x.md"], "--out /proc/x.md", "give the path"),
    (["--out", "."], "--out .", "give the path"),
    (["--against", "nope"], "--against nope", "there is tiny"),
    (["--against", ""], "--against", "there is tiny"),
    (["--against", "colour=red"], "--against colour=red", "there is sweep"),
    (["model=nope"], "model=nope", "there is model=tiny"),
    (["model"], "model", "write KEY=VALUE"),
    (["modle=tiny"], "modle=tiny", "did you mean model?"),
    (["seed=0", "seed=1"], "seed is there twice", "write seed=0,1"),
]  # fmt: skip

FIGURES: list[Mistake] = [
    (["--figure", "nope"], "--figure", "bn_size"),
    (["--from", "nope"], "nope", "name another folder"),
    ([], "no run has finished", "a curve needs one"),
    (["data=nope"], "data=nope", "there is data=shapes"),
]

REPORT: list[Mistake] = [
    (["--from", "nope"], "nope", "name another folder"),
    (["--out", "."], "--out .", "give the path"),
    (["--out", "text.json/x.html"], "--out text.json/x.html", "give the path"),
    (["sweep=nope"], "sweep=nope", "no run has a sweep"),
]

PROGRAMS: dict[str, tuple[Callable[[list[str]], int], list[Mistake]]] = {
    "launch.py": (launch, SINGLE),
    "launch.py -m": (lambda words: launch(["-m", *words]), SWEEPS),
    "megdet": (megdet, COMMANDS),
    "make_tables.py": (tables, TABLES),
    "make_figures.py": (figures, FIGURES),
    "make_report.py": (report, REPORT),
}

FILES = {
    "text.json": "hello", "text.db": "hello",
    "torn.yaml": "rows: [", "empty.yaml": "a: 1", "paper.yaml": "rows: [{paper: {mmAP: 1}}]",
    "whole.yaml": "rows: [{ask: {batch: 16, sweep.dry_run: json}}]", "time.yaml": "rows: [{ask: {batch: 12:00:00}}]",
    "of_hydra.yaml": "rows: [{ask: {hydra/launcher: local_parallel}}]",
    "twice.yaml": "rows: [{ask: {batch: 16, batch: 32}}]", "deep.yaml": "[" * 3000, "latin.yaml": "# \udce9",
    "unasked.yaml": "rows: [{ask: {batch: 16}}, {label: x}]", "key.yaml": "rows: [{ask: {bach: 16}}]",
    "measures.yaml": "{measures: {mmAP: mmAP}, rows: [{ask: {batch: 16}}]}",
    "shows.yaml": "{measure: {mmAP: mmAP}, names: {A: zip}, rows: [{ask: {batch: 16}}]}",
    "published.yaml": "{measure: {mmAP: mmAP}, rows: [{ask: {batch: 16}, paper: {mmAP: good}}]}",
    "value.yaml": "rows: [{ask: {batch: many}}]", "date.yaml": "rows: [{ask: {data.root: 2026-01-01}}]",
    "number.yaml": f"rows: [{{ask: {{lr.scale: {DIGITS}}}}}]", "choice.yaml": "rows: [{ask: {model: r51}}]",
    "names.yaml": "names: 3\nmeasure: {mmAP: mmAP}\nrows: [{ask: {batch: 16}}]",
    "title.yaml": "title: [3]\nmeasure: {mmAP: mmAP}\nrows: [{ask: {batch: 16}}]",
}  # fmt: skip


@pytest.fixture(scope="module")
def plan_json() -> str:
    config = compose(["experiment=tiny", "tracking.enabled=false"])
    config.data = DataResolver().resolve(config.data)
    config.cluster.nodes, config.cluster.gpus_per_node = 1, 2
    return make_plan(config).to_json()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with odd files in it, on a machine without GPU and without cached weights."""
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    for name in ("pipe", "pipe.yaml"):
        os.mkfifo(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "TORCH_HOME": str(tmp_path), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which launch.py sets
    monkeypatch.setattr(sys, "argv", ["program"])
    return tmp_path


def name_of(mistake: tuple[str, Mistake]) -> str:
    return " ".join([mistake[0], *(word if len(word) < 60 else f"{word[:40]}..." for word in mistake[1][0])])


def message_in(said: str) -> str:
    """What a program said to standard error, which has to be one message: a line, and one more with what would work.

    argparse says how the program is used first."""
    lines = said.strip().splitlines()
    if lines[0].startswith("usage: "):
        return said
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("What would work: ")), said
    return said


MISTAKES = [(program, mistake) for program, (_, mistakes) in PROGRAMS.items() for mistake in mistakes]


def test_there_are_at_least_60_mistakes_each_of_its_own() -> None:
    assert len({(program, *words) for program, (words, _, _) in MISTAKES}) == len(MISTAKES) >= 60


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_a_mistake_is_one_message_that_names_the_setting_and_a_way_out_and_exit_code_2(
    mistake: tuple[str, Mistake], place: Path, plan_json: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, (words, setting, way_out) = mistake
    if not program.startswith("launch"):
        run = place / "runs" / json.loads(plan_json)["run_id"]
        run.mkdir(parents=True)
        (run / "plan.json").write_text(plan_json)
        words = [run.name if word == "RUN" else word for word in words]
    before = sorted(place.rglob("*"))
    try:
        code = PROGRAMS[program][0](words)
    except SystemExit as ending:
        code = ending.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert code == 2, captured
    said = message_in(captured.err)
    assert setting in said and way_out in said, said
    assert "Traceback" not in said and "HYDRA_FULL_ERROR" not in said
    assert len(said) < 1500
    left = sorted(place.rglob("*"))
    assert left == before, "nothing is made"


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["batch=16,32", "gpus=7"], "gpus=7: "),
        (["seed=0,1", "data.root=nowhere"], "data.root="),
        (["batch=16,32", "schedule.name='<b>'"], "schedule.name=<b>: "),
    ],
)
def test_a_mistake_in_all_points_of_a_sweep_is_said_once_or_for_each_that_differs(
    words: list[str], setting: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        launch(["-m", *words])
    captured = capsys.readouterr()
    assert ending.value.code == 2
    reasons = [line.strip() for line in (captured.out + captured.err).splitlines() if setting in line]
    assert reasons and len(set(reasons)) == len(reasons), captured
    assert not (place / "runs").exists()


OWN_FILES: list[tuple[str, str, str, str]] = [
    ("cluster/mine", "nods: 4", "cluster/mine.yaml: cluster.nods", "Did you mean cluster.nodes"),
    ("cluster/mine", "nodes: {a: 1}", "cluster/mine.yaml: cluster.nodes", "or auto"),
    ("cluster/mine", "max_retries: often", "cluster/mine.yaml: cluster.max_retries=often", "a whole number"),
    ("cluster/mine", "nodes: [", "mine.yaml", "line"),
    ("cluster/mine", "name: ../mine", "cluster.name=../mine", "letters, digits"),
    ("cluster/mine", 'setup: ["echo \\e[31m"]', "cluster.setup=", "printable"),
    ("cluster/mine", "- 1", "cluster/mine.yaml", "settings by name"),
    ("model/backbone/mine", "{name: mine, custom: {_target_: a.b, depth: .inf}}", "model.backbone.custom", "finite"),
    ("model/backbone/mine", "{name: 'a b', custom: {_target_: a.b}}", "model.backbone.name=a b", "letters, digits"),
    ("experiment/mine", "# @package _global_\nbath: 1", "experiment/mine.yaml: bath", "Did you mean batch"),
    ("experiment/mine", "# @package _global_\nbatch: many", "experiment/mine.yaml: batch=many", "a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text", "setting", "way_out"), OWN_FILES, ids=lambda value: value[:40])
def test_a_mistake_in_a_file_of_ones_own_names_the_file_or_the_setting(
    file: str, text: str, setting: str, way_out: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / "conf" / f"{file}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    group, _, name = file.rpartition("/")
    try:
        code = launch([f"{group}={name}"])
    except SystemExit as ending:
        code = ending.code  # type: ignore[assignment]
    said = capsys.readouterr().err
    assert code == 2, said
    assert setting in said and way_out in said, said
    assert message_in(said) and "Traceback" not in said
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("megdet.cli", ["launch", "experiment=[1]"]),
        ("megdet.cli", ["status", "nope"]),
        ("megdet.cli", ["tables", "--table", "deep.yaml"]),
        ("megdet.cli", ["data", "check", f"batch={MORE_DIGITS}"]),
    ],
    ids=str,
)
def test_in_a_process_of_its_own(module: str, words: list[str], place: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True)
    assert done.returncode == 2, done
    assert message_in(done.stderr) and "Traceback" not in done.stderr

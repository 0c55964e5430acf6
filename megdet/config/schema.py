"""What a user may ask for, in the paper's words: the schema behind `conf/`.

Plain data with the paper's experiment as its defaults (ResNet-50 FPN, COCO 2017, batch 16, normal schedule).
Nothing here is derived, and nothing that `megdet.planning.plan` derives can be set. Hydra fills it in and rejects
keys and types it does not know; what the numbers mean together is checked by `megdet.planning.plan.make_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TypeVar, get_type_hints

from megdet.data.split_settings import SplitSettings
from megdet.errors import UserError


@dataclass
class LearningRateConfig:
    """Linear scaling (paper section 3.2): lr = base x batch / base_batch x scale."""

    base: float = 0.02
    base_batch: int = 16
    scale: float = 1.0
    """0.5 is the "half learning rate" of Table 2."""


@dataclass
class OptimizerConfig:
    """SGD, as in the paper (section 4)."""

    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_grad_norm: float | None = None
    """Largest norm of the whole gradient; None: not clipped, as in the paper."""


@dataclass
class ScheduleConfig:
    """When the learning rate changes, in epochs."""

    name: str = "normal"
    epochs: int = 11
    milestones: list[int] = field(default_factory=lambda: [8, 10])
    """Epochs done when the learning rate is multiplied by the factor in the same place."""
    factors: list[float] = field(default_factory=lambda: [0.1, 0.1])
    warmup_epochs: float | None = 1.0
    """Length of the rise from lr.base to lr; to give it in images, set this to null and the next one."""
    warmup_images: int | None = None


@dataclass
class ModelConfig:
    """The detector: Faster R-CNN with a feature pyramid."""

    name: str = "r50_fpn"
    backbone: str = "resnet50"
    """resnet50, resnet18 or tiny."""
    weights: str = "imagenet"
    """Start of the backbone: imagenet (torchvision's file), none, or the path of a state dict."""
    frozen_stages: int = 2
    """How many of stem, stage 1 .. 4 (in this order) are never trained."""
    bn_in: list[str] = field(default_factory=lambda: ["backbone", "fpn"])
    """Where Cross-GPU BN goes when bn_size > 0."""
    fpn_channels: int = 256
    box_head_channels: int = 1024
    anchor_sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    """Side of the square anchor of each pyramid level, in pixels of the resized image."""
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    rpn_pre_nms_train: int = 2000
    """Proposals of one pyramid level that enter non-maximum suppression."""
    rpn_pre_nms_test: int = 1000
    rpn_post_nms_train: int = 2000
    """Proposals of one image that leave it."""
    rpn_post_nms_test: int = 1000
    rpn_nms: float = 0.7
    rpn_samples: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    roi_samples: int = 512
    roi_positive_fraction: float = 0.25
    roi_positive_iou: float = 0.5
    roi_resolution: int = 7
    nms: float = 0.5
    """IoU above which the weaker of two detections of a class goes."""


@dataclass
class DataConfig:
    """COCO 2017; `shapes`, which is generated where it is missing; or own images with COCO annotation files."""

    name: str = "coco2017"
    root: str = "data/coco2017"
    train: SplitSettings = field(default_factory=SplitSettings)
    val: SplitSettings = field(default_factory=SplitSettings)
    """Both: files of one's own; where none is given, `root` has COCO 2017's layout."""
    val_fraction: float | None = None
    """The share of the training images that validate instead, chosen by their file names."""
    train_images: int | None = 118287
    """None: as many as the files have, as for the next two."""
    val_images: int | None = 5000
    num_classes: int | None = 80
    fingerprint: str | None = None
    """What the content is known by, where the name does not say it; found out when planning. Given, it is checked."""
    min_size: int = 800
    """Images are resized so that their shorter side has this many pixels ..."""
    max_size: int = 1333
    """... unless their longer side would then exceed this."""
    flip: bool = True
    """Mirror half of the training images."""
    aspect_grouping: bool = True
    """Images of one orientation share a BN batch, so that padding stays small."""
    max_bad_images: int = 10
    """Unreadable images that are tolerated (each is named and counted) before a run fails."""
    workers: int = 4
    """Loader processes of each GPU."""


@dataclass
class EvalConfig:
    """What enters COCO evaluation."""

    score_threshold: float = 0.05
    detections_per_image: int = 100


@dataclass
class ClusterConfig:
    """Where an experiment may run. Changing it never changes what is learned."""

    name: str = "local"
    nodes: int = 1
    gpus_per_node: int | str = "auto"
    """auto: the GPUs of this machine."""
    max_images_per_gpu: int | None = None
    """What memory allows in one forward pass; None: not known."""
    bn_across_nodes: bool = False
    """Whether the GPUs that share a BN statistic may sit on different nodes."""
    partition: str | None = None
    """Slurm's, as are account, qos and constraint; None: the site's default."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time_min: int = 1440
    """The longest time limit of a job, in minutes; a run that needs longer is checkpointed, requeued and goes on. One
    that is predicted to need less asks for less (twice that, up to 1, 2, 4, 8 ... hours), and starts sooner."""
    signal_delay_s: int = 120
    """Seconds before the time limit at which a job is told, so that it can write a checkpoint."""
    request_gpus: bool = True
    """false: nodes without GPUs; CPU processes stand in for them."""
    cpus_per_gpu: int | None = None
    """Cores of one rank and its loader processes; None: the site's default, as for memory."""
    mem_gb_per_gpu: float | None = None
    """Main memory of one rank, in GB."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before anything starts on a node: modules, proxies, activated environments."""
    container: str | None = None
    """Words before `python` on a node, such as `apptainer exec --nv /images/megdet.sif`."""
    python: str | None = None
    """The Python of the nodes; None: the one that launches."""
    mail_user: str | None = None
    mail_type: str = "FAIL"
    """What is mailed to mail_user, where that is given: a list of Slurm's, such as END,FAIL."""
    sbatch_options: dict[str, str] = field(default_factory=dict)
    """Further options of sbatch by name, such as {reservation: detection, exclude: "node[3-4]"}; on the command line
    +cluster.sbatch_options.reservation=detection."""
    srun_args: list[str] = field(default_factory=list)
    """Further arguments of srun, such as --mpi=none or --container-image=..."""
    array_parallelism: int = 128
    """Jobs of one array that may run at the same time."""
    max_retries: int = 2
    """How often a run that lost a node or a connection is started again; errors of the code never are."""


@dataclass
class TrackingConfig:
    """The MLflow mirror of the run folders."""

    enabled: bool = True
    uri: str | None = None
    """None: sqlite in `mlflow.db` of the folder that the command was given in."""
    experiment: str = "megdet"


@dataclass
class SweepConfig:
    """Which points a sweep (`launch.py -m`) has besides its grid, and how it treats them."""

    rows: str | None = None
    """Rows to run instead of one point, each with every combination of the grid: table1, table2, table3, figure1,
    figure4, or the path of a file like those in `sweeps/`."""
    on_invalid: str = "report"
    """report: points that cannot be planned are listed and left out; error: nothing runs."""
    on_existing: str = "resume"
    """What to do with runs that exist. skip: leave them; resume: go on with those that were interrupted, cancelled or
    lost; retry_failed: those that failed too; force: begin all anew (old folders go to runs/.replaced). What is queued
    or running is never started twice."""
    wait: bool = True
    """Watch submitted jobs until they end (Ctrl-C detaches, they go on); false: return after submission."""
    dry_run: bool = False
    """Stop after the table of plans."""
    max_gpu_hours: float | None = None
    """Refuse a sweep whose runs would, as predicted, take more GPU-hours together; None: no limit."""


@dataclass
class Config:
    """One experiment as asked."""

    batch: int = 16
    """Images per optimizer step, over all GPUs."""
    bn_size: int = 16
    """Images behind one BN statistic; 0: BN is frozen, the paper's baseline."""
    gpus: int | str = "auto"
    """Processes that train; auto: the paper's layout, or the most GPUs that fit."""
    images_per_gpu: int | str = "auto"
    """Images in one forward pass on one GPU."""
    sublinear: bool | str = "auto"
    """Activation checkpointing; auto: from bn_size 32, as in the paper."""
    precision: str = "fp32"
    """fp32, tf32 (of GPUs alone) or bf16 (autocast)."""
    seed: int = 0
    runs_dir: str = "runs"
    log_every: int = 20
    """Optimizer steps between two lines of the journal."""
    checkpoint_every_min: float = 10.0
    """Minutes between two checkpoints inside an epoch; each epoch ends with one."""
    lr: LearningRateConfig = field(default_factory=LearningRateConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)


T = TypeVar("T")


def dataclass_from(cls: type[T], values: Mapping[str, object]) -> T:
    """The dataclass (nested ones included) that `dataclasses.asdict` turned into `values`.

    Raises UserError for keys that `cls` does not have: the file was written by another version.
    """
    hints = get_type_hints(cls)
    assert is_dataclass(cls)
    unknown = sorted(set(values) - {f.name for f in fields(cls)})
    if unknown:
        raise UserError(
            f"{cls.__name__} has no {', '.join(unknown)}: the plan was written by another version of megdet; "
            "check out the commit it names, or launch the experiment again"
        )
    arguments = {
        name: dataclass_from(hints[name], value) if is_dataclass(hints[name]) else value  # type: ignore[arg-type]
        for name, value in values.items()
    }
    return cls(**arguments)

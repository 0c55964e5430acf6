"""The settings of a cluster: its hardware, and what its scheduler needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from megdet.errors import UserError
from megdet.settings.rules import Each, Flag, Name, Number, Settings, Text, TextByName, Whole, setting

MOST_NODES = 100_000
MOST_GPUS_PER_NODE = 1024


OF_THE_PLAN = {
    "nodes": "gpus and {0}nodes",
    "ntasks": "gpus",
    "ntasks_per_node": "gpus and {0}gpus_per_node",
    "gpus_per_node": "gpus and {0}gpus_per_node",
    "time": "{0}time_min",
    "signal": "{0}signal_delay_s",
    "array": "{0}array_parallelism",
    "cpus_per_task": "{0}cpus_per_gpu",
    "mem": "{0}mem_gb_per_gpu",
    "partition": "{0}partition",
    "account": "{0}account",
    "qos": "{0}qos",
    "constraint": "{0}constraint",
    "mail_user": "{0}mail_user",
    "mail_type": "{0}mail_type",
}
"""sbatch's options that plan and settings decide, with the settings to use instead."""
OF_THE_RECORDS = ("output", "error", "job_name", "open_mode", "chdir")
"""Those by which a run finds its job, and the job its run."""


@dataclass
class ClusterSettings(Settings):
    """Where an experiment may run. Changing it never changes what is learned."""

    name: str = setting("local", Name())
    nodes: int | str = setting("auto", Whole(least=1, most=MOST_NODES, or_auto=True))
    """The most that one run may have; auto: what there is (this machine is one)."""
    gpus_per_node: int | str = setting("auto", Whole(least=1, most=MOST_GPUS_PER_NODE, or_auto=True))
    """auto: the GPUs of this machine, or what Slurm says that nodes have."""
    max_images_per_gpu: int | None = setting(None, Whole(least=1))
    """What memory allows in one forward pass; None: not known."""
    gpu_memory_gb: float | None = setting(None, Number(above=0))
    """Memory of a GPU in GB of 2^30 bytes: what is `auto` in a layout is chosen to fit into it, by prediction. None: as
    this machine's GPUs say, or not known."""
    bn_across_nodes: bool = setting(False, Flag())
    """Whether the GPUs that share a BN statistic may sit on different nodes."""
    partition: str | None = setting(None, Text())
    """Slurm's, as are account, qos and constraint; None: the site's default."""
    account: str | None = setting(None, Text())
    qos: str | None = setting(None, Text())
    constraint: str | None = setting(None, Text())
    time_min: int | None = setting(None, Whole(least=1))
    """The longest time limit of a job, in minutes; None: a day, or what the partition allows. A run that needs longer
    is checkpointed, requeued and goes on. One that is predicted to need less asks for less (twice that, up to 1, 2, 4,
    8 ... hours), and starts sooner."""
    signal_delay_s: int = setting(120, Whole(least=10, most=65535), why="a checkpoint takes seconds")
    """Seconds before the time limit at which a job is told, so that it can write a checkpoint."""
    request_gpus: bool = setting(True, Flag())
    """false: nodes without GPUs; CPU processes stand in for them."""
    cpus_per_gpu: int | None = setting(None, Whole(least=1, most=65535))
    """Cores of one rank and its loader processes; None: the site's default, as for memory."""
    mem_gb_per_gpu: float | None = setting(None, Number(above=0))
    """Main memory of one rank, in GB."""
    setup: list[str] = setting([], Each(Text(many_lines=True)))
    """Shell lines before anything starts on a node: modules, proxies, activated environments."""
    container: str | None = setting(None, Text())
    """Words before `python` on a node, such as `apptainer exec --nv /images/megdet.sif`."""
    python: str | None = setting(None, Text())
    """The Python of the nodes; None: the one that launches."""
    mail_user: str | None = setting(None, Text())
    mail_type: str = setting("FAIL", Text())
    """What is mailed to mail_user, where that is given: a list of Slurm's, such as END,FAIL."""
    sbatch_options: dict[str, str] = setting({}, TextByName())
    """Further options of sbatch by name, such as {reservation: detection, exclude: "node[3-4]"}; on the command line
    +cluster.sbatch_options.reservation=detection. Those without a value are true: {hold: true}."""
    srun_args: list[str] = setting([], Each(Text()))
    """Further arguments of srun, such as --mpi=none or --container-image=..."""
    array_parallelism: int = setting(128, Whole(least=1))
    """Jobs of one array that may run at the same time."""
    elastic: bool = setting(False, Flag())
    """Whether a run whose GPUs are not to be had is planned again on those that are: the same batch and BN size, and so
    the same run, on fewer GPUs or nodes than `gpus` and `nodes` ask for."""
    elastic_after_min: float = setting(10.0, Number())
    """Minutes that a launcher which waits gives nodes to come back, before it plans a run that is queued on others."""
    timeout_min: float = setting(10.0, Number(above=0))
    """Minutes that ranks wait for each other, and that anything may take without progress. A training step may take 20
    times the median one, but at least a minute. Then the run is ended, and says which rank stood still, and where."""
    max_retries: int = setting(2, Whole(most=1000))
    """How often a run that lost a node or a connection is started again; errors of the code never are."""

    def check_together(self, prefix: str) -> None:
        for name, value in self.sbatch_options.items():
            option, given = name.replace("-", "_"), f"{prefix}sbatch_options.{name}={value}"
            if option in OF_THE_PLAN:
                raise UserError(f"{given} could contradict the plan; use {OF_THE_PLAN[option].format(prefix)}")
            if option in OF_THE_RECORDS:
                raise UserError(f"{given}: a run finds its job by megdet's own; leave it out")
        if self.time_min is not None and self.signal_delay_s >= 60 * self.time_min:
            raise UserError(
                f"{prefix}time_min={self.time_min}: a job of {self.time_min} min would be told to stop "
                f"{prefix}signal_delay_s={self.signal_delay_s} s before its end, that is at once; raise time_min or "
                "lower signal_delay_s"
            )

"""A cluster's settings as a YAML file to start from, with what Slurm said filled in."""

from __future__ import annotations

from megdet.errors import UserError
from megdet.launchers.slurm.discovery import Cluster

TEMPLATE = """\
# {described}
# Found by `megdet cluster --write`; edit it as you like. Every key is explained in megdet/config/cluster.py.
name: {name}
nodes: {nodes}                   # the most that one run may have ...
gpus_per_node: {gpus}           # ... of this size
max_images_per_gpu: null   # what your GPUs' memory allows in one forward pass, where you know it
gpu_memory_gb: null        # of a GPU, such as 80: layouts are chosen to fit, by prediction
bn_across_nodes: false     # a BN group stays inside a node: statistics need a fast link

partition: {partition}
account: {account}
qos: null
constraint: null           # features: {features}
time_min: {time_min}           # longest time limit; longer runs are requeued and go on
signal_delay_s: 120        # told this long before the limit, to write a checkpoint
cpus_per_gpu: {cpus}            # of {all_cpus} cores a node: a rank and its loader processes
mem_gb_per_gpu: null       # null: the site's default; a node has {mem_gb:.0f} GB
request_gpus: {request_gpus}         # false: nodes without GPUs, CPU processes stand in
array_parallelism: 128     # jobs of a sweep that run at the same time
max_retries: 2             # after a lost node or connection; errors of the code are never retried

timeout_min: 10            # without progress; then the run ends and says which rank stood still

setup: []                  # shell lines on the node before anything else: [module load cuda]
container: null            # words before python: apptainer exec --nv /images/megdet.sif
python: null               # null: the one that launches
mail_user: null
mail_type: FAIL
sbatch_options: {{}}         # further options by name: {{reservation: detection}}
srun_args: []              # further arguments of srun: [--mpi=none]
"""


def site_file(found: Cluster, *, name: str, partition: str | None) -> str:
    """The text of conf/cluster/NAME.yaml for a partition, or for the default one. Raises UserError."""
    shapes = [shape for shape in found.shapes if partition in (None, shape.partition)]
    if not shapes:
        raise UserError(f"--partition {partition}: Slurm has {', '.join(shape.partition for shape in found.shapes)}")
    # The default partition's nodes come first; of those the ones with GPUs.
    shape = next((shape for shape in shapes if shape.gpus_per_node), shapes[0])
    gpus = shape.gpus_per_node or 1
    return TEMPLATE.format(
        described=shape.describe(),
        name=name,
        nodes=shape.nodes,
        gpus=gpus,
        partition=shape.partition,
        account=found.account or "null",
        features=", ".join(shape.features) or "none here",
        time_min=min(shape.max_time_min or 1440, 1440),
        cpus=max(1, shape.cpus_per_node // gpus),
        all_cpus=shape.cpus_per_node,
        mem_gb=shape.mem_gb_per_node,
        request_gpus=str(bool(shape.gpus_per_node)).lower(),
    )

"""A real Slurm on this host: several nodes with eight GPUs each, all of them pretended, the scheduler itself not.

    python -m tests.slurm.cluster up [--accounting] [--nodes 16] [--folder results/slurm]
    python -m tests.slurm.cluster down [--folder results/slurm]

`up` starts it (or finds it running) and says how to use it; `down` ends exactly the processes that `up` started and
removes the folder. Everything is in that folder and on free ports of the loopback, but for one line with the nodes'
names in /etc/hosts. Needs root, for the GPUs' device files, and Debian's or Ubuntu's packages (see `INSTALL`).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.slurm.accounting import start_accounting
from tests.slurm.configuration import CLUSTER, MAX_ARRAY_SIZE, PARTITION, PREEMPTIBLE, Node, gres_conf, slurm_conf
from tests.slurm.daemons import Daemons, kill, processes_with, wait_until

INSTALL = (
    "apt-get install -y --no-install-recommends slurm-wlm slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
)
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
"""Where Debian has daemons; not on everybody's PATH."""

CALL_TIMEOUT_S = 30.0
START_TIMEOUT_S = 60.0
MAX_FOLDER_LENGTH = 80
"""A unix socket's path has at most 107 characters."""


class NoSlurm(Exception):
    """Slurm cannot be had here; the message says why, and what to do."""


class SlurmCluster:
    """One cluster; the folder is its identity, so that another program can end what this one has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.conf = self.folder / "slurm.conf"
        self.daemons = Daemons(self.folder)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client (sbatch, launch.py, megdet) needs in its environment to talk to this cluster."""
        return {"SLURM_CONF": str(self.conf), "MEGDET_CPUS_FOR_GPUS": "1"}  # its GPUs are pretended

    def up(
        self,
        *,
        nodes: int,
        gpus_per_node: int = 8,
        accounting: bool = False,
        max_array_size: int = MAX_ARRAY_SIZE,
    ) -> None:
        """Start everything and wait until all nodes are idle; nothing where it runs already.

        Raises NoSlurm where something is missing, RuntimeError where a part does not come up.
        """
        check_installed(accounting=accounting)
        if self.daemons.alive("slurmctld"):
            return
        if len(str(self.folder)) > MAX_FOLDER_LENGTH:
            raise NoSlurm(
                f"{self.folder} is too long a path for Slurm's sockets; use one of {MAX_FOLDER_LENGTH} letters"
            )
        self.down()
        self.folder.mkdir(parents=True)
        # Others may pass through to munge's socket; what is secret has its own mode.
        self.folder.chmod(0o755)
        try:
            self._start(nodes, gpus_per_node, accounting, max_array_size)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End what `up` started, jobs included, and remove the folder."""
        if self.daemons.alive("slurmctld"):
            self.try_call("scancel", "--user=root")
            wait_until(lambda: not self.try_call("squeue", "--noheader").stdout, timeout_s=15)
        for name in reversed(self.daemons.names() if self.folder.exists() else []):
            self.daemons.stop(name)
            if name.startswith("slurmd-"):
                self._kill_processes_of(name.removeprefix("slurmd-"))
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *command: str, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """Run a client of this cluster; what it printed. Raises CalledProcessError or TimeoutExpired."""
        done = self.try_call(*command, timeout_s=timeout_s)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout.strip()

    def try_call(self, *command: str, timeout_s: float = CALL_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        """`call` whose failure is an answer too."""
        return subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=timeout_s
        )

    def start_controller(self, *, cold: bool = False) -> None:
        """Start slurmctld, with the jobs it knew (`cold`: without them), and wait until it answers."""
        self.daemons.start("slurmctld", ["slurmctld", "-D", *(["-c"] if cold else [])], **self.environment)
        self._wait("slurmctld", lambda: self.try_call("scontrol", "ping").returncode == 0)

    def stop_controller(self) -> None:
        """Maintenance: jobs go on, and every client waits for an answer that does not come."""
        self.daemons.stop("slurmctld")

    def forget_jobs(self, *, first_job_id: int | None = None) -> None:
        """What the controller does some minutes after a job's end, at once; accounts, where kept, remember the jobs.

        With `first_job_id` it is a new cluster that counts from there; else the next number is the next.
        """
        self.stop_controller()
        if first_job_id is not None:
            shutil.rmtree(self.folder / "state")
            (self.folder / "state").mkdir()
            self.conf.write_text(re.sub(r"(?<=FirstJobId=)\d+", str(first_job_id), self.conf.read_text()))
        self.start_controller(cold=True)
        self._wait("slurmctld", lambda: set(self.states_of_nodes().values()) == {"idle"})

    def start_node(self, name: str, *, clean: bool = True) -> None:
        """Start a node's slurmd, which ends what it finds running (not `clean`: takes it over, as a service does)."""
        words = ["slurmd", "-D", *(["-c"] if clean else []), "-N", name]
        self.daemons.start(f"slurmd-{name}", words, SLURM_CONF=str(self.conf), SLURMD_NODENAME=name)

    def kill_node(self, name: str) -> None:
        """What a power cut does: slurmd, its steps and their tasks are gone at once, and nobody is told."""
        self.daemons.stop(f"slurmd-{name}", number=signal.SIGKILL)
        self._kill_processes_of(name)

    def states_of_nodes(self) -> dict[str, str]:
        """`idle`, `mixed`, `down*` ... of every node."""
        lines = self.call("sinfo", "--noheader", "--Node", f"--partition={PARTITION}", "--format=%N %T").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def _start(self, count: int, gpus_per_node: int, accounting: bool, max_array_size: int) -> None:
        ports = free_ports(count + 3)
        nodes = [Node(f"node{number}", ports[number + 2]) for number in range(1, count + 1)]
        _make_resolvable([node.name for node in nodes])
        for name in ("state", "dev"):
            (self.folder / name).mkdir()
        for gpu in range(gpus_per_node):
            os.mknod(self.folder / f"dev/gpu{gpu}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(gres_conf(self.folder, nodes=nodes, gpus_per_node=gpus_per_node))
        self.conf.write_text(
            slurm_conf(
                self.folder,
                nodes=nodes,
                gpus_per_node=gpus_per_node,
                controller_port=ports[0],
                first_job_id=_first_job_id(),
                accounting_port=ports[1] if accounting else None,
                max_array_size=max_array_size,
            )
        )
        self._start_munge()
        if accounting:
            start_accounting(self.folder, self.daemons, port=ports[1], database_port=ports[2])
            add = ("sacctmgr", "--immediate", "add", "cluster", CLUSTER)
            self._wait("slurmdbd", lambda: self.try_call(*add).returncode == 0)
        self.start_controller()
        for node in nodes:
            self.start_node(node.name)
        self._wait("slurmd-node1", lambda: set(self.states_of_nodes().values()) == {"idle"})

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        files = {"socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        options = [f"--{option}={self.folder}/munge.{end}" for option, end in files.items()]
        self.daemons.start("munged", ["munged", "--foreground", "--force", f"--key-file={key}", *options])
        self._wait("munged", (self.folder / "munge.socket").exists)

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        if not wait_until(condition, timeout_s=START_TIMEOUT_S):
            raise RuntimeError(f"{name} does not come up:\n{self.daemons.last_lines(name)}")

    def _kill_processes_of(self, node: str) -> None:
        kill(processes_with(SLURM_CONF=str(self.conf), SLURMD_NODENAME=node))


def check_installed(*, accounting: bool) -> None:
    """Raises NoSlurm where this host lacks a program, or the right to make device files."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*path, *(folder for folder in SYSTEM_FOLDERS if folder not in path)])
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    missing = [program for program in wanted if shutil.which(program) is None]
    if missing:
        raise NoSlurm(f"no {', '.join(missing)} on this machine; to get a test cluster, as root: {INSTALL}")
    if os.geteuid() != 0:
        raise NoSlurm("the test cluster needs root, for the device files that stand for GPUs; use sudo or a container")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _first_job_id() -> int:
    """A fresh cluster counts from 1; what is named by job id would collide with an older cluster's."""
    return random.randrange(10_000, 60_000_000)


def _make_resolvable(names: Sequence[str]) -> None:
    """Ranks find rank 0 by its node's name, so each name has to lead to this host."""
    unknown = [name for name in names if not _resolves(name)]
    if unknown:
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 {' '.join(unknown)}  # megdet's Slurm test cluster\n")


def _resolves(name: str) -> bool:
    try:
        return socket.gethostbyname(name) == "127.0.0.1"
    except OSError:
        return False


def main() -> int:
    """Run the command line: 0 done, 2 Slurm cannot be had here."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description="A real Slurm on this host.")
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--folder", type=Path, default=Path("results/slurm"), help="default: results/slurm")
    parser.add_argument("--nodes", type=int, default=4, help="machines of 8 GPUs to pretend; default: 4")
    parser.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB, so that sacct works")
    arguments = parser.parse_args()
    cluster = SlurmCluster(arguments.folder)
    try:
        if arguments.command == "down":
            cluster.down()
            print(f"ended; {cluster.folder} is removed")
            return 0
        cluster.up(nodes=arguments.nodes, accounting=arguments.accounting)
    except NoSlurm as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{len(cluster.states_of_nodes())} nodes x 8 GPUs; partitions {PARTITION} (default) and {PREEMPTIBLE}\n"
        f"In each shell that talks to it:\n    export SLURM_CONF={cluster.conf} MEGDET_CPUS_FOR_GPUS=1\n"
        "then sinfo, sbatch, squeue, launch.py ... as on any cluster. To end it: make slurm-down"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

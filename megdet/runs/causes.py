"""Why a run came to no result: the cause behind its last words, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from megdet.errors import UserError
from megdet.runs.failure import Failure
from megdet.runs.folder import RunFolder
from megdet.runs.status import Stand, Status


@dataclass(frozen=True)
class Cause:
    """A kind of failure; those of one kind are helped in one way."""

    name: str
    advice: str
    pattern: re.Pattern[str] | None = None
    """What the last words of such a failure have in them; None where it is known otherwise."""
    retried: bool = False
    """Whether a launcher starts such a run again by itself, up to cluster.max_retries times without progress."""


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


DIVERGED = Cause(
    "divergence",
    "a result (`failed` in Table 2), not an error: it is never run again. For an experiment that trains, ask for a "
    "lower rate (lr.scale=0.5), a longer warm-up (schedule.warmup_epochs=2) or BN (bn_size=16).",
)
CUDA_MEMORY = Cause(
    "CUDA out of memory",
    "put fewer images on a GPU at a time: sublinear=true or offload, cluster.max_images_per_gpu=N below what was "
    "tried, or more GPUs. The result stays the same.",
    _words(r"CUDA (error: )?out of memory", r"OutOfMemoryError", r"CUBLAS_STATUS_ALLOC_FAILED", r"HIP out of memory"),
)
HOST_MEMORY = Cause(
    "out of main memory",
    "give ranks more (cluster.mem_gb_per_gpu=N) or need less (data.workers=N; each loader process holds images).",
    _words(
        r"oom[-_ ]?kill", r"out of main memory", r"\bOUT_OF_MEMORY\b", r"can't allocate memory", r"MemoryError",
        r"cannot allocate memory", r"bus error", r"killed by SIGBUS",
    ),
)  # fmt: skip
TIME_LIMIT = Cause(
    "time limit",
    "launch again: it goes on from its last checkpoint. Longer jobs: cluster.time_min=N; shorter ones lose less with "
    "checkpoint_every_min=N.",
    _words(r"reached its time limit", r"due to time limit"),
)
NODE = Cause(
    "node failure",
    "launch again: it goes on from its last checkpoint. If it is always the same node, keep away from it with "
    "+cluster.sbatch_options.exclude=NODE.",
    _words(r"lost a node", r"due to node failure"),
    retried=True,
)
NETWORK = Cause(
    "network between ranks (NCCL or gloo)",
    "look for the rank that stopped first (megdet logs RUN --rank K): the others only waited for it. If none did, the "
    "network failed: launching again goes on; NCCL_DEBUG=INFO in cluster.setup shows which link NCCL takes.",
    _words(
        r"nccl\w* ?error", r"NCCL.*(timed? ?out|abort)", r"Watchdog caught collective",
        r"gloo.*(timed ?out|connection)", r"timed out waiting \d+ ?ms",
        r"connection (closed|reset|refused)", r"Dist(Backend|Store|Network)Error", r"broken pipe",
        r"(rendezvous|TCPStore|socket).*time[d ]*out",
    ),
    retried=True,
)  # fmt: skip
CONFIG_OR_DATA = Cause(
    "configuration or data",
    "mend what the message names; launching again then goes on or starts anew.",
    _words(
        r"FileNotFoundError", r"NotADirectoryError", r"PermissionError", r"JSONDecodeError", r"UnidentifiedImageError",
        r"no space left on device", r"size mismatch for", r"another version of megdet",
        r"cluster\.setup failed", r"does not see any",
    ),
)  # fmt: skip
NEVER_BEGAN = Cause(
    "its ranks never began",
    "see what its job said with `megdet logs RUN --job`: a prolog, a container or srun failed before training. If it "
    "is always the same node, keep away from it with +cluster.sbatch_options.exclude=NODE.",
    _words(r"its ranks never began", r"Unable to create step", r"task launch failed"),
    retried=True,
)
HUNG = Cause(
    "no progress",
    "failure.json says which rank stood still, and where: storage that does not answer, a stopped process, a node that "
    "is gone. Launching again goes on from the last checkpoint; cluster.timeout_min=N waits longer.",
    _words(r"rank \d+ (made no progress|has not been heard of) for"),
    retried=True,
)
KILLED = Cause(
    "killed from outside",
    "somebody or the system ended a rank: the kernel's log (dmesg) says so where it was for memory, and then "
    "cluster.mem_gb_per_gpu=N or data.workers=N helps. Launching again goes on from the last checkpoint.",
    _words(r"was killed by SIG(KILL|TERM|HUP|INT)"),
    retried=True,
)
CRASHED = Cause(
    "crash of native code",
    "the rank's log has the lines that it was at (Fatal Python error); a driver or a library of another version than "
    "torch was built for is a common reason.",
    _words(r"was killed by SIG(SEGV|ABRT|ILL|FPE|TRAP|SYS)", r"Fatal Python error"),
)
BUDGET = Cause(
    "over the budget",
    "ask for fewer or shorter runs, or set sweep.max_gpu_hours to what they take.",
    _words(r"sweep\.max_gpu_hours="),
)
DAMAGED = Cause(
    "damaged records",
    "launch again: what is damaged is made anew from the journal and the checkpoints, or the message says what to put "
    "back.",
    _words(r"(state|submission|plan)\.json (is damaged|cannot be read)", r"metrics\.jsonl has \d+ of its"),
)
ERROR = Cause(
    "another error",
    "read the traceback in failure.json of the run folder; once it is mended, sweep.on_existing=retry_failed runs "
    "these again.",
)
LOST = Cause(
    "lost without a word",
    "see what its job said with `megdet logs RUN --job`; launching again goes on from the last checkpoint.",
)

BY_WORDS = (BUDGET, DAMAGED, HUNG, CUDA_MEMORY, TIME_LIMIT, NODE, HOST_MEMORY, NETWORK, CONFIG_OR_DATA, NEVER_BEGAN)
"""In this order: the first that fits. A rank out of memory makes the others lose their connection to it."""
BY_SIGNAL = (KILLED, CRASHED)
"""Where no words say more."""
IN_ORDER = (
    CUDA_MEMORY, HOST_MEMORY, KILLED, CRASHED, HUNG, NETWORK, NODE, NEVER_BEGAN, TIME_LIMIT, CONFIG_OR_DATA, BUDGET,
    DAMAGED, ERROR, LOST, DIVERGED,
)  # fmt: skip

ERRORS_OF_CODE = frozenset({
    "ArithmeticError", "AssertionError", "AttributeError", "ImportError", "IndexError", "IndentationError", "KeyError",
    "LookupError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OverflowError", "RecursionError",
    "StopIteration", "SyntaxError", "TypeError", "UnboundLocalError", "ValueError", "ZeroDivisionError",
})  # fmt: skip
"""Python's names for what running again does not help; `KeyError: 'timeout_s'` is no time-out."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a run came to no result."""

    run: str
    cause: Cause
    reason: str
    rank: int | None
    log: tuple[str, ...]
    """The last lines that it wrote."""


def diagnose(
    folder: RunFolder, stand: Stand, *, known: Cause | None = None, job_log: Sequence[str] = ()
) -> Diagnosis | None:
    """Why the run of a folder came to no result; None where it did, or was only asked to stop.

    `known`: the cause where the run's job knows it; it counts more than what ranks say, which only see each other go.
    `job_log`: the last lines that were said around the ranks.
    """
    failure = folder.failure()
    if stand.status == Status.DIVERGED:
        return Diagnosis(folder.name, DIVERGED, stand.why, None, _log(folder, failure))
    if stand.status not in (Status.FAILED, Status.LOST, Status.INTERRUPTED):
        return None
    log = _log(folder, failure) or tuple(job_log)
    said, around = [stand.why], ""
    if not failure or not failure.says_why:
        # The run could not say why itself; the last lines around it may.
        own = failure.log if failure else ()
        said.append(_lines(own))
        around = _lines([*(() if own else log), *job_log])
    cause = known or cause_of(failure, said, around=around)
    if stand.status == Status.INTERRUPTED and cause not in (TIME_LIMIT, NODE, DAMAGED):
        return None
    if cause is ERROR and stand.status == Status.LOST:
        cause = LOST
    reason = (failure.reason if failure else "") or stand.why or "it did not say why"
    return Diagnosis(folder.name, cause, reason.partition("\n")[0], failure.rank if failure else None, log)


def damaged_plan(folder: RunFolder) -> Diagnosis | None:
    """What is wrong with the plan of a run that came to its result, or is on its way; None where nothing is."""
    try:
        folder.read_plan()
    except UserError as damaged:
        return Diagnosis(folder.name, DAMAGED, str(damaged), None, ())
    return None


def group(failures: Sequence[Diagnosis]) -> list[list[Diagnosis]]:
    """Failures of one cause together; those of no known cause by their words, numbers aside."""
    groups: dict[tuple[int, str], list[Diagnosis]] = {}
    for failure in failures:
        words = re.sub(r"\d+", "0", failure.reason) if failure.cause in (ERROR, CONFIG_OR_DATA) else ""
        groups.setdefault((IN_ORDER.index(failure.cause), words), []).append(failure)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], -len(groups[key]), key[1]))]


def cause_of(failure: Failure | None, said: Sequence[str] = (), *, around: str = "") -> Cause:
    """The cause by a rank's last words, and by what else was said; the one rule for `megdet why` and for retries.

    `around`: what other ranks and the job said. That they lost their connection to a rank that is known to have ended
    is what came of it.
    """
    if failure and failure.error == "UserError":
        return CONFIG_OR_DATA
    if failure and failure.error in ERRORS_OF_CODE:
        return ERROR
    own = [*said, _own_words(failure)]
    of_others = tuple(cause for cause in BY_WORDS if not failure or failure.rank is None or cause is not NETWORK)
    for texts, causes in ((own, BY_WORDS), ([around], of_others), (own, BY_SIGNAL), ([around], BY_SIGNAL)):
        for text in texts:
            for cause in causes:
                if cause.pattern and cause.pattern.search(text):
                    return cause
    return ERROR


def _own_words(failure: Failure | None) -> str:
    """The failing rank's error, without the source lines of its traceback: they name what did not happen."""
    if failure is None:
        return ""
    raised = [line for line in failure.traceback.splitlines() if not line.startswith(" ")]
    return "\n".join([failure.error, failure.reason, *raised])


def _lines(log: Sequence[str]) -> str:
    """A tracking server that is down is no cause."""
    return "\n".join(line for line in log if "mlflow" not in line.lower())


def _log(folder: RunFolder, failure: Failure | None) -> tuple[str, ...]:
    return (failure.log if failure else ()) or folder.last_log_lines(0)

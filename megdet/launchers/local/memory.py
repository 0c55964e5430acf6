"""Whether the system has ended processes of ours for want of memory: the kernel counts them."""

from __future__ import annotations

from pathlib import Path


def oom_kills() -> int:
    """So far, in the control groups of this process (cgroup v2); 0 where that is not to be known."""
    try:
        place = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        events = (Path("/sys/fs/cgroup") / place.strip("/") / "memory.events").read_text()
        return sum(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0

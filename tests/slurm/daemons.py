"""Background processes of a test cluster: started into log files, remembered on disk, ended by their own ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Daemons:
    """Processes that outlive the program that started them; `pids.json` in `folder` is how the next one finds them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "pids.json"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], **environment: str) -> None:
        """Start a program that stays in the foreground; what it says goes to `NAME.log`."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._children[name] = process
        self._write({**self._read(), name: (process.pid, _started(process.pid))})

    def pid(self, name: str) -> int:
        """The process id of a name; 0 where it was not started."""
        return self._read().get(name, (0, None))[0]

    def alive(self, name: str) -> bool:
        """Whether the process of that name is still the one that was started."""
        pid, started = self._read().get(name, (0, None))
        return pid > 0 and started is not None and _started(pid) == started

    def stop(self, name: str, *, number: signal.Signals = signal.SIGTERM, wait_s: float = 10.0) -> None:
        """End a process and wait for it; SIGKILL where it does not go."""
        if self.alive(name):
            pid = self._read()[name][0]
            for attempt in (number, signal.SIGKILL):
                os.kill(pid, attempt)
                if wait_until(lambda: not self.alive(name), timeout_s=wait_s):
                    break
        if name in self._children:
            self._children.pop(name).wait(timeout=wait_s)
        self._write({key: value for key, value in self._read().items() if key != name})

    def names(self) -> list[str]:
        """All that were started and not stopped, in the order of their start."""
        return list(self._read())

    def log(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.folder / f"{name}.log"

    def last_lines(self, name: str, lines: int = 15) -> str:
        """The end of a process's log, for error messages."""
        log = self.log(name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"

    def _read(self) -> dict[str, tuple[int, str | None]]:
        if not self._file.exists():
            return {}
        return {name: (pid, started) for name, (pid, started) in json.loads(self._file.read_text()).items()}

    def _write(self, pids: Mapping[str, tuple[int, str | None]]) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(pids))
        new.replace(self._file)


def wait_until(condition: Callable[[], bool], *, timeout_s: float, every_s: float = 0.1) -> bool:
    """Poll until the condition holds or the time is up; whether it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def processes_with(**environment: str) -> list[int]:
    """Ids of the processes that were started with these values in their environment."""
    wanted = {f"{key}={value}".encode() for key, value in environment.items()}
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                values = set((folder / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue
            if wanted <= values:
                found.append(int(folder.name))
    return found


def kill(pids: Sequence[int]) -> None:
    """SIGKILL to processes, of which some may be gone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _started(pid: int) -> str | None:
    """When a process was started, so that an id which the system gave to another is not taken for it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    # Field 3 is the state: a zombie is gone, whoever has yet to reap it.
    return None if fields[0] in "ZX" else fields[19]

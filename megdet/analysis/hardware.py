"""What runs trained on, for those who read times: GPUs or CPU processes, and which."""

from __future__ import annotations

import pandas as pd

from megdet.settings.counted import counted

ON_CPU = "CPU"
"""What the name of a device begins with that is no GPU."""


def gpus_label(gpus: float, device: str = "") -> str:
    """`8 GPUs`, `1 CPU process`."""
    if gpus == 1:
        return "1 CPU process" if device.startswith(ON_CPU) else "1 GPU"
    return f"{gpus:g} {gpus_name(device)}"


def gpus_name(device: str) -> str:
    """What several of them are called."""
    return "CPU processes" if device.startswith(ON_CPU) else "GPUs"


def devices_of(runs: pd.DataFrame) -> pd.Series:
    """The device of each run; where the others agree, a run that does not say had theirs."""
    known = runs["device"][runs["device"] != ""].unique()
    return runs["device"].where(runs["device"] != "", known[0]) if len(known) == 1 else runs["device"]


def hardware_of(runs: pd.DataFrame) -> pd.Series:
    """Of each run `8 GPUs`, or `8 x NVIDIA A100` where runs had several devices."""
    devices = devices_of(runs)
    several = devices.nunique() > 1
    texts = [
        f"{gpus:g} x {device}" if several and device else gpus_label(gpus, device)
        for gpus, device in zip(runs["gpus"], devices, strict=True)
    ]
    return pd.Series(texts, runs.index, dtype=object)


def of_one_device(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on the device that most of them had: times on others say nothing of a number of GPUs."""
    devices = devices_of(runs)
    return runs[devices == devices.mode().iloc[0]] if len(runs) else runs


def devices_text(runs: pd.DataFrame) -> str:
    """`trained on NVIDIA A100`, or several with the number of their runs; empty where no run says."""
    counts = devices_of(runs).value_counts().sort_index()
    if list(counts.index) in ([], [""]):
        return ""
    named = {device or "a device that is not recorded": count for device, count in counts.items()}
    if len(named) == 1:
        return f"trained on {next(iter(named))}"
    return "trained on " + ", ".join(f"{name} ({counted(count, 'run')})" for name, count in named.items())

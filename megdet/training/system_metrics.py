"""How busy the machine of rank 0 is: processors, memory, and what NVIDIA's driver says of its GPUs.

The names are those of MLflow's own monitor, and MLflow shows them on its page "System metrics". That monitor itself
writes to the tracking server alone, and stops for good when it does not answer. Ours are lines of the journal, so that
MLflow gets them as it gets everything else: once, and later where it was down.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


class SystemMetrics:
    """Reads what the machine does; each value is of the moment, and of the time since the last call for processors."""

    def __init__(self) -> None:
        """Needs psutil, and nvidia-ml-py for GPUs (`pip install 'megdet[system]'`)."""
        # Imported here: who does not ask for it need not have it.
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()  # the first call only sets the clock
        self._gpus = _gpus()

    def read(self) -> dict[str, float]:
        """Values by name; the units are in the names."""
        memory = self._psutil.virtual_memory()
        found = {
            "cpu_utilization_percentage": float(self._psutil.cpu_percent()),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
        }
        for number, gpu in enumerate(self._gpus):
            found |= {f"gpu_{number}_{name}": value for name, value in gpu().items()}
        return {name: round(value, 1) for name, value in found.items()}


def _gpus() -> list[Callable[[], dict[str, float]]]:
    """A reader for each GPU of this machine; none where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    return [partial(_read_gpu, handle) for handle in handles]


def _read_gpu(handle: Any) -> dict[str, float]:
    """What a GPU says of itself; what it does not tell, as a part of a divided one does not, is left out."""
    import pynvml

    found = {}
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        found["memory_usage_megabytes"] = memory.used / 1e6
        found["memory_usage_percentage"] = 100 * memory.used / memory.total
        found["utilization_percentage"] = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        found["power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    except pynvml.NVMLError:
        pass
    return found

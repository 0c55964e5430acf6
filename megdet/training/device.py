"""What the ranks of a run compute on, by name."""

from __future__ import annotations

import torch

from megdet.runs.processor import processor_name
from megdet.training.distributed import union_over_ranks


def device_of_all_ranks(own: torch.device) -> str:
    """`NVIDIA H100 80GB HBM3`, or `CPU (AMD EPYC 7R13 Processor)`; several, with commas, where ranks differ.

    A collective: every rank calls it.
    """
    name = f"CPU ({processor_name()})" if own.type == "cpu" else torch.cuda.get_device_name(own)
    return ", ".join(sorted(union_over_ranks({name: ""})))

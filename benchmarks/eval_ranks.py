"""What rank 0 does after an evaluation on many ranks: seconds and memory to gather and to score, simulated.

    python -m benchmarks.eval_ranks [--ranks 128] [--images 5000]

The detections of the other ranks are generated (100 an image) and stand in for the two collectives; everything else is
the real code of rank 0 from its rows to the 12 numbers. The network's own time is not in it: it moves `received_mb`.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.coco_eval import random_set
from benchmarks.report import write_report
from megdet.data.annotations import read_annotations
from megdet.training.evaluate import gather_rows
from megdet.training.metrics import coco_metrics


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=128)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="default: results/benchmarks/eval_ranks.json")
    arguments = parser.parse_args()
    truth, detections = random_set(
        images=arguments.images, categories=80, objects=round(7.267 * arguments.images),
        detections_per_image=100, crowd=0.012, seed=2,
    )  # fmt: skip
    image_ids = np.unique(detections[:, 0])
    place = np.searchsorted(image_ids, detections[:, 0])
    of_rank = [torch.from_numpy(detections[place % arguments.ranks == rank]) for rank in range(arguments.ranks)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "truth.json"
        file.write_text(json.dumps(truth))
        annotations = read_annotations(file)
    del truth, detections

    def all_reduce(counts: Tensor) -> None:
        counts.copy_(torch.tensor([len(rows) for rows in of_rank]))

    def all_gather(parts: list[Tensor], own: Tensor) -> None:
        for part, rows in zip(parts, of_rank, strict=True):
            part[: len(rows)] = rows

    gather_s, score_s = [], []
    before_mb = peak_mb()
    with (
        patch.object(dist, "get_world_size", lambda: arguments.ranks), patch.object(dist, "get_rank", lambda: 0),
        patch.object(dist, "all_reduce", all_reduce), patch.object(dist, "all_gather", all_gather),
    ):  # fmt: skip
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            rows = gather_rows(of_rank[0].numpy(), torch.device("cpu"))
            gathered = time.perf_counter()
            metrics = coco_metrics(annotations, rows)
            gather_s.append(gathered - began)
            score_s.append(time.perf_counter() - gathered)
    numbers = {
        "ranks": arguments.ranks,
        "images": arguments.images,
        "detections": len(rows),
        "gather_s": min(gather_s),
        "score_s": min(score_s),
        "memory_mb": peak_mb() - before_mb,
        "received_mb": rows.nbytes / 1e6,
        "mmAP": metrics["mmAP"],
    }
    print(
        f"{arguments.images} images over {arguments.ranks} ranks, {len(rows)} detections "
        f"({numbers['received_mb']:.0f} MB)"
    )
    print(f"rank 0: gather {numbers['gather_s']:.3f} s, score {numbers['score_s']:.3f} s", end="")
    print(f" (fastest of {arguments.repeats}), {numbers['memory_mb']:.0f} MB more at the peak")
    print(f"written to {write_report('eval_ranks', numbers, arguments.out)}")


if __name__ == "__main__":
    main()

"""A data set of COCO's size, read and planned with: the first time, and when it is known; beside pycocotools.

    python -m benchmarks.read_data [--images 118287] [--boxes 860001] [--folder FOLDER] [--out FILE]

Draws an annotation file with polygons (about half a gigabyte) and an image file of one byte for each image, then starts
a process each for: `launch.py data=custom ... sweep.dry_run=true` without anything kept, the same again, and
pycocotools' COCO() of the file. Gives seconds by the clock, seconds of processor time, and the peak of memory. Each
number is of a whole process, imports included.

Then the same of a rank that trains, which finds the file in the cache as every rank of a node but the first does: from
after its imports until its loaders are there, and the memory that it then holds for itself because of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import ROOT, write_report

MEASURE = """
import json, resource, runpy, sys, time
sys.argv = sys.argv[1:]
sys.path.insert(0, {root!r})
began = time.perf_counter()
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
used = resource.getrusage(resource.RUSAGE_SELF)
print("measured", json.dumps([
    time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6
]))
"""
RANK = """
import json, os, re, sys, time
from pathlib import Path
from types import SimpleNamespace
import torch
from megdet.config.compose import compose
from megdet.data.data_set import read_data
from megdet.planning.plan import make_plan
from megdet.training.assemble import loaders_of

def held_gb():
    # This process's own pages, without files that it shares with others.
    return int(re.search("Private_Dirty: +([0-9]+)", Path("/proc/self/smaps_rollup").read_text())[1]) / 1e6

config, ranks = compose(sys.argv[1:]), SimpleNamespace(rank=1, world_size=8, device=torch.device("cpu"))
memory, began, processor = held_gb(), time.perf_counter(), time.process_time()
data = read_data(config.data)
config.data.train_images, config.data.num_classes = data.facts.train_images, data.facts.num_classes
loaders = loaders_of(make_plan(config), ranks, data)
del data
steps = loaders[0].epoch(0)
taken = [time.perf_counter() - began, time.process_time() - processor, held_gb() - memory]
print("measured", json.dumps(taken), flush=True)
os._exit(0)
"""
PEER = "import sys; from pycocotools.coco import COCO; COCO(sys.argv[1])\n"


def draw_set(folder: Path, *, images: int, boxes: int) -> None:
    """labels.json with polygons of 20 to 80 numbers, as COCO's, and an image file of a byte each."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for number in range(images):
        (folder / "images" / f"{number:012}.jpg").write_bytes(b"1")
    owners, categories = rng.integers(images, size=boxes), rng.integers(1, 81, size=boxes)
    sides = rng.uniform(5, 200, size=(boxes, 2))
    corners = (rng.uniform(0, 1, size=(boxes, 2)) * ([640, 480] - sides)).round(2)
    sides, points = sides.round(2), rng.integers(10, 40, size=boxes)
    with (folder / "labels.json").open("w") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "images": [')
        file.write(
            ",".join(
                f'{{"license": 3, "file_name": "{number:012}.jpg", "height": 480, "width": 640, '
                f'"coco_url": "http://images.example.org/train2017/{number:012}.jpg", '
                f'"date_captured": "2013-11-14 16:28:13", "id": {number}}}'
                for number in range(images)
            )
        )
        file.write('], "annotations": [')
        for number in range(boxes):
            (x, y), (w, h) = corners[number], sides[number]
            outline = ",".join(map(str, rng.uniform(0, 640, 2 * points[number]).round(2).tolist()))
            entry = (
                f'{{"segmentation": [[{outline}]], "area": {0.6 * w * h:.4f}, "iscrowd": 0, "bbox": [{x},{y},{w},{h}]'
            )
            of = f'"image_id": {owners[number]}, "category_id": {categories[number]}, "id": {number + 1}}}'
            file.write(("," if number else "") + f"{entry}, {of}")
        names = ",".join(f'{{"id": {number}, "name": "class {number}"}}' for number in range(1, 81))
        file.write(f'], "categories": [{names}]}}')


def measured(folder: Path, *command: str) -> dict[str, float]:
    """Seconds and gigabytes of a Python program's process."""
    program = folder / "measure.py"
    program.write_text(MEASURE.format(root=str(ROOT)))
    environment = {**os.environ, "MEGDET_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(program), *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    clock_s, processor_s, memory_gb = json.loads(done.stdout.rpartition("measured ")[2])
    return {"clock_s": clock_s, "processor_s": processor_s, "memory_gb": memory_gb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118287)
    parser.add_argument("--boxes", type=int, default=860001)
    parser.add_argument("--folder", type=Path, help="where the set is drawn, or was; default: a temporary one")
    parser.add_argument("--out", type=Path, help="default: results/benchmarks/read_data.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name) / "set").resolve()
        if not (folder / "labels.json").exists():
            draw_set(folder, images=arguments.images, boxes=arguments.boxes)
            time.sleep(3)  # what changed just now is not kept
        for kept in folder.glob("cache/*"):
            kept.unlink()
        (folder / "peer.py").write_text(PEER)
        (folder / "rank.py").write_text(RANK)
        asked = (
            "data=custom", f"data.root={folder}", "data.train.annotations=labels.json", "data.train.images=images",
            "data.val_fraction=0.05", "gpus=8", "cluster=paper",
        )  # fmt: skip
        plan = (str(ROOT / "launch.py"), *asked, "sweep.dry_run=true")
        found = {
            "first plan": measured(folder, *plan),
            "next plan": measured(folder, *plan),
            "pycocotools": measured(folder, "peer.py", str(folder / "labels.json")),
            "next rank": measured(folder, "rank.py", *asked),
        }
        megabytes = (folder / "labels.json").stat().st_size / 1e6
    print(f"{arguments.images} images, {arguments.boxes} boxes, {megabytes:.0f} MB of annotations")
    for name, numbers in found.items():
        print(
            f"{name:12} {numbers['clock_s']:6.2f} s   {numbers['processor_s']:6.2f} s of processor time   "
            f"{numbers['memory_gb']:.2f} GB"
        )
    size = {"images": arguments.images, "boxes": arguments.boxes, "file_mb": megabytes}
    report: dict[str, object] = {**size, **found}
    print(f"written to {write_report('read_data', report, arguments.out)}")


if __name__ == "__main__":
    main()

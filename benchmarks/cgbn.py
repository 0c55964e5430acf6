"""What Cross-GPU Batch Normalization costs: the 53 batch norms of a ResNet-50, forward and backward, on gloo ranks.

    python -m benchmarks.cgbn --ranks 2

One image of 800x1333 px a rank (padded to 800x1344), one thread a rank. In the same run: ours (one BN batch over all
ranks), `nn.BatchNorm2d` (each rank for itself: no synchronisation at all) and the naive form of synchronised BN
(a differentiable all-reduce of mean and mean of squares, normalisation in plain tensor operations).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from benchmarks.report import write_report
from megdet.launchers.rank import NO_TRIM
from megdet.model.cgbn import CrossGPUBatchNorm2d, update_running_statistics

# channels, height, width, number of layers
LAYERS = [
    (64, 400, 672, 1), (64, 200, 336, 6), (256, 200, 336, 4),
    (128, 200, 336, 1), (128, 100, 168, 7), (512, 100, 168, 5),
    (256, 100, 168, 1), (256, 50, 84, 11), (1024, 50, 84, 7),
    (512, 50, 84, 1), (512, 25, 42, 5), (2048, 25, 42, 4),
]  # fmt: skip


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        dx = grads[0].clone()
        dist.all_reduce(dx)
        return dx


class NaiveSyncBatchNorm2d(nn.BatchNorm2d):
    """The peer: synchronised BN as a differentiable all-reduce, ranks weighted equally."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        moments = torch.cat([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
        mean, mean_square = (_SumOverRanks.apply(moments) / dist.get_world_size()).chunk(2)
        var = mean_square - mean.square()
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        y: Tensor = x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return y


def layers_of(make: Callable[[int], nn.Module]) -> list[nn.Module]:
    return [make(channels) for channels, _, _, count in LAYERS for _ in range(count)]


def step(layers: list[nn.Module], xs: list[Tensor], dys: list[Tensor]) -> float:
    dist.barrier()
    began = time.perf_counter()
    ys = [layer(x) for layer, x in zip(layers, xs, strict=True)]
    while ys:
        ys.pop().backward(dys[len(ys)])
        xs[len(ys)].grad = None
    if isinstance(layers[0], CrossGPUBatchNorm2d):
        update_running_statistics(nn.ModuleList(layers))
    return time.perf_counter() - began


def rank_main(rank: int, ranks: int, folder: str, repeats: int, channels_last: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    forms = {
        "cgbn": layers_of(lambda c: CrossGPUBatchNorm2d(c, bn_size=ranks, group=dist.group.WORLD)),
        "batch_norm": layers_of(nn.BatchNorm2d),
        "naive": layers_of(NaiveSyncBatchNorm2d),
    }
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shapes = [(1, c, h, w) for c, h, w, count in LAYERS for _ in range(count)]
    xs = [torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_() for shape in shapes]
    dys = [torch.randn(shape).contiguous(memory_format=memory_format) for shape in shapes]
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(repeats + 1):
        for name, layers in forms.items():
            seconds = step(layers, xs, dys)
            if number:
                times[name].append(seconds)
    if rank == 0:
        torch.save(times, f"{folder}/times.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--channels-last", action="store_true", help="the memory format that megdet trains in")
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    args = parser.parse_args()
    os.environ.update(NO_TRIM)
    with tempfile.TemporaryDirectory() as folder:
        spawn(rank_main, (args.ranks, folder, args.repeats, args.channels_last), nprocs=args.ranks)
        times = torch.load(f"{folder}/times.pt")
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    ratios = {f"cgbn/{name}": median["cgbn"] / median[name] for name in ("batch_norm", "naive")}
    for name, seconds in median.items():
        print(f"{name:12} {1e3 * seconds:8.1f} ms [{1e3 * min(times[name]):.1f}, {1e3 * max(times[name]):.1f}]")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")
    memory_format = "channels_last" if args.channels_last else "contiguous"
    write_report(
        f"cgbn-{args.ranks}ranks-{memory_format}",
        {"ranks": args.ranks, "memory_format": memory_format, "median_s": median, "times_s": times, "ratios": ratios},
        args.out,
    )


if __name__ == "__main__":
    main()

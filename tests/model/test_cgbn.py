"""Cross-GPU batch norm against float64 batch norm of the joined batch in one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from megdet.model.cgbn import CrossGPUBatchNorm2d, update_running_statistics
from megdet.model.sublinear import checkpointed
from megdet.training.distributed import bn_group_of
from tests.ranks import run_ranks

CHANNELS = 5
EQUAL = [(2, 6, 7), (2, 6, 7)]
OTHER_SIZES = [(2, 4, 9), (2, 6, 5)]
UNEQUAL = [(1, 4, 9), (3, 6, 5)]
EMPTY_RANK = [(2, 6, 7), (0, 6, 7), (1, 3, 3)]


def inputs(shapes: list[tuple[int, int, int]], mean: float, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Each rank's input and output gradient, as every rank can make them."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 2.0, CHANNELS).view(1, -1, 1, 1)
    xs, dys = [], []
    for n, h, w in shapes:
        xs.append((torch.randn(n, CHANNELS, h, w, generator=generator) * scale + mean).to(dtype))
        dys.append(torch.randn(n, CHANNELS, h, w, generator=generator).to(dtype))
    return xs, dys


def affine() -> tuple[Tensor, Tensor]:
    return torch.linspace(0.5, 1.5, CHANNELS), torch.linspace(-1.0, 1.0, CHANNELS)


def reference(xs: list[Tensor], dys: list[Tensor]) -> dict[str, list[Tensor] | Tensor]:
    """Batch norm of all pixels of all ranks in float64, from the definition, differentiated by autograd."""
    weight, bias = (t.double().requires_grad_() for t in affine())
    leaves = [x.double().requires_grad_() for x in xs]
    pixels = torch.cat([x.transpose(0, 1).flatten(1) for x in leaves], dim=1)
    mean, var = pixels.mean(1), pixels.var(1, unbiased=False)
    scale = (weight / (var + 1e-5).sqrt()).view(1, -1, 1, 1)
    ys = [(x - mean.view(1, -1, 1, 1)) * scale + bias.view(1, -1, 1, 1) for x in leaves]
    torch.autograd.backward(ys, [dy.double() for dy in dys])
    return {
        "y": [y.detach() for y in ys],
        "dx": [x.grad if x.grad is not None else torch.zeros_like(x) for x in leaves],
        "dweight": weight.grad,
        "dbias": bias.grad,
        "running_mean": 0.1 * mean.detach(),
        "running_var": 0.9 + 0.1 * pixels.detach().var(1, unbiased=True),
    }


def one_step(
    shapes: list[tuple[int, int, int]], mean: float, dtype: torch.dtype, channels_last: bool = False
) -> dict[str, Tensor]:
    rank, world = dist.get_rank(), dist.get_world_size()
    xs, dys = inputs(shapes, mean, dtype)
    layer = CrossGPUBatchNorm2d(
        CHANNELS,
        bn_size=sum(n for n, _, _ in shapes),
        group=bn_group_of(rank, world_size=world, bn_group=world),
    )
    with torch.no_grad():
        layer.weight.copy_(affine()[0])
        layer.bias.copy_(affine()[1])
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = xs[rank].contiguous(memory_format=memory_format).requires_grad_()
    # Shares of other sizes than training's are for the operator alone: the layer knows its share of bn_size.
    y = layer(x) if len({n for n, _, _ in shapes}) == 1 else layer.normalise(x)
    y.backward(dys[rank])
    update_running_statistics(layer)
    return {
        "y": y.detach(), "dx": x.grad, "dweight": layer.weight.grad, "dbias": layer.bias.grad,
        "running_mean": layer.running_mean, "running_var": layer.running_var,
    }  # fmt: skip


def errors(results: list[dict[str, Tensor]], expected: dict) -> dict[str, float]:
    """The largest absolute error of each quantity; parameter gradients are the ranks' sum, as DDP sees them."""
    found = {
        name: max(
            [
                (r[name].double() - e).abs().max().item()
                for r, e in zip(results, expected[name], strict=True)
                if e.numel()
            ]
        )
        for name in ("y", "dx")
    }
    for name in ("dweight", "dbias"):
        found[name] = (sum(r[name].double() for r in results) - expected[name]).abs().max().item()
    for name in ("running_mean", "running_var"):
        found[name] = max((r[name].double() - expected[name]).abs().max().item() for r in results)
    return found


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "shapes",
    [EQUAL, OTHER_SIZES, UNEQUAL, EMPTY_RANK],
    ids=["equal", "images_of_other_sizes", "unequal", "empty_rank"],
)
def test_ranks_equal_batch_norm_of_the_joined_batch(shapes: list, channels_last: bool) -> None:
    results = run_ranks(len(shapes), one_step, shapes, 3.0, torch.float32, channels_last)
    found = errors(results, reference(*inputs(shapes, 3.0, torch.float32)))
    assert max(found.values()) < 2e-5, found


def test_a_mean_of_1000_with_deviation_1_keeps_the_variance() -> None:
    # Statistics from sums of squares are 25-60 % off here; float32 itself resolves x to 6e-5.
    results = run_ranks(2, one_step, UNEQUAL, 1e3, torch.float32)
    found = errors(results, reference(*inputs(UNEQUAL, 1e3, torch.float32)))
    assert found["running_var"] < 1e-5 and found["running_mean"] < 1e-4, found
    assert found["y"] < 1e-3 and found["dx"] < 1e-3, found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_has_float32_statistics(dtype: torch.dtype) -> None:
    results = run_ranks(2, one_step, UNEQUAL, 3.0, dtype)
    expected = reference(*inputs(UNEQUAL, 3.0, dtype))
    found = errors(results, expected)
    assert results[0]["y"].dtype == results[0]["dx"].dtype == dtype
    assert found["running_mean"] < 1e-5 and found["running_var"] < 1e-5, found
    # Outputs are rounded to the input's precision: a few units in the last place of values up to 4.
    resolution = torch.finfo(dtype).eps
    assert found["y"] < 4 * resolution and found["dx"] < 8 * resolution, found


@pytest.mark.parametrize("bn_size", [1, 2, 4])
def test_splits_of_one_rank_are_batch_norms_of_their_own(bn_size: int) -> None:
    x = inputs([(4, 6, 7)], 3.0, torch.float32)[0][0].requires_grad_()
    layer = CrossGPUBatchNorm2d(CHANNELS, bn_size=bn_size)
    theirs = [nn.BatchNorm2d(CHANNELS).double() for _ in range(4 // bn_size)]
    expected = torch.cat([bn(part) for bn, part in zip(theirs, x.detach().double().split(bn_size), strict=True)])
    y = layer(x)
    update_running_statistics(layer)
    assert torch.allclose(y.double(), expected, atol=1e-5)
    for name in ("running_mean", "running_var"):
        mean_over_splits = torch.stack([getattr(bn, name) for bn in theirs]).mean(0)
        assert torch.allclose(getattr(layer, name).double(), mean_over_splits, atol=1e-6)


def test_images_that_do_not_fill_bn_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 images .* bn_size=2"):
        CrossGPUBatchNorm2d(CHANNELS, bn_size=2)(torch.randn(3, CHANNELS, 4, 4))


def refusals(bn_size: int, images: int) -> list[str]:
    """What layers of a group of all ranks say to so many images on each, in training and in evaluation."""
    group = bn_group_of(dist.get_rank(), world_size=dist.get_world_size(), bn_group=dist.get_world_size())
    layer = CrossGPUBatchNorm2d(CHANNELS, bn_size=bn_size, group=group)
    said = []
    for training in (True, False):
        try:
            layer.train(training)(torch.randn(images, CHANNELS, 4, 4))
        except ValueError as error:
            said.append(str(error))
    return said


def test_a_group_whose_images_are_not_bn_size_together_is_refused_in_training() -> None:
    for bn_size, images in ((8, 2), (2, 2), (3, 2)):
        message = f"2 ranks with 2 images in this pass are BN batches of 4 images, not of bn_size={bn_size}"
        assert run_ranks(2, refusals, bn_size, images) == [[message], [message]]
    assert run_ranks(2, refusals, 4, 2) == [[], []]


def running_statistics_after(passes: int) -> Tensor:
    """Four images as `passes` passes over the ranks, BN batches of one rank's share each."""
    rank, world = dist.get_rank(), dist.get_world_size()
    x = inputs([(4, 6, 7)], 3.0, torch.float32)[0][0]
    layer = CrossGPUBatchNorm2d(CHANNELS, bn_size=1)
    for number in range(passes):
        share = 4 // passes // world
        first = number * 4 // passes + rank * share
        layer(x[first : first + share])
    update_running_statistics(layer)
    return torch.cat([layer.running_mean, layer.running_var, layer.num_batches_tracked.float()[None]])


def test_running_statistics_move_once_a_step_by_the_mean_over_all_bn_batches_on_every_layout() -> None:
    bn = nn.BatchNorm2d(CHANNELS, momentum=1.0).double()
    means, variances = [], []
    for image in inputs([(4, 6, 7)], 3.0, torch.float32)[0][0].double().split(1):
        bn(image)
        means.append(bn.running_mean.clone())
        variances.append(bn.running_var.clone())
    expected = torch.cat([0.1 * torch.stack(means).mean(0), 0.9 + 0.1 * torch.stack(variances).mean(0), torch.ones(1)])
    for world, passes in ((1, 1), (1, 4), (2, 1), (2, 2)):
        for found in run_ranks(world, running_statistics_after, passes):
            assert torch.allclose(found.double(), expected, atol=1e-6), (world, passes)


def test_layers_that_no_image_went_through_and_layers_in_evaluation_keep_their_statistics() -> None:
    used, unused, evaluated = (CrossGPUBatchNorm2d(CHANNELS, bn_size=2) for _ in range(3))
    for layer in (used, unused, evaluated):
        layer.running_mean.fill_(3.0)
    used(torch.randn(2, CHANNELS, 4, 4))
    evaluated.eval()(torch.randn(2, CHANNELS, 4, 4))
    update_running_statistics(nn.ModuleList([used, unused, evaluated]))
    assert used.running_mean.max() < 3.0 and used.num_batches_tracked == 1
    for layer in (unused, evaluated):
        assert torch.equal(layer.running_mean, torch.full((CHANNELS,), 3.0))
        assert torch.equal(layer.running_var, torch.ones(CHANNELS))
    assert evaluated.num_batches_tracked == 0


class Nested(nn.Module):
    """Layers inside layers, as in a ResNet block."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(
            nn.Sequential(CrossGPUBatchNorm2d(4, bn_size=4, group=group), nn.ReLU(), nn.Conv2d(4, 4, 3)),
            nn.Sequential(CrossGPUBatchNorm2d(4, bn_size=4, group=group)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


def nested_layers() -> tuple[list[int], Tensor]:
    group = bn_group_of(dist.get_rank(), world_size=4, bn_group=2)
    model = Nested(group)
    sizes = [dist.get_world_size(m.group) for m in model.modules() if isinstance(m, CrossGPUBatchNorm2d)]
    torch.manual_seed(1)
    images = torch.randn(8, 3, 8, 8)
    return sizes, model(images[2 * dist.get_rank() :][:2]).detach()


def test_the_group_reaches_every_nested_layer_and_no_further() -> None:
    results = run_ranks(4, nested_layers)
    assert all(sizes == [2, 2] for sizes, _ in results)
    torch.manual_seed(1)
    images = torch.randn(8, 3, 8, 8)
    model = Nested(None)
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, CrossGPUBatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(child.num_features))
    expected = torch.cat([model.double()(half) for half in images.double().split(4)]).detach()
    assert torch.allclose(torch.cat([y for _, y in results]).double(), expected, atol=1e-5)


def checkpointed_step(sublinear: bool) -> dict:
    """One step of a checkpointed model on ranks with images of unequal height, with its collectives counted."""
    rank = dist.get_rank()
    model = Nested(bn_group_of(rank, world_size=2, bn_group=2))
    torch.manual_seed(rank)
    x = torch.randn(2, 3, 8 + 2 * rank, 8)
    counts = {"all_gather_into_tensor": 0, "all_reduce": 0}
    originals = {name: getattr(dist, name) for name in counts}

    def counting(name: str):
        def call(*args, **kwargs):
            counts[name] += 1
            return originals[name](*args, **kwargs)

        return call

    for name in counts:
        setattr(dist, name, counting(name))
    y = model.stem(x)
    y = checkpointed(model.blocks, y) if sublinear else model.blocks(y)
    y.square().sum().backward()
    counted = dict(counts)
    update_running_statistics(model)
    return {
        "collectives": counted,
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "grads": [p.grad for p in model.parameters()],
    }


def test_activation_checkpointing_is_bit_identical_and_issues_no_second_collective() -> None:
    plain, recomputed = run_ranks(2, checkpointed_step, False), run_ranks(2, checkpointed_step, True)
    for a, b in zip(plain, recomputed, strict=True):
        assert a["collectives"] == b["collectives"] == {"all_gather_into_tensor": 2, "all_reduce": 2}
        assert all(torch.equal(a["state"][name], b["state"][name]) for name in a["state"])
        assert all(torch.equal(x, y) for x, y in zip(a["grads"], b["grads"], strict=True))
        assert a["state"]["blocks.0.0.num_batches_tracked"] == 1


def test_evaluation_uses_running_statistics_and_a_batch_norm_checkpoint_loads() -> None:
    theirs = nn.BatchNorm2d(CHANNELS)
    theirs.load_state_dict({**theirs.state_dict(), **dict(zip(("weight", "bias"), affine(), strict=True))})
    theirs(torch.randn(4, CHANNELS, 3, 3) * 2 + 1)
    ours = CrossGPUBatchNorm2d(CHANNELS, bn_size=4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, CHANNELS, 3, 3)
    assert torch.allclose(ours.eval()(x).double(), theirs.eval().double()(x.double()), atol=1e-5)

"""A GPU for machines without one: its tensors hold their values on the CPU and refuse to meet tensors that are there.

`python -m tests.pretend_gpu` trains and evaluates a small detector on it, in a process of its own because torch keeps
the device for good, and prints as JSON where tensors of both places met in one operation ("mixed"), where a collective
was given a CPU tensor ("collectives"), and where a number or tensor went from one place to the other, for which a
host waits ("waits"); and how many maps of backbone and pyramid wait there for backward, by `sublinear` ("kept").
"""

from __future__ import annotations

import gc
import json
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from megdet.model.cgbn import CrossGPUBatchNorm2d, update_running_statistics
from megdet.model.norms import NormLayers
from megdet.model.settings import OFFLOAD
from tests.model.detectors import detect, random_batch, small_detector, train_pass

DEVICE = "pretend"
PACKAGE = str(Path(__file__).resolve().parents[1] / "megdet")
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)

found: dict[str, set[str]] = {"mixed": set(), "collectives": set(), "waits": set()}


class OnGPU(Tensor):
    """A tensor on the pretended GPU."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> OnGPU:
        wrapper = Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), dtype=values.dtype, device=f"{DEVICE}:0"
        )
        wrapper.values = values
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {})


class _EveryOperation(TorchDispatchMode):
    """Also those that make tensors, which no argument gives away."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operator, args, kwargs or {})


def _run(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, OnGPU)]
    asked = kwargs.get("device")
    to_gpu = asked is not None and torch.device(asked).type == DEVICE
    to_cpu = asked is not None and not to_gpu
    if on_gpu and operator not in (*COPIES, *INDEXING) and any(tensor.dim() for tensor in elsewhere):
        found["mixed"].add(f"{_here()}: {operator}")
    if operator in COPIES:
        waits = (bool(on_gpu) or to_gpu) and (bool(elsewhere) or to_cpu)
    elif operator in INDEXING:
        waits = bool(on_gpu and elsewhere)
    else:
        waits = bool(on_gpu) and operator is aten._local_scalar_dense.default
    if waits:
        found["waits"].add(_here())
    if to_gpu:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = operator(*tree_map(_values, args), **tree_map(_values, kwargs))
    if operator._schema.is_mutable and isinstance(args[0], Tensor):
        return args[0]
    stays = to_gpu or (on_gpu and not to_cpu)
    return tree_map(lambda leaf: OnGPU(leaf) if isinstance(leaf, Tensor) and stays else leaf, result)


def _values(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, OnGPU) else leaf


def _here() -> str:
    """The innermost line of megdet that is running."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
    return f"{Path(frames[-1].filename).relative_to(PACKAGE)}:{frames[-1].lineno}" if frames else "backward"


def _replace_what_bypasses_dispatch() -> None:
    """Making tensors of Python numbers, and collectives."""
    tensor, gather, reduce = torch.tensor, dist.all_gather_into_tensor, dist.all_reduce

    def tensor_of(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made = tensor(data, **options)
        if device is None or torch.device(device).type != DEVICE:
            return made
        found["waits"].add(_here())
        return OnGPU(made)

    def as_tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        assert not isinstance(data, Tensor)
        return tensor_of(data, dtype=dtype, device=device)

    def collective(original: Any, *given: Tensor, **options: Any) -> Any:
        if not all(isinstance(value, OnGPU) for value in given):
            found["collectives"].add(_here())
        with _disable_current_modes():
            return original(*(_values(value) for value in given), **options)

    torch.tensor, torch.as_tensor = tensor_of, as_tensor
    Tensor.new_tensor = lambda self, data: tensor_of(data, dtype=self.dtype, device=self.device)
    dist.all_gather_into_tensor, dist.all_reduce = partial(collective, gather), partial(collective, reduce)


def _move(module: nn.Module) -> None:
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(OnGPU(parameter.data), requires_grad=parameter.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = OnGPU(buffer)


def _moved(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [OnGPU(tensor) for tensor in tensors]


def _maps_kept(sublinear: bool | str) -> int:
    """How many maps wait for backward on the device after a forward pass, its own outputs left out."""
    cgbn = partial(CrossGPUBatchNorm2d, bn_size=2, group=None)
    detector = small_detector(norm=NormLayers(backbone=cgbn, fpn=cgbn), sublinear=sublinear).train()
    _move(detector)
    images = OnGPU(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    before = _maps_there()
    with _EveryOperation():
        levels = detector.backbone(images)
    return _maps_there() - before - len(levels)


def _maps_there() -> int:
    gc.collect()
    there = (thing for thing in gc.get_objects() if type(thing) is OnGPU)
    return sum(tensor.dim() == 4 and not isinstance(tensor, nn.Parameter) for tensor in there)


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend(DEVICE)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        cgbn = partial(CrossGPUBatchNorm2d, bn_size=2, group=dist.new_group([0]))
        detector = small_detector(norm=NormLayers(backbone=cgbn, fpn=cgbn))
        batch = random_batch([(64, 96), (50, 90)], objects=[3, 2])
        batch = replace(batch, images=OnGPU(batch.images), boxes=_moved(batch.boxes), labels=_moved(batch.labels))
        _replace_what_bypasses_dispatch()
        _move(detector)
        with _EveryOperation():
            losses = train_pass(detector, batch).losses
            update_running_statistics(detector)
            with torch.no_grad():
                detect(detector, batch)
        assert all(isinstance(loss, OnGPU) and bool(loss.values.isfinite()) for loss in losses.values())
    said: dict[str, Any] = {what: sorted(places) for what, places in found.items()}
    said["kept"] = {str(sublinear): _maps_kept(sublinear) for sublinear in (False, True, OFFLOAD)}
    print(json.dumps(said))


if __name__ == "__main__":
    main()

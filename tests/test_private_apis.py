"""What megdet uses of torch, torchvision and Python without their promise to keep it.

Each has an entry in PRIVATE_APIS with its place in the code and a check against something public. A check that fails
after an upgrade names the place to mend. Private names that have no entry are found in the sources.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "megdet"
FOLDERS = ("data", "model", "training", "trained", "studies")
"""Of the package: those that load torch."""


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def onednn_product() -> None:
    if not torch.backends.mkldnn.is_available():
        return  # F.linear serves there
    x, weight, bias = randn(5, 7), randn(3, 7, seed=1), randn(3, seed=2)
    found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    assert_close(found, F.linear(x, weight, bias))
    assert_close(torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""), F.linear(x, weight))


def many_small_updates() -> None:
    ours, theirs = [torch.zeros(2), torch.zeros(3)], [randn(2), randn(3, seed=1)]
    torch._foreach_copy_(ours, theirs)
    torch._foreach_add_(ours, 1)
    for own, other in zip(ours, theirs, strict=True):
        assert_close(own, other + 1)


def batch_statistics() -> None:
    x = (randn(2, 3, 4, 5) + 3).contiguous(memory_format=torch.channels_last)
    mean, var = torch.batch_norm_update_stats(x, torch.zeros(3), torch.zeros(3), momentum=0.0)
    expected_var, expected_mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    assert_close(mean, expected_mean)
    assert_close(var, expected_var)
    low, _ = torch.batch_norm_update_stats(x.bfloat16(), torch.zeros(3), torch.zeros(3), momentum=0.0)
    assert low.dtype == torch.float32, "half-precision input with float32 averages is answered in float32"


def affine_of_channels() -> None:
    x, scale, shift, centre = randn(2, 3, 4, 5), randn(3, seed=1), randn(3, seed=2), randn(3, seed=3)
    found = torch.batch_norm(x, scale, shift, centre, torch.ones(3), False, 0.0, 0.0, False)
    a, b, c = (values.view(1, 3, 1, 1) for values in (scale, shift, centre))
    assert_close(found, a * (x - c) + b)


def batch_norm_gradients() -> None:
    x, dy, mean, ones = randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1), randn(3, seed=2), torch.ones(3)
    _, of_product, of_dy = torch.ops.aten.native_batch_norm_backward(
        dy, x, ones, None, None, mean, ones, True, 0.0, [False, True, True]
    )
    assert_close(of_dy, dy.sum((0, 2, 3)))
    assert_close(of_product, (dy * (x - mean.view(1, 3, 1, 1))).sum((0, 2, 3)))


def relu6_gradients() -> None:
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0]).requires_grad_()
    y = F.relu6(x)
    (expected,) = torch.autograd.grad(y, x, torch.ones(5))
    assert torch.equal(torch.ops.aten.hardtanh_backward(torch.ones(5), y.detach(), 0.0, 6.0), expected)


def jpeg_decoder() -> None:
    import torchvision.io  # registers the operator

    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.full((8, 16, 3), (200, 100, 50), np.uint8)).save(file, "JPEG", quality=95, exif=exif)
    data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    for upright, shape in ((True, (3, 16, 8)), (False, (3, 8, 16))):
        image = torch.ops.image.decode_jpeg(data, torchvision.io.ImageReadMode.RGB.value, upright)
        assert image.shape == shape and image.dtype == torch.uint8
        assert (image.flatten(1).float().mean(1) - torch.tensor([200.0, 100.0, 50.0])).abs().max() < 3


def box_coder() -> None:
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    box, proposal = torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([[12.0, 20.0, 28.0, 52.0]])
    code = coder.encode_single(box, proposal)
    # Centres (20, 40) and (20, 36), sizes (20, 40) and (16, 32); the parametrisation of Girshick 2014.
    expected = torch.tensor([0.0, 10 * 4 / 32, 5 * np.log(20 / 16), 5 * np.log(40 / 32)], dtype=torch.float32)
    assert_close(code, expected[None])
    assert_close(coder.decode_single(code, proposal), box)


def frames_of_threads() -> None:
    frames = sys._current_frames()
    assert frames[threading.get_ident()].f_code.co_name == "frames_of_threads"


def end_at_once() -> None:
    program = "import atexit, os; atexit.register(print, 'cleaned up'); os._exit(7)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (done.returncode, done.stdout) == (7, b"")


@dataclass(frozen=True)
class PrivateApi:
    """Something of torch, torchvision or Python that may go or change without notice."""

    name: str
    file: str
    """Where it is used, below megdet/."""
    why: str
    check: Callable[[], None]


PRIVATE_APIS = (
    PrivateApi(
        "sys._current_frames",
        "training/watchdog.py",
        "where the main thread hangs, seen from another; faulthandler writes all threads and names no function to us",
        frames_of_threads,
    ),
    PrivateApi(
        "os._exit",
        "training/watchdog.py",
        "ends a process whose main thread hangs in C; documented in spite of its name",
        end_at_once,
    ),
    *(
        PrivateApi(
            f"torch._foreach_{what}_",
            "model/cgbn.py",
            "running statistics of all layers at once; torch's own optimizers use it",
            many_small_updates,
        )
        for what in ("copy", "add")
    ),
    PrivateApi(
        "torch.ops.mkldnn._linear_pointwise",
        "model/linear.py",
        "oneDNN's product of float32 matrices, which no public function reaches",
        onednn_product,
    ),
    PrivateApi(
        "torch.batch_norm_update_stats",
        "model/channel_sums.py",
        "mean and variance in one pass on a GPU, in float32 also of half-precision input",
        batch_statistics,
    ),
    PrivateApi(
        "torch.batch_norm",
        "model/cgbn.py",
        "b * (x - mean) + c in one pass, with eps = 0 on every device",
        affine_of_channels,
    ),
    PrivateApi(
        "torch.ops.aten.native_batch_norm_backward",
        "model/channel_sums.py",
        "sum dy and sum dy * (x - mean) in one pass on a GPU",
        batch_norm_gradients,
    ),
    PrivateApi(
        "torch.ops.aten.hardtanh_backward",
        "model/efficientnet_lite.py",
        "the gradient of ReLU6 from its output, in one pass",
        relu6_gradients,
    ),
    PrivateApi(
        "torch.ops.image.decode_jpeg",
        "data/images.py",
        "decodes upright or as stored; its public wrapper warns on every image",
        jpeg_decoder,
    ),
    PrivateApi("torchvision.models.detection._utils", "model/rpn.py", "box coder", box_coder),
    PrivateApi("torchvision.models.detection._utils", "model/roi_heads.py", "box coder", box_coder),
)


@pytest.mark.parametrize("api", PRIVATE_APIS, ids=lambda api: f"{api.name} in {api.file}")
def test_a_private_api_still_does_what_the_code_counts_on(api: PrivateApi) -> None:
    assert api.name.rpartition(".")[2] in (PACKAGE / api.file).read_text(), f"{api.file} needs it no more"
    try:
        api.check()
    except Exception as error:
        pytest.fail(
            f"torch {torch.__version__}: {api.name} is private and has changed ({type(error).__name__}: {error}). "
            f"megdet/{api.file} uses it for this: {api.why}. Mend or replace it there, and this entry"
        )


def private_names_in(source: str) -> Iterator[str]:
    """What a module takes of others without their promise: private names, bare operators, overridden internals."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (node.module, *(alias.name for alias in node.names)):
                if any(_is_private(part) for part in name.split(".")):
                    yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if any(_is_private(part) for part in alias.name.split(".")))
        elif isinstance(node, ast.Attribute):
            owner, name = ast.unparse(node.value), node.attr
            hidden = name == "__code__" or (_is_private(name) and owner not in ("self", "cls"))
            if hidden or owner.startswith("torch.ops."):
                yield f"{owner}.{name}"
        elif isinstance(node, ast.ClassDef) and node.bases:
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            yield from (f"{node.name}.{name}" for name in methods if _is_private(name) and hasattr(nn.Module, name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            owner, name = ast.unparse(node.args[0]), node.args[1]
            if isinstance(name, ast.Constant) and _is_private(str(name.value)):
                yield f"{owner}.{name.value}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_other_private_name_is_in_use() -> None:
    listed = {(api.file, api.name) for api in PRIVATE_APIS}
    files = [path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")]
    found = {(str(path.relative_to(PACKAGE)), name) for path in files for name in private_names_in(path.read_text())}
    assert found - listed == set(), "use something public, or give it an entry in PRIVATE_APIS"
    without_an_underscore = {
        ("model/channel_sums.py", "torch.batch_norm_update_stats"),
        ("model/cgbn.py", "torch.batch_norm"),
    }
    assert listed - found == without_an_underscore, "entries that the sources have no use for"


@pytest.mark.parametrize(
    "source",
    [
        "from torchvision.models.detection._utils import BoxCoder",
        "from torch.nn import _reduction",
        "import torch._dynamo",
        "torch.ops.aten.add(x, y)",
        "model._buffers.clear()",
        "DistributedDataParallel.__init__.__code__.co_varnames",
        "getattr(torch.ops.mkldnn, '_linear_pointwise', None)",
        "class Layer(nn.Module):\n    def _load_from_state_dict(self): pass",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert list(private_names_in(source))


def test_what_a_class_keeps_to_itself_is_no_private_api() -> None:
    assert not list(private_names_in("class A(nn.Module):\n    def _run(self): return self._x + cls._y + a.__len__()"))

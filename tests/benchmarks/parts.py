"""A part of the GPU benchmark that goes wrong, as the environment says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from benchmarks.gpu.found import Bench, Found

HOW = "MEGDET_TEST_PART"


def measure(bench: Bench) -> Iterator[Found]:
    yield Found("before that", 1.0, at_least=2)
    match os.environ[HOW]:
        case "raises":
            raise ArithmeticError("no such kernel")
        case "hangs":
            time.sleep(600)
        case "crashes":
            os._exit(139)

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from megdet.training.evaluate import gather_rows
from tests.ranks import run_ranks


def gathered(shares: list[list[tuple[int, float]]]) -> NDArray[np.float64]:
    """What a rank has after its (image id, score) rows and the other ranks' have come together."""
    own = np.zeros((len(shares[dist.get_rank()]), 7))
    for row, (image_id, score) in zip(own, shares[dist.get_rank()], strict=True):
        row[[0, 5]] = image_id, score
    return gather_rows(own, torch.device("cpu"))


@pytest.mark.parametrize(
    "shares",
    [[[(3, 0.9), (3, 0.8), (1, 0.7)], [(2, 0.6)]], [[], [(2, 0.6), (1, 0.5)]], [[], []]],
    ids=["unequal", "one without", "none at all"],
)
def test_every_rank_gets_all_rows_by_image_and_within_an_image_as_they_were(
    shares: list[list[tuple[int, float]]],
) -> None:
    expected = sorted((row for share in shares for row in share), key=lambda row: row[0])
    for rows in run_ranks(2, gathered, shares):
        assert rows.shape == (len(expected), 7)
        assert [(int(row[0]), float(row[5])) for row in rows] == expected

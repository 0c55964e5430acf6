"""How sure a ratio of two variances is, where both are of the same vectors: the jackknife over groups (Tukey 1958).

Gradients are heavy-tailed: one of them may make most of a variance, in the mean of its group as in itself. The two
variances of a ratio then go up and down together, and an error that takes them for independent is 3 to 6 times too
wide. The jackknife leaves out one group after the other, from both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

COORDINATES = 4096
"""That a vector is projected to, which changes squared distances by 2 % (Charikar et al. 2002): millions of coordinates
for each of all vectors would not fit in memory."""


class Projection:
    """Random signs and a sum over the coordinates that fall together: linear, and the same for all vectors."""

    def __init__(self, size: int, *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        self._places = torch.randint(0, COORDINATES, (size,), generator=generator, dtype=torch.int32)
        self._exact = size <= COORDINATES

    def __call__(self, vector: Tensor) -> Tensor:
        """float64 [at most COORDINATES] on the CPU, of a vector [size]."""
        if self._exact:
            return vector.double().cpu()
        signed = vector * self._signs.to(vector.device)
        sums = torch.zeros(COORDINATES, dtype=torch.float64, device=vector.device)
        return sums.index_add_(0, self._places.to(vector.device), signed.double()).cpu()


def ratio_error(epochs: list[Tensor], k: int) -> float:
    """The standard error of k x Var(mean of k) / Var over the vectors of each epoch [n, coordinates].

    Variances are within epochs, and means are of successive vectors, as in `gradient_variance.GroupMeans`. NaN where
    fewer than two groups can be left out.
    """
    means = [vectors[: len(vectors) // k * k].unflatten(0, (-1, k)).mean(1) for vectors in epochs]
    of_means, of_vectors = [_Squares(part) for part in means], [_Squares(part) for part in epochs]
    without = []
    for epoch, part in enumerate(means):
        for group in range(len(part)):
            squares_of_means = _total(of_means, epoch, of_means[epoch].without(part[group, None]))
            members = epochs[epoch][group * k : (group + 1) * k]
            squares_of_vectors = _total(of_vectors, epoch, of_vectors[epoch].without(members))
            if squares_of_means[1] and squares_of_vectors[1] and squares_of_vectors[0] > 0:
                variances = [squares / degrees for squares, degrees in (squares_of_means, squares_of_vectors)]
                without.append(k * variances[0] / variances[1])
    count = len(without)
    if count < 2:
        return math.nan
    middle = math.fsum(without) / count
    return math.sqrt((count - 1) / count * math.fsum((ratio - middle) ** 2 for ratio in without))


class _Squares:
    """Squared deviations from the mean of an epoch's vectors, with and without some of them."""

    def __init__(self, vectors: Tensor) -> None:
        self._count = len(vectors)
        # About one of them: far from their mean, the difference of squares would lose its digits.
        self._origin = vectors[0] if self._count else vectors.new_zeros(vectors.shape[1])
        self._sum = (vectors - self._origin).sum(0)
        self._squares = float((vectors - self._origin).square().sum())

    def whole(self) -> tuple[float, int]:
        """Their sum and its degrees of freedom."""
        return self._deviations(self._squares, self._sum, self._count)

    def without(self, some: Tensor) -> tuple[float, int]:
        some = some - self._origin
        return self._deviations(
            self._squares - float(some.square().sum()), self._sum - some.sum(0), self._count - len(some)
        )

    @staticmethod
    def _deviations(squares: float, total: Tensor, count: int) -> tuple[float, int]:
        return (squares - float(total.square().sum()) / count, count - 1) if count > 1 else (0.0, 0)


def _total(parts: list[_Squares], changed: int, instead: tuple[float, int]) -> tuple[float, int]:
    """The sum over the epochs, one of them changed."""
    every = [instead if number == changed else part.whole() for number, part in enumerate(parts)]
    return math.fsum(squares for squares, _ in every), sum(degrees for _, degrees in every)

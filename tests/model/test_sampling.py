"""Where the sampler's randomness comes from, and its promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megdet.data.splitmix import GAMMA, mix
from megdet.model.sampling import IGNORED, Samples, Stream, candidate_keys, sample_balanced

CPU = torch.device("cpu")


def draw(labels: Tensor, keys: list[int], num_samples: int = 8, positive_fraction: float = 0.25) -> Samples:
    return sample_balanced(
        labels,
        image_keys=keys,
        stream=Stream.RPN,
        num_samples=num_samples,
        positive_fraction=positive_fraction,
    )


def of_image(samples: Samples, image: int) -> list[tuple[int, bool]]:
    mine = samples.image == image
    return list(zip(samples.candidate[mine].tolist(), samples.positive[mine].tolist(), strict=True))


@pytest.mark.parametrize("image_key", [0, 1, 12345, 2**63 + 17, 2**64 - 1])
def test_the_keys_are_splitmix64_of_the_image_the_stream_and_the_place(image_key: int) -> None:
    keys = candidate_keys([image_key], Stream.ROI, 50, CPU)[0].tolist()
    start = mix(image_key + Stream.ROI * GAMMA)
    assert [key % 2**64 for key in keys] == [mix(start + (place + 1) * GAMMA) for place in range(50)]


def test_an_images_sample_depends_neither_on_its_batch_mates_nor_on_padding() -> None:
    labels = torch.randint(-1, 3, (3, 200), generator=torch.Generator().manual_seed(0))
    together = draw(torch.cat((labels, torch.full((3, 40), IGNORED)), dim=1), [5, 6, 7])
    for image, key in enumerate((5, 6, 7)):
        assert of_image(together, image) == of_image(draw(labels[image : image + 1], [key]), 0)


def test_global_random_state_is_neither_read_nor_changed() -> None:
    labels = torch.randint(-1, 3, (2, 100))
    torch.manual_seed(1)
    first, state = draw(labels, [1, 2]), torch.get_rng_state()
    torch.manual_seed(2)
    second = draw(labels, [1, 2])
    assert torch.equal(first.candidate, second.candidate)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_streams_and_images_draw_different_samples() -> None:
    keys = torch.cat(
        [candidate_keys([0, 1], stream, 100, CPU) for stream in Stream] + [candidate_keys([2], Stream.RPN, 100, CPU)]
    )
    assert len(keys.unique()) == keys.numel()


@pytest.mark.parametrize(
    ("positives", "negatives", "taken"),
    [(50, 50, (2, 6)), (1, 50, (1, 7)), (0, 50, (0, 8)), (50, 3, (2, 3)), (50, 0, (2, 0)), (0, 0, (0, 0))],
)
def test_negatives_make_up_for_missing_positives_and_nothing_for_missing_negatives(
    positives: int, negatives: int, taken: tuple[int, int]
) -> None:
    labels = torch.tensor([[3] * positives + [0] * negatives + [IGNORED] * 10])
    samples = draw(labels, [9], num_samples=8, positive_fraction=0.25)
    assert (int(samples.positive.sum()), int((~samples.positive).sum())) == taken
    chosen = labels[0, samples.candidate]
    assert torch.equal(chosen > 0, samples.positive)
    assert bool((chosen >= 0).all())
    assert len(samples.candidate.unique()) == sum(taken)


def test_the_weights_of_an_image_add_up_to_one() -> None:
    labels = torch.tensor([[1] * 4 + [0] * 30, [0] * 5 + [IGNORED] * 29])
    samples = draw(labels, [1, 2])
    sums = torch.zeros(2).index_add(0, samples.image, samples.weight)
    torch.testing.assert_close(sums, torch.ones(2))
    assert samples.weight[samples.image == 1].tolist() == pytest.approx([1 / 5] * 5)


def test_every_candidate_is_sampled_equally_often() -> None:
    labels = torch.zeros((4000, 40), dtype=torch.int64)
    samples = draw(labels, list(range(4000)), num_samples=10)
    counts = samples.candidate.bincount(minlength=40).double()
    # 4000 draws of 10 in 40: mean 1000, standard deviation 27.4 a candidate.
    assert float((counts - 1000).abs().max()) < 5 * 27.4


def test_an_image_without_candidates_has_no_samples() -> None:
    assert len(draw(torch.empty((2, 0), dtype=torch.int64), [1, 2]).candidate) == 0

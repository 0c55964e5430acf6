"""The searches for an edge, against thresholds that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from megdet.sweep.bisection import REACH, Edge, Search, fewest_stable, largest_stable


def answered(search: Search, is_stable: Callable[[float], bool]) -> tuple[Edge, list[float]]:
    """What a search comes to, and what it has tried."""
    tried = []
    value = next(search)
    while True:
        tried.append(value)
        try:
            value = search.send(is_stable(value))
        except StopIteration as over:
            return over.value, tried


@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.999, 1.0, 1.7, 3.0, 60.0])
@pytest.mark.parametrize("within", [1.05, 1.25, 2.0])
def test_the_largest_stable_value_is_enclosed_to_the_factor_that_was_asked_for(threshold: float, within: float) -> None:
    edge, tried = answered(largest_stable(1.0, within=within), lambda value: value <= threshold)
    assert edge.stable is not None and edge.diverged is not None
    assert edge.stable <= threshold < edge.diverged <= edge.stable * within
    # Doublings until it is enclosed by a factor of 2, and then halvings of the logarithm.
    doublings = abs(math.log2(threshold)) + 2
    halvings = math.ceil(math.log2(math.log(2) / math.log(within)))
    assert len(tried) <= doublings + halvings + 1
    assert len(set(tried)) == len(tried)


def test_where_nothing_diverges_or_nothing_is_stable_the_search_ends() -> None:
    edge, tried = answered(largest_stable(0.5, within=1.25), lambda value: True)
    assert edge == Edge(0.5 * REACH, None) and len(tried) == 7
    edge, tried = answered(largest_stable(0.5, within=1.25), lambda value: False)
    assert edge == Edge(None, 0.5 / REACH) and len(tried) == 7


@pytest.mark.parametrize("threshold", [1, 2, 3, 17, 100, 101, 400])
@pytest.mark.parametrize("within", [1.0001, 1.25])
def test_the_fewest_stable_steps_are_enclosed(threshold: int, within: float) -> None:
    edge, tried = answered(fewest_stable(100, most=400, within=within), lambda value: value >= threshold)
    assert edge.stable is not None and edge.diverged is not None
    assert edge.diverged < threshold <= edge.stable
    assert edge.stable - edge.diverged == 1 or edge.stable <= within * edge.diverged
    assert len(set(tried)) == len(tried)


def test_no_steps_are_tried_first_and_more_than_the_most_are_never() -> None:
    assert answered(fewest_stable(100, most=400, within=1.25), lambda value: True) == (Edge(0, None), [0])
    edge, tried = answered(fewest_stable(100, most=300, within=1.25), lambda value: False)
    assert edge == Edge(None, 300) and tried == [0, 100, 200, 300]

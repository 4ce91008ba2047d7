"""Solvers of graphs against every partition there is, and a slow twin."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DataError
from pipeline.segment.solvers import (
    Solver,
    clusters,
    cut_cost,
    improved_multicut,
    library,
    lifted_multicut,
    multicut,
    mutex_watershed,
)
from tests import oracles
from tests.nifty_stand_in import nifty_stood_in, without_nifty

Drawn = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
NO_ENDS, NO_COSTS = np.zeros((0, 2), np.int64), np.zeros(0)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module", params=get_args(Solver))
def solver(request: pytest.FixtureRequest) -> Iterator[Solver]:
    """Every library; nifty's place is taken where it is not installed."""
    if request.param == "nifty" and not nifty_is_there():
        with nifty_stood_in():
            yield request.param
    else:
        yield request.param


def nifty_is_there() -> bool:
    try:
        import nifty.graph.opt.multicut  # noqa: F401
    except ImportError:
        return False
    return True


def drawn(seed: int, most: int = 9, levels: int | None = None) -> Drawn:
    """Nodes, some of their pairs as edges, the others as lifted ones, both with costs."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, most + 1))
    pairs = np.array(list(combinations(range(count), 2)), np.int64).reshape(-1, 2)
    chosen = rng.random(len(pairs)) < rng.uniform(0.3, 0.9)
    costs = rng.normal(rng.uniform(-0.5, 0.5), 1, len(pairs))
    if levels is not None:
        costs = np.rint(costs * levels) / levels
    return count, pairs[chosen], costs[chosen], pairs[~chosen], costs[~chosen]


def listed(ends: np.ndarray) -> list[oracles.Edge]:
    return [(int(u), int(v)) for u, v in ends]


def optimum(count: int, ends: np.ndarray, all_ends: np.ndarray, costs: np.ndarray) -> float:
    """Least cost of all partitions whose parts are connected by ``ends``."""
    edges, everything, least = listed(ends), listed(all_ends), float("inf")
    for labels in oracles.partitions(count):
        cost = oracles.cut_cost(everything, costs.tolist(), labels)
        if cost < least and all(
            oracles.connected({i for i in range(count) if labels[i] == part}, edges)
            for part in set(labels)
        ):
            least = cost
    return least


def assert_connected_and_named(labels: np.ndarray, ends: np.ndarray) -> None:
    for label in set(labels.tolist()):
        members = set(np.flatnonzero(labels == label).tolist())
        assert label == min(members)
        assert oracles.connected(members, listed(ends))


def test_multicut_is_nearly_always_the_best_of_all_partitions(solver):
    optimal = 0
    for seed in range(60):
        count, ends, costs, _, _ = drawn(seed, 7)
        labels = multicut(count, ends, costs, solver)
        assert_connected_and_named(labels, ends)
        reached = oracles.cut_cost(listed(ends), costs.tolist(), labels.tolist())
        least = optimum(count, ends, ends, costs)
        assert reached >= least - 1e-9
        optimal += reached <= least + 1e-9
    print(f"multicut: {optimal} of 60 optimal")
    assert optimal >= 54


@pytest.mark.slow
def test_on_nine_nodes_too(solver):
    optimal = 0
    for seed in range(40):
        count, ends, costs, lifted, lifted_costs = drawn(seed, 9)
        everything = np.concatenate([ends, lifted]), np.concatenate([costs, lifted_costs])
        plain = cut_cost(ends, costs, multicut(count, ends, costs, solver))
        labels = lifted_multicut(count, ends, costs, lifted, lifted_costs, solver)
        optimal += plain <= optimum(count, ends, ends, costs) + 1e-9
        optimal += cut_cost(*everything, labels) <= optimum(count, ends, *everything) + 1e-9
    print(f"both: {optimal} of 80 optimal")
    assert optimal >= 68


def test_lifted_multicut_is_mostly_the_best_of_all_connected_partitions(solver):
    optimal = 0
    for seed in range(60):
        count, ends, costs, lifted, lifted_costs = drawn(seed, 7)
        everything = np.concatenate([ends, lifted]), np.concatenate([costs, lifted_costs])
        labels = lifted_multicut(count, ends, costs, lifted, lifted_costs, solver)
        assert_connected_and_named(labels, ends)
        least = optimum(count, ends, *everything)
        assert cut_cost(*everything, labels) >= least - 1e-9
        optimal += cut_cost(*everything, labels) <= least + 1e-9
    print(f"lifted multicut: {optimal} of 60 optimal")
    assert optimal >= 51


@given(seeds, st.sampled_from([None, 1, 3]))
def test_no_partition_costs_more_than_all_apart_all_together_or_greed_alone(solver, seed, levels):
    count, ends, costs, lifted, lifted_costs = drawn(seed, 60, levels)
    everything = np.concatenate([ends, lifted]), np.concatenate([costs, lifted_costs])
    greedy = library(solver).greedy(count, ends, costs) if len(ends) else np.arange(count)
    whole = clusters(count, ends, np.zeros(count, np.int64))
    cost = cut_cost(ends, costs, multicut(count, ends, costs, solver))
    assert cost <= min(costs.sum(), 0.0, cut_cost(ends, costs, greedy)) + 1e-9
    labels = lifted_multicut(count, ends, costs, lifted, lifted_costs, solver)
    apart = np.arange(count)
    assert cut_cost(*everything, labels) <= 1e-9 + min(
        cut_cost(*everything, whole), cut_cost(*everything, apart)
    )


@given(seeds)
def test_an_improved_partition_costs_no_more_and_without_lifted_edges_lifting_is_nothing(
    solver, seed
):
    count, ends, costs, _, _ = drawn(seed, 40)
    start = clusters(count, ends, np.random.default_rng(seed).integers(0, 3, count))
    improved = improved_multicut(count, ends, costs, start, solver)
    assert_connected_and_named(improved, ends)
    assert cut_cost(ends, costs, improved) <= cut_cost(ends, costs, start)
    plain = lifted_multicut(count, ends, costs, NO_ENDS, NO_COSTS, solver)
    assert cut_cost(ends, costs, plain) <= min(0.0, costs.sum()) + 1e-9


@given(seeds, st.sampled_from([2, 4, None]), st.sampled_from([9, 40]))
def test_the_mutex_watershed_is_that_of_its_definition(seed, levels, most):
    count, ends, weights, mutex_ends, mutex_weights = drawn(seed, most, levels)
    # Some pairs attract and repel.
    both = slice(0, len(ends) // 3)
    mutex_ends = np.concatenate([mutex_ends, ends[both]])
    mutex_weights = np.concatenate([mutex_weights, weights[::-1][both]])
    labels = mutex_watershed(count, ends, weights, mutex_ends, mutex_weights)
    expected = oracles.mutex_watershed(
        count, listed(ends), weights.tolist(), listed(mutex_ends), mutex_weights.tolist()
    )
    assert labels.tolist() == expected
    assert_connected_and_named(labels, ends)


@given(seeds)
def test_the_order_of_rows_and_of_ends_does_not_matter(solver, seed):
    count, ends, costs, lifted, lifted_costs = drawn(seed, 30, 2)
    rng = np.random.default_rng(seed)

    def shuffled(pairs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = rng.permutation(len(pairs))
        turned = np.where(rng.random(len(pairs))[:, None] < 0.5, pairs[:, ::-1], pairs)
        return turned[order], values[order]

    base, other = (ends, costs), (lifted, lifted_costs)
    again = multicut(count, *shuffled(*base), solver)
    assert np.array_equal(multicut(count, *base, solver), again)
    again = lifted_multicut(count, *shuffled(*base), *shuffled(*other), solver)
    assert np.array_equal(lifted_multicut(count, *base, *other, solver), again)
    again = mutex_watershed(count, *shuffled(*base), *shuffled(*other))
    assert np.array_equal(mutex_watershed(count, *base, *other), again)


def test_of_edges_given_twice_costs_add_and_the_heaviest_weight_counts(solver):
    twice = np.array([[0, 1], [1, 0], [1, 1], [1, 2]])
    assert multicut(3, twice, np.array([2.0, -3.0, 9.0, 1.0]), solver).tolist() == [0, 1, 1]
    assert multicut(3, twice, np.array([3.0, -2.0, -9.0, -1.0]), solver).tolist() == [0, 0, 2]
    repels = np.array([[0, 1], [2, 2]])
    weights = np.array([0.1, 0.6, 0.9, 0.3])
    assert mutex_watershed(3, twice, weights, repels, np.array([0.5, 1.0])).tolist() == [0, 0, 0]
    assert mutex_watershed(3, twice, weights, repels, np.array([0.7, 1.0])).tolist() == [0, 1, 1]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_without_edges_all_nodes_stay_alone(solver, count):
    expected = list(range(count))
    assert multicut(count, NO_ENDS, NO_COSTS, solver).tolist() == expected
    alone = improved_multicut(count, NO_ENDS, NO_COSTS, np.arange(count), solver)
    assert alone.tolist() == expected
    pull = (np.array([[0, 1]]), np.ones(1)) if count > 1 else (NO_ENDS, NO_COSTS)
    assert lifted_multicut(count, NO_ENDS, NO_COSTS, *pull, solver).tolist() == expected
    for solve in (lifted_multicut, mutex_watershed):
        assert solve(count, NO_ENDS, NO_COSTS, NO_ENDS, NO_COSTS).tolist() == expected


def test_costs_of_zero_join_nobody(solver):
    chain = np.array([[0, 1], [1, 2]])
    assert multicut(4, chain, np.zeros(2), solver).tolist() == [0, 1, 2, 3]
    assert lifted_multicut(4, chain, np.zeros(2), NO_ENDS, NO_COSTS, solver).tolist() == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("cost", [np.inf, -np.inf, np.nan])
def test_costs_that_are_not_finite_are_refused(cost):
    edge, costs = np.array([[0, 1]]), np.array([cost])
    for solve in (lifted_multicut, mutex_watershed):
        with pytest.raises(DataError, match="must be finite"):
            solve(2, edge, np.ones(1), edge, costs)
    with pytest.raises(DataError, match="must be finite"):
        multicut(2, edge, costs)


@pytest.mark.parametrize("edge", [[0, 2], [-1, 1]])
def test_edges_to_no_node_are_refused(edge):
    with pytest.raises(DataError, match="two of 2 nodes"):
        multicut(2, np.array([edge]), np.ones(1))


def digest() -> str:
    """Of what all three solvers make of a larger graph."""
    count, ends, costs, lifted, lifted_costs = drawn(11, 400, 3)
    found = [
        multicut(count, ends, costs),
        lifted_multicut(count, ends, costs, lifted[:5000], lifted_costs[:5000]),
        mutex_watershed(count, ends, costs, lifted, lifted_costs),
    ]
    return hashlib.sha256(np.concatenate(found).tobytes()).hexdigest()


def test_another_process_and_another_time_give_the_same_bits():
    program = "from tests.test_solvers import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest() == digest()


@pytest.mark.parametrize("other", [False, True], ids=["absent", "another nifty"])
def test_a_solver_that_is_not_installed_is_refused_with_a_way_to_get_it(
    other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_nifty():
        # PyPI's nifty is another program, without graphs.
        monkeypatch.setitem(sys.modules, "nifty", ModuleType("nifty") if other else None)
        with pytest.raises(ConfigError, match="conda install -c conda-forge nifty"):
            library("nifty")
        monkeypatch.undo()


def test_both_libraries_are_asked_the_same() -> None:
    # The stand-in answers as bioimage-cpp does: a difference would be in the problem posed.
    for seed in range(40):
        count, ends, costs, lifted, lifted_costs = drawn(seed, 30)
        # Some lifted edges lie over edges.
        lifted = np.concatenate([lifted, ends[::3]])
        lifted_costs = np.concatenate([lifted_costs, -costs[::3]])
        start = np.random.default_rng(seed).integers(0, 3, count)

        with nifty_stood_in():
            theirs = [
                multicut(count, ends, costs, "nifty"),
                improved_multicut(count, ends, costs, start, "nifty"),
                lifted_multicut(count, ends, costs, lifted, lifted_costs, "nifty"),
            ]
        ours = [
            multicut(count, ends, costs),
            improved_multicut(count, ends, costs, start),
            lifted_multicut(count, ends, costs, lifted, lifted_costs),
        ]
        for one, another in zip(ours, theirs, strict=True):
            assert np.array_equal(one, another), seed

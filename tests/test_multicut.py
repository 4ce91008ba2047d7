"""Multicut, lifted multicut and mutex watershed of region graphs; small segments."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Offsets
from pipeline.graph import Assignment, FragmentSizes, RegionGraph
from pipeline.segment.contacts import Contacts
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.multicut import (
    edge_costs,
    lifted_multicut_segments,
    multicut_energy,
    multicut_segments,
    solve_contracted,
    solve_domain,
)
from pipeline.segment.mutex import mutex_watershed_segments
from pipeline.segment.small import merge_small
from tests import oracles
from tests.drawn import LONG, drawn_affinities, drawn_labels

seeds = st.integers(0, 2**32)
betas = st.sampled_from([0.1, 0.5, 0.7])
WEIGHTINGS = ("none", "contacts", "populations")


def graph_of(rows: Mapping[oracles.Edge, tuple[int, ...]]) -> RegionGraph:
    """From (direct sum, direct count, long sum, long count, across count) of each edge."""
    edges = sorted(rows)
    columns = [np.array([rows[edge][n] for edge in edges], np.uint64) for n in range(5)]
    u, v = (np.array([edge[end] for edge in edges], np.uint64) for end in (0, 1))
    total, count, long_sum, long_count, across = columns
    return RegionGraph(
        u=u, v=v, direct_sum=total, direct_count=count, long_sum=long_sum, long_count=long_count,
        across_count=across,
    )  # fmt: skip


def sizes_of(*sizes: int) -> FragmentSizes:
    return FragmentSizes(np.arange(1, len(sizes) + 1, dtype=np.uint64), np.array(sizes, np.uint64))


def drawn(seed: int, shape: tuple[int, ...] = (5, 17, 20)) -> tuple[RegionGraph, FragmentSizes]:
    """A graph with every kind of contact."""
    rng = np.random.default_rng(seed)
    fragments = drawn_labels(shape, seed, spacing=4)
    # Objects of a few fragments each, so that there is something to join.
    objects = (fragments % np.uint64(rng.integers(2, 9))) + np.uint64(1)
    affinities = drawn_affinities(objects, LONG, seed)
    spread = rng.integers(1, 2**50, int(fragments.max()) + 1, dtype=np.uint64).cumsum()
    fragments = spread[fragments]
    return region_edges(affinities, fragments, Offsets.of(LONG)), fragment_sizes(fragments)


def cost(p: float, beta: float) -> float:
    p = 0.001 + 0.998 * p
    return math.log((1 - p) / p) + math.log((1 - beta) / beta)


def test_costs_are_log_odds_of_the_mean_affinity_weighted_by_contacts():
    graph = graph_of({
        (1, 2): (510, 2, 0, 0, 2),    # affinity 1, two contacts across sections
        (1, 3): (0, 8, 100, 4, 0),    # 0, eight within
        (2, 3): (255, 4, 0, 0, 4),    # 1/4, four across
        (2, 4): (408, 2, 0, 0, 1),    # 4/5, both ways: counts as within
        (3, 4): (0, 0, 99, 3, 0),     # seen from afar only
    })  # fmt: skip
    exact = [cost(0.0, 0.3), cost(1.0, 0.3), cost(0.75, 0.3), cost(0.2, 0.3), 0.0]
    shares = {
        "none": [1, 1, 1, 1, 0],
        "contacts": [2 / 8, 8 / 8, 4 / 8, 2 / 8, 0],
        "populations": [2 / 4, 8 / 8, 4 / 4, 2 / 8, 0],
    }
    for weighting, weights in shares.items():
        found = edge_costs(graph, 0.3, weighting)
        assert np.allclose(found, np.multiply(exact, weights), rtol=1e-14, atol=0), weighting


def test_a_higher_beta_never_raises_a_cost():
    graph, _ = drawn(1)
    for weighting in WEIGHTINGS:
        costs = np.array([edge_costs(graph, beta, weighting) for beta in (0.1, 0.5, 0.9)])
        assert (np.diff(costs, axis=0) <= 0).all()


def test_long_range_contacts_lift_and_prohibit():
    # 1 - 2 - 3 in a row; the ends are seen from afar to be two objects.
    chain = {(1, 2): (230, 1, 0, 0, 0), (2, 3): (200, 1, 0, 0, 0), (1, 3): (0, 0, 0, 9, 0)}
    graph, sizes = graph_of(chain), sizes_of(5, 5, 5, 7)
    assert multicut_segments(graph, sizes, 0.5, "none").segment.tolist() == [1, 1, 1, 4]
    lifted = lifted_multicut_segments(graph, sizes, 0.5, "none")
    assert lifted.segment.tolist() == [1, 1, 3, 4]
    assert mutex_watershed_segments(graph, sizes).segment.tolist() == [1, 1, 3, 4]
    # And pull from afar joins nobody that is not connected by direct contacts.
    pull = graph_of({(1, 2): (0, 0, 2550, 10, 0)})
    for segments in (
        lifted_multicut_segments(pull, sizes, 0.5, "none"),
        mutex_watershed_segments(pull, sizes),
    ):
        assert segments.segment.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("sizes", [sizes_of(), sizes_of(3), sizes_of(3, 1, 2)])
def test_fragments_that_nothing_touches_stay_what_they_are(sizes, weighting):
    graph = graph_of({})
    domain = solve_domain(graph, edge_costs(graph, 0.5, weighting), sizes.fragment)
    for found in (
        multicut_segments(graph, sizes, 0.5, weighting),
        lifted_multicut_segments(graph, sizes, 0.5, weighting),
        mutex_watershed_segments(graph, sizes),
        domain,
        solve_contracted(graph, edge_costs(graph, 0.5, weighting), [domain]),
        merge_small(graph, sizes, Assignment(sizes.fragment, sizes.fragment), 10),
    ):
        assert np.array_equal(found.fragment, sizes.fragment)
        assert np.array_equal(found.segment, sizes.fragment)


def assert_named(found: Assignment, sizes: FragmentSizes) -> None:
    """A row for each fragment; a segment has the name of its smallest."""
    assert np.array_equal(found.fragment, sizes.fragment)
    for segment in np.unique(found.segment):
        assert found.fragment[found.segment == segment].min() == segment


@given(seeds, betas, st.sampled_from(WEIGHTINGS))
def test_segments_are_named_and_cost_what_they_are_said_to(seed, beta, weighting):
    graph, sizes = drawn(seed)
    costs = edge_costs(graph, beta, weighting)
    found = multicut_segments(graph, sizes, beta, weighting)
    assert_named(found, sizes)
    assert_named(lifted_multicut_segments(graph, sizes, beta, weighting), sizes)
    assert_named(mutex_watershed_segments(graph, sizes), sizes)
    segment = dict(zip(found.fragment.tolist(), found.segment.tolist(), strict=True))
    edges = list(zip(graph.u.tolist(), graph.v.tolist(), strict=True))
    expected = sum(
        c for (u, v), c in zip(edges, costs.tolist(), strict=True) if segment[u] != segment[v]
    )
    assert multicut_energy(graph, costs, found) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert expected <= 0


@given(seeds, betas, st.sampled_from(WEIGHTINGS), st.integers(1, 6), st.integers(1, 3))
def test_solving_what_domains_leave_costs_less_than_the_domains_by_themselves(
    seed, beta, weighting, count, grids
):
    graph, sizes = drawn(seed)
    costs = edge_costs(graph, beta, weighting)
    rng = np.random.default_rng(seed)
    solved = []
    for _ in range(grids):
        number = rng.integers(0, count, len(sizes))
        segment = np.zeros(len(sizes), np.uint64)
        for n in range(count):
            domain = solve_domain(graph, costs, sizes.fragment[number == n])
            assert np.array_equal(domain.fragment, sizes.fragment[number == n])
            assert np.isin(domain.segment, domain.fragment).all()
            segment[number == n] = domain.segment
        solved.append(Assignment(sizes.fragment, segment))
    found = solve_contracted(graph, costs, solved)
    assert_named(found, sizes)
    again = solve_contracted(graph, costs, solved[::-1])
    assert np.array_equal(found.segment, again.segment)
    # How near the energy is to that of one solution is measured on real data: configs/README.md.
    apart = multicut_energy(graph, costs, Assignment(sizes.fragment, sizes.fragment))
    assert multicut_energy(graph, costs, found) <= apart + 1e-9
    if grids == 1:
        domains = multicut_energy(graph, costs, solved[0])
        assert multicut_energy(graph, costs, found) <= domains + 1e-9


def test_domains_that_disagree_leave_a_contact_open():
    # A chain of three that attract; one grid joins it all, the other sees no contact at all.
    graph, sizes = (
        graph_of({(1, 2): (250, 1, 0, 0, 0), (2, 3): (250, 1, 0, 0, 0)}),
        sizes_of(1, 1, 1),
    )
    joined = Assignment(sizes.fragment, np.full(3, 1, np.uint64))
    apart = Assignment(sizes.fragment, sizes.fragment)
    for repel in (1.0, -1.0):
        costs = np.full(2, repel)
        # Costs that repel undo a joint merge of all grids too: no domain is final.
        expected = [1, 1, 1] if repel > 0 else [1, 2, 3]
        for grids in ([joined, apart], [joined, joined], [apart]):
            assert solve_contracted(graph, costs, grids).segment.tolist() == expected


@given(seeds, st.sampled_from(WEIGHTINGS))
def test_contacts_around_a_few_fragments_are_all_that_a_domain_needs(seed, weighting):
    graph, sizes = drawn(seed)
    contacts = Contacts.of_graph(graph, sizes.fragment)
    rng = np.random.default_rng(seed)
    members = sizes.fragment[rng.random(len(sizes)) < rng.uniform(0, 0.4)]
    edges = list(
        zip(graph.u.tolist(), graph.v.tolist(), (graph.direct_count > 0).tolist(), strict=True)
    )
    mine = set(members.tolist())
    near = mine.union(*({u, v} for u, v, direct in edges if direct and {u, v} & mine))
    expected = [n for n, (u, v, direct) in enumerate(edges) if direct and {u, v} <= near]
    found = contacts.around(members)
    assert np.array_equal(found.u, graph.u[expected])
    assert np.array_equal(found.v, graph.v[expected])
    costs = edge_costs(graph, 0.3, weighting)
    few = edge_costs(found, 0.3, weighting, contacts.index.largest)
    assert np.array_equal(few, costs[expected])
    whole, part = solve_domain(graph, costs, members), solve_domain(found, few, members)
    assert np.array_equal(whole.segment, part.segment)


def test_one_domain_is_the_whole():
    graph, sizes = drawn(3)
    costs = edge_costs(graph, 0.4, "contacts")
    whole = multicut_segments(graph, sizes, 0.4, "contacts")
    domain = solve_domain(graph, costs, sizes.fragment)
    assert np.array_equal(domain.segment, whole.segment)
    contracted = solve_contracted(graph, costs, [domain])
    one, other = (multicut_energy(graph, costs, each) for each in (whole, contracted))
    assert other <= one


@given(seeds, st.sampled_from([0, 3, 20, 90, 10**6]))
def test_small_segments_join_as_by_counting_anew_each_time(seed, below):
    graph, sizes = drawn(seed)
    before = multicut_segments(graph, sizes, 0.5, "none")
    if seed % 2:
        background = before.segment == before.segment.max()
        before = Assignment(before.fragment, np.where(background, np.uint64(0), before.segment))
    found = merge_small(graph, sizes, before, below)
    edges = {
        (u, v): oracles.Contact(direct_sum=total, direct_count=count)
        for u, v, total, count in zip(
            *(c.tolist() for c in (graph.u, graph.v, graph.direct_sum, graph.direct_count)),
            strict=True,
        )
    }
    named = dict(zip(before.fragment.tolist(), before.segment.tolist(), strict=True))
    voxels = dict(zip(sizes.fragment.tolist(), sizes.size_vx.tolist(), strict=True))
    expected = oracles.merged_small(edges, voxels, named, below)
    assert dict(zip(found.fragment.tolist(), found.segment.tolist(), strict=True)) == expected


def test_the_smallest_goes_first_and_joins_the_strongest_neighbour():
    graph = graph_of(
        {(1, 2): (90, 1, 0, 0, 0), (2, 3): (320, 4, 0, 0, 0), (3, 4): (50, 1, 0, 0, 0)}
    )
    sizes = sizes_of(50, 2, 3, 60)
    alone = Assignment(sizes.fragment, sizes.fragment)
    # 2 joins 1 by mean 90 against 80; then 3 joins them by 80 against 50.
    assert merge_small(graph, sizes, alone, 10).segment.tolist() == [1, 1, 1, 4]
    assert merge_small(graph, sizes, alone, 3).segment.tolist() == [1, 1, 3, 4]
    assert merge_small(graph, sizes, alone, 0).segment.tolist() == [1, 2, 3, 4]

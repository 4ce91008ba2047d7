"""One rule leads from the region graph to segments, whatever the method."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, Roi
from pipeline.graph import FragmentSizes, Histograms, RegionGraph
from pipeline.segment.domains import SHIFTED, boxes, members_of
from pipeline.segment.edges import contact_histograms, fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, fragments
from pipeline.segment.multicut import edge_costs, multicut_energy
from pipeline.segment.segments import BUILT_IN, Rule, merge_tree, segments_at, segments_of
from tests import oracles
from tests.drawn import LONG, drawn_affinities, drawn_labels

METHODS = tuple(BUILT_IN)
SHAPE = (5, 17, 20)
DOMAINS = BlockGrid(Roi((3, -2, 50), SHAPE), ZYX(2, 9, 8))
VALUES = (0.1, 0.35, 0.6, 0.8)


def drawn(seed: int) -> tuple[np.ndarray, RegionGraph, FragmentSizes, Histograms]:
    """Fragments of noisy cells, and their tables."""
    affinities = drawn_affinities(drawn_labels(SHAPE, seed, spacing=6), LONG, seed)
    found = fragments(affinities, FragmentRule(Nm.of([40, 8, 8]), per_section=False))
    graph = region_edges(affinities, found, Offsets.of(LONG))
    return found, graph, fragment_sizes(found), contact_histograms(affinities, found)


@given(st.tuples(*(st.integers(3, side + 2) for side in SHAPE)), st.integers(0, 2**32))
def test_in_every_grid_a_fragment_belongs_to_the_domain_of_the_voxel_it_is_named_after(sides, seed):
    ids = 1 + np.random.default_rng(seed).choice(np.prod(SHAPE), 60, replace=False)
    ids = np.sort(ids).astype(np.uint64)
    domains = replace(DOMAINS, block_vx=ZYX.of(sides))
    begin = np.array(domains.total.begin)
    place = np.stack(np.unravel_index(ids.astype(int) - 1, SHAPE), 1)
    found: dict[int, list[tuple[int, ...]]] = {}
    for block in domains:
        for grid, box in boxes(domains, block):
            members = members_of(ids, domains.total, box)
            low, high = np.array(box.begin) - begin, np.array(box.end) - begin
            inside = (place >= low).all(1) & (place < high).all(1)
            assert members.tolist() == ids[inside].tolist()
            found.setdefault(grid, []).extend(members.tolist())
            found[grid].sort()
            # All faces of a grid that is shifted along an axis are half a domain lower there.
            for axis, side in enumerate(sides):
                face, lower = box.begin[axis] - begin[axis], side // 2 * SHIFTED[grid][axis]
                assert face == 0 or (face + lower) % side == 0
    assert all(each == ids.tolist() for each in found.values())
    assert 0 in found
    assert len(found) == 4 or any(side >= length for side, length in zip(sides, SHAPE, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_other_values_of_a_sweep_are_those_of_a_run_with_that_value(method):
    _, graph, sizes, histograms = drawn(3)
    rule = Rule(method, weighting="populations", domains=DOMAINS, merge_small_vx=9, dust_vx=5)
    tree = merge_tree(rule, graph, sizes, histograms)
    if rule.parameter is None:
        assert method == "mutex_watershed"
        return
    swept = dict(segments_at(rule, VALUES, tree, sizes, graph))
    assert len({found.segment.tobytes() for found in swept.values()}) > 1
    for value, found in swept.items():
        alone = replace(rule, **{rule.parameter: value})
        anew = merge_tree(alone, graph, sizes, histograms)
        expected = segments_of(alone, anew, sizes, graph)
        assert np.array_equal(found.segment, expected.segment), value


@pytest.mark.parametrize("method", METHODS)
def test_segments_of_a_tree_are_cut_then_small_ones_join_then_dust_is_dropped(method):
    labels, graph, sizes, histograms = drawn(4)
    rule = Rule(method, threshold=0.1, beta=0.7)
    tree = merge_tree(rule, graph, sizes, histograms)
    merges = [oracles.Merge(*row) for row in zip(tree.a, tree.b, tree.score, strict=True)]
    cut = 0.1 if rule.parameter == "threshold" else 1.0
    voxels = oracles.sizes(labels)
    names = oracles.cut(merges, voxels, cut, 0)
    columns = (column.tolist() for column in graph.columns().values())
    edges = {(u, v): oracles.Contact(*contact) for u, v, *contact in zip(*columns, strict=True)}
    below = sorted(voxels_of(names, voxels).values())[1] + 1
    joined = oracles.merged_small(edges, voxels, names, below)
    left = voxels_of(joined, voxels)
    dust = min(left.values()) + 1
    expected = {f: name if left[name] >= dust else 0 for f, name in joined.items()}
    assert len(set(names.values())) > len(left) > len(set(expected.values()) - {0}) > 1

    rule = replace(rule, merge_small_vx=below, dust_vx=dust)
    found = segments_of(rule, tree, sizes, graph)
    assert dict(zip(found.fragment.tolist(), found.segment.tolist(), strict=True)) == expected


def voxels_of(names: dict[int, int], sizes: dict[int, int]) -> Counter[int]:
    found: Counter[int] = Counter()
    for fragment, name in names.items():
        found[name] += sizes[fragment]
    return found


@pytest.mark.parametrize("weighting", ["none", "contacts", "populations"])
def test_domains_cost_about_what_the_whole_does(weighting):
    _, graph, sizes, _ = drawn(5)
    rule = Rule("multicut", beta=0.8, weighting=weighting)
    costs = edge_costs(graph, 0.8, weighting)

    def energy(rule: Rule) -> float:
        segments = segments_of(rule, merge_tree(rule, graph, sizes), sizes)
        return multicut_energy(graph, costs, segments)

    whole = energy(rule)
    assert whole < 0
    assert energy(replace(rule, domains=DOMAINS)) <= whole + 0.02 * abs(whole)
    one = BlockGrid(DOMAINS.total, ZYX.of(SHAPE))
    assert energy(replace(rule, domains=one)) <= whole

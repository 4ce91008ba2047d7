"""The merge tree is that of its definition, and of waterz where waterz has one answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.geometry import Nm, Offsets
from pipeline.graph import (
    Assignment,
    FragmentSizes,
    Histograms,
    MergeTree,
    RegionGraph,
    sum_rows,
)
from pipeline.segment.affinities import affinities_from_interior
from pipeline.segment.agglomerate import mean_affinity_tree, quantile_tree
from pipeline.segment.edges import contact_histograms, fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, fragments
from tests import oracles

REAL = Path(__file__).parents[2] / "shared" / "data"
# No mean of few bytes is one of these, so no score lies on a threshold.
THRESHOLDS = (0.0517, 0.1234, 0.2345, 0.3456, 0.4567, 0.5432, 0.6543, 0.8765)


def graph_of(edges: Mapping[oracles.Edge, tuple[float, int]]) -> RegionGraph:
    """A graph of direct contacts; sums may be floats."""
    ordered = sorted(edges)
    u, v = (np.array([edge[end] for edge in ordered], np.uint64) for end in (0, 1))
    total = np.array([edges[edge][0] for edge in ordered])
    count = np.array([edges[edge][1] for edge in ordered], np.uint64)
    none = np.zeros_like(count)
    return RegionGraph(u, v, total, count, none, none, none)


def rows(tree: MergeTree) -> list[oracles.Merge]:
    columns = (tree.a.tolist(), tree.b.tolist(), tree.score.tolist())
    return [oracles.Merge(*row) for row in zip(*columns, strict=True)]


def random_graph(rng: np.random.Generator, nodes: int, edges: int, levels: int, contacts: int):
    ids = np.unique(rng.integers(1, 2**60, nodes)).tolist()
    found = {}
    for _ in range(edges):
        u, v = sorted(rng.integers(0, len(ids), 2).tolist())
        if u != v:
            count = int(rng.integers(1, contacts + 1))
            level = int(rng.integers(0, levels)) * 255 // max(1, levels - 1)
            found[ids[u], ids[v]] = (level * count, count)
    return found


def test_the_strongest_contact_goes_first_and_what_it_joins_is_averaged():
    #  1 --240-- 2
    #   \       /      1 and 2 merge; their contacts with 3 become one, of mean (100 + 3 * 20) / 4.
    #   100   20 (of 3 pairs)
    #     \  /
    #       3
    tree = mean_affinity_tree(graph_of({(1, 2): (240, 1), (1, 3): (100, 1), (2, 3): (60, 3)}))
    assert rows(tree) == [
        oracles.Merge(1, 2, 1.0 - 240 / 255.0),
        oracles.Merge(1, 3, 1.0 - 40 / 255.0),
    ]


def test_of_equal_contacts_the_one_with_the_smallest_edge_goes_first():
    tree = mean_affinity_tree(graph_of({(3, 4): (99, 1), (1, 4): (198, 2), (2, 3): (99, 1)}))
    assert [(merge.a, merge.b) for merge in rows(tree)] == [(1, 4), (2, 3), (1, 2)]


def test_long_range_contacts_alone_do_not_merge():
    none, some = np.zeros(1, np.uint64), np.full(1, 9, np.uint64)
    graph = RegionGraph(np.array([1], "u8"), np.array([2], "u8"), none, none, none, some, some)
    assert rows(mean_affinity_tree(graph)) == []


def test_a_graph_without_edges_has_an_empty_tree():
    tree = mean_affinity_tree(graph_of({}))
    sizes = FragmentSizes(np.array([4, 9], np.uint64), np.array([1, 5], np.uint64))
    assert len(tree) == 0
    assert tree.cut(1.0, sizes, 2).segment.tolist() == [0, 9]


@given(
    st.integers(2, 40),
    st.integers(1, 150),
    st.sampled_from((1, 2, 3, 8, 256)),
    st.sampled_from((1, 2, 50)),
    st.integers(0, 2**32),
)
def test_trees_are_those_of_the_twin(nodes, edges, levels, contacts, seed):
    drawn = random_graph(np.random.default_rng(seed), nodes, edges, levels, contacts)
    tree = mean_affinity_tree(graph_of(drawn))
    assert rows(tree) == oracles.merges(drawn)[0]
    assert (np.diff(tree.score) >= 0).all()


@pytest.mark.parametrize(("levels", "seed"), [(2, 1), (31, 2), (256, 3)])
def test_a_tree_outgrows_its_first_hash_table(levels, seed):
    drawn = random_graph(np.random.default_rng(seed), 300, 4000, levels, 20)
    assert rows(mean_affinity_tree(graph_of(drawn))) == oracles.merges(drawn)[0]


@given(
    st.integers(2, 30),
    st.integers(0, 60),
    st.sampled_from((0.0, 0.3, 0.5, 1.0)),
    st.integers(0, 40),
    st.integers(0, 2**32),
)
def test_a_cut_makes_every_merge_below_the_threshold_and_drops_dust(
    nodes, edges, threshold, dust_vx, seed
):
    rng = np.random.default_rng(seed)
    drawn = random_graph(rng, nodes, edges, 5, 3)
    lonely = rng.integers(1, 2**60, 3).tolist()
    ids = sorted({end for edge in drawn for end in edge} | set(lonely))
    sizes = dict(zip(ids, rng.integers(1, 20, len(ids)).tolist(), strict=True))
    table = FragmentSizes(np.array(ids, np.uint64), np.array(list(sizes.values()), np.uint64))
    found = mean_affinity_tree(graph_of(drawn)).cut(threshold, table, dust_vx)
    assert dict(zip(found.fragment.tolist(), found.segment.tolist(), strict=True)) == (
        oracles.cut(oracles.merges(drawn)[0], sizes, threshold, dust_vx)
    )


@given(st.integers(2, 30), st.integers(1, 80), st.integers(0, 2**32))
def test_a_higher_threshold_only_merges_more(nodes, edges, seed):
    drawn = random_graph(np.random.default_rng(seed), nodes, edges, 9, 4)
    ids = np.array(sorted({end for edge in drawn for end in edge}), np.uint64)
    tree, sizes = mean_affinity_tree(graph_of(drawn)), FragmentSizes(ids, np.ones_like(ids))
    finer = tree.cut(0.0, sizes)
    assert np.array_equal(finer.segment, ids)
    for threshold in (0.2, 0.5, 0.8, 1.1):
        coarser = tree.cut(threshold, sizes)
        assert np.array_equal(coarser.apply(finer.segment), coarser.segment)
        finer = coarser


# Quantiles


def histograms_of(drawn: Mapping[oracles.Edge, Mapping[int, int]]) -> Histograms:
    rows = [(*edge, *row) for edge in sorted(drawn) for row in sorted(drawn[edge].items())]
    return Histograms(*np.array(rows, np.uint64).reshape(-1, 4).T)


def random_histograms(
    rng: np.random.Generator, nodes: int, edges: int, levels: int, contacts: int
) -> dict[oracles.Edge, dict[int, int]]:
    drawn = random_graph(rng, nodes, edges, 2, contacts)
    steps = np.arange(levels) * 255 // max(1, levels - 1)
    return {
        edge: dict(zip(*(n.tolist() for n in np.unique(values, return_counts=True)), strict=True))
        for edge, (_, count) in drawn.items()
        for values in [rng.choice(steps, count)]
    }


def test_the_quantile_is_that_of_all_contacts_of_two_regions():
    drawn = {(1, 2): {250: 1}, (1, 3): {10: 1, 90: 3}, (2, 3): {20: 2, 80: 1}}
    for percent, affinity in ((50, 80), (75, 90), (85, 90)):
        assert rows(quantile_tree(histograms_of(drawn), percent)) == [
            oracles.Merge(1, 2, 1.0 - 250 / 255.0),
            oracles.Merge(1, 3, 1.0 - affinity / 255.0),
        ]


def test_histograms_without_rows_have_an_empty_tree():
    assert rows(quantile_tree(histograms_of({}), 50)) == []


@given(
    st.integers(2, 30),
    st.integers(1, 120),
    st.sampled_from((1, 2, 5, 256)),
    st.sampled_from((1, 2, 7, 40)),
    st.sampled_from((50, 75, 85)),
    st.integers(0, 2**32),
)
def test_quantile_trees_are_those_of_the_twin(nodes, edges, levels, contacts, percent, seed):
    drawn = random_histograms(np.random.default_rng(seed), nodes, edges, levels, contacts)
    tree = quantile_tree(histograms_of(drawn), percent)
    assert rows(tree) == oracles.quantile_merges(drawn, percent)[0]
    assert (np.diff(tree.score) >= 0).all()


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=30),
    st.lists(st.integers(0, 255), min_size=1, max_size=30),
    st.integers(0, 99),
)
def test_a_quantile_of_joined_contacts_lies_between_theirs(one, other, percent):
    spreads = [oracles.Spread((1, 2), tuple(sorted(each)), percent) for each in (one, other)]
    joined = spreads[0].with_(spreads[1]).affinity
    assert min(s.affinity for s in spreads) <= joined <= max(s.affinity for s in spreads)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.sampled_from((0.1, 1.0)))
def test_a_partition_is_a_tree_that_any_threshold_cuts_into_it(clusters, threshold):
    ids = np.cumsum(1 + np.array(clusters)).astype(np.uint64)
    segments = np.array([ids[clusters.index(cluster)] for cluster in clusters], np.uint64)
    tree = MergeTree.of_partition(Assignment(ids, segments))
    found = tree.cut(threshold, FragmentSizes(ids, np.ones_like(ids)))
    assert found.segment.tolist() == segments.tolist()
    assert not tree.score.any()


# waterz


def waterz(
    affinities: np.ndarray, labels: np.ndarray, thresholds=THRESHOLDS, **scoring: str
) -> list[np.ndarray]:
    pytest.importorskip("waterz")
    from pipeline.segment.whole import waterz_segmentations

    return list(waterz_segmentations(affinities, labels, thresholds, **scoring))


def contacts(steps: np.ndarray, labels: np.ndarray) -> dict[oracles.Edge, tuple[float, int]]:
    """Sums and counts of direct contacts, of affinities in steps of 1/255 that may be fractions."""
    base = np.uint64(2**32)
    keys, values = [], []
    for axis in range(3):
        one, other = (np.moveaxis(labels, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        differ = one != other
        keys.append((np.minimum(one, other) * base + np.maximum(one, other))[differ])
        values.append(np.moveaxis(steps[axis], axis, 0)[1:][differ].astype(np.float64))
    edges, index, counts = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights=np.concatenate(values))
    return {
        (int(edge // base), int(edge % base)): (float(total), int(count))
        for edge, total, count in zip(edges, sums, counts, strict=True)
    }


def cells(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Fragments around random points."""
    points = rng.uniform(0, shape, (count, 3))
    places = np.stack(np.indices(shape), -1)[..., None, :]
    return (((places - points) ** 2).sum(-1).argmin(-1) + 1).astype(np.uint64)


def test_where_no_two_contacts_tie_partitions_are_those_of_waterz():
    kept = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(6, 14, 3).tolist())
        labels = cells(rng, shape, int(rng.integers(20, 40)))
        affinities = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
        # Some contacts are strong, others weak, so that thresholds tell them apart.
        affinities //= rng.integers(1, 5, int(labels.max()) + 1).astype(np.uint8)[labels]
        graph = region_edges(affinities, labels, Offsets())
        columns = (graph.u, graph.v, graph.direct_sum, graph.direct_count)
        edges = {
            (u, v): (total, n)
            for u, v, total, n in zip(*(column.tolist() for column in columns), strict=True)
        }
        # waterz has means in float32, with 24 bits: closer ones are ties to it.
        if oracles.merges(edges)[1] < 1e-3:
            continue
        kept += 1
        tree, sizes = mean_affinity_tree(graph), fragment_sizes(labels)
        for threshold, theirs in zip(THRESHOLDS, waterz(affinities, labels), strict=True):
            ours = tree.cut(threshold, sizes).apply(labels)
            assert oracles.same_partition(ours, theirs), (seed, threshold)
    print(f"waterz: {kept} random cases without ties")
    assert kept >= 30


@pytest.mark.parametrize("percent", [50, 75, 85])
def test_where_no_two_contacts_tie_quantiles_are_those_of_waterz(percent):
    kept = 0
    # Between two steps of uint8, and between the 256 bins of waterz.
    thresholds = [1 - step / 256 for step in (240, 200, 150, 110, 80, 50, 20)]
    scoring = f"OneMinus<HistogramQuantileAffinity<RegionGraphType, {percent}, ScoreValue, 256,"
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = cells(rng, (6, 8, 7), int(rng.integers(6, 11)))
        affinities = rng.integers(0, 256, (3, *labels.shape)).astype(np.uint8)
        affinities //= rng.integers(1, 5, int(labels.max()) + 1).astype(np.uint8)[labels]
        if oracles.quantile_merges(oracles.histograms(affinities, labels), percent)[1] < 1:
            continue
        kept += 1
        tree = quantile_tree(contact_histograms(affinities, labels), percent)
        found = waterz(affinities, labels, thresholds, scoring=f"{scoring} false>>")
        for threshold, theirs in zip(thresholds, found, strict=True):
            ours = tree.cut(threshold, fragment_sizes(labels)).apply(labels)
            assert oracles.same_partition(ours, theirs), (seed, threshold)
    print(f"waterz: {kept} random cases without ties")
    assert kept >= 30


def real_volume(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Affinities of a real probability map, and its fragments numbered from 1."""
    path = REAL / f"{name}.h5"
    if not path.exists():
        pytest.skip(f"real data are not here: {path}")
    with h5py.File(path) as file:
        if name == "gala_train":
            interior = 1 - file["volumes/boundary_probability"][:]
            rule = FragmentRule(Nm.of([10, 10, 10]), per_section=False)
        else:
            interior = file["volumes/interior_probability"][:] / np.float32(255)
            rule = FragmentRule(Nm.of([30, 6, 6]), per_section=True)
    affinities = affinities_from_interior(interior, Offsets())
    _, numbers = np.unique(fragments(affinities, rule), return_inverse=True)
    return affinities, (numbers.reshape(interior.shape) + 1).astype(np.uint64)


@pytest.mark.parametrize("name", ["gala_train", "snemi_mini"])
def test_on_real_volumes_without_ties_partitions_are_those_of_waterz(name):
    affinities, labels = real_volume(name)
    rng = np.random.default_rng(1)
    low, high = np.maximum(-0.49, -affinities.astype(float)), np.minimum(0.49, 255.0 - affinities)
    jittered = ((affinities + rng.uniform(low, high)) / 255).astype(np.float32)
    tree = mean_affinity_tree(graph_of(contacts(jittered.astype(np.float64) * 255, labels)))
    sizes = fragment_sizes(labels)
    for threshold, theirs in zip(THRESHOLDS, waterz(jittered, labels), strict=True):
        ours = tree.cut(threshold, sizes).apply(labels)
        assert oracles.same_partition(ours, theirs), threshold


@pytest.mark.parametrize("name", ["gala_train", "snemi_mini", "few_levels"])
def test_with_ties_we_are_as_near_to_waterz_as_waterz_with_other_ids_is_to_itself(name):
    rng = np.random.default_rng(2)
    if name == "few_levels":
        labels = cells(rng, (14, 24, 26), 300)
        affinities = (rng.integers(0, 4, (3, *labels.shape)) * 85).astype(np.uint8)
        affinities[:, labels % np.uint64(3) == 0] //= 2
    else:
        affinities, labels = real_volume(name)
    ids, first, sizes_vx = np.unique(labels, return_index=True, return_counts=True)

    def of_fragments(segmentation: np.ndarray) -> np.ndarray:
        return segmentation.ravel()[first]

    def voi(one: np.ndarray, other: np.ndarray) -> float:
        table = sum_rows((one + np.uint64(1), other + np.uint64(1)), (sizes_vx.astype("u8"),))
        return Scores.of(Contingency(*table)).voi

    runs = []
    for _ in range(10):
        permuted = np.concatenate([[0], 1 + rng.permutation(len(ids))]).astype(np.uint64)
        runs.append([of_fragments(found) for found in waterz(affinities, permuted[labels])])
    tree = mean_affinity_tree(region_edges(affinities, labels, Offsets()))
    sizes = fragment_sizes(labels)
    plain = [of_fragments(found) for found in waterz(affinities, labels)]
    for number, threshold in enumerate(THRESHOLDS):
        their = [run[number] for run in runs]
        spread = max(voi(one, other) for one in their for other in their)
        ours = voi(tree.cut(threshold, sizes).segment, plain[number])
        print(f"{name} at {threshold}: ours {ours:.5f} bits, waterz' spread {spread:.5f} bits")
        assert ours <= spread + 1e-12, threshold

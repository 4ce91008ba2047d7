"""The theorem this project is built on: blocks decide speed, never results.

Every function on arrays is called block by block, with the boxes that the stages read and own, and
compared bit for bit with a whole-volume twin from ``oracles`` that shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from pipeline.evaluate.contingency import Contingency
from pipeline.geometry import ZYX, Block, BlockGrid, Nm, Offsets, Roi
from pipeline.graph import Assignment, FragmentSizes, Histograms, MergeTree, RegionGraph
from pipeline.segment import basins
from pipeline.segment.agglomerate import mean_affinity_tree
from pipeline.segment.downsample import most_frequent
from pipeline.segment.edges import contact_histograms, fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, block_fragments, fragments, heights
from pipeline.segment.segments import BUILT_IN, Rule, merge_tree, segments_of
from tests import oracles, score_oracles

DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
NEIGHBOURHOODS = (
    DIRECT,
    (*DIRECT, (-4, 0, 0), (0, -9, 0), (0, 0, -27)),
    (*DIRECT, (-2, 0, 0), (0, -9, 0), (0, 0, -9), (-1, -3, -7), (0, -27, 0)),
    (*DIRECT, (-3, 0, 0), (1, -2, 5), (0, 4, -9), (2, 3, 1)),
)
SIZES_NM = ((10, 10, 10), (40, 8, 8), ("4.04", "4.04", "4.04"), (30, 6, 6), (16, 9, "12.5"))


@dataclass(frozen=True)
class Tiling:
    """A volume somewhere in the world, in at least three blocks along each axis."""

    shape: tuple[int, ...]
    block_vx: ZYX
    begin: tuple[int, ...]
    seed: int

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def blocks(self, below: ZYX, above: ZYX) -> tuple[BlockGrid, list[Block]]:
        """The grid, and its blocks in any order."""
        grid = BlockGrid(Roi(self.begin, self.shape), self.block_vx, below, above)
        assert min(grid.counts) >= 3
        order = self.rng().permutation(len(grid))
        return grid, [grid[int(index)] for index in order]

    def index(self, roi: Roi) -> tuple[slice, ...]:
        """Where a region lies in an array of the whole volume."""
        return tuple(
            slice(int(low) - b, int(high) - b)
            for low, high, b in zip(roi.begin, roi.end, self.begin, strict=True)
        )


@st.composite
def tilings(draw: st.DrawFn, longest: tuple[int, int, int] = (4, 5, 7)) -> Tiling:
    block = [draw(st.integers(1, side)) for side in longest]
    shape = [side * draw(st.sampled_from((2, 2, 3))) + draw(st.integers(1, side)) for side in block]
    assume(len(set(shape)) == 3)
    begin = draw(st.tuples(*(st.integers(-50, 50),) * 3))
    return Tiling(tuple(shape), ZYX.of(block), begin, draw(st.integers(0, 2**32)))


# Heights


def noise(tiling: Tiling, levels: int) -> np.ndarray:
    """Few levels make plateaus of every shape."""
    return tiling.rng().integers(0, levels, tiling.shape).astype(np.uint16)


def snake(tiling: Tiling, level_length: int) -> np.ndarray:
    """A corridor that winds through every second row of a section, downhill all the way.

        > > > > v     Its heights fall by one every ``level_length`` voxels, walls are high.
        # # # # v
        v < < < <
        v # # # #
        > > > > >

    The first axis of the drawing is any axis of the volume, in either direction.
    """
    rng = tiling.rng()
    axes = rng.permutation(3)
    found = np.full(tiling.shape, 60_000, np.uint16)
    view = np.moveaxis(found, axes, (0, 1, 2))
    for axis in range(3):
        view = np.flip(view, axis) if rng.random() < 0.5 else view
    path = []
    for row in range(0, view.shape[1], 2):
        columns = range(view.shape[2]) if row % 4 == 0 else range(view.shape[2] - 1, -1, -1)
        path += [(row, column) for column in columns]
        if row + 1 < view.shape[1]:
            path.append((row + 1, columns[-1]))
    for section in view[::2]:
        for step, place in enumerate(path):
            section[place] = 50_000 - step // level_length
    return found


def ramp(tiling: Tiling, level_length: int) -> np.ndarray:
    """Terraces across the volume."""
    rng = tiling.rng()
    slope = rng.integers(-3, 4, 3)
    total = sum(s * place for s, place in zip(slope, np.indices(tiling.shape), strict=True))
    return ((total - total.min()) // level_length).astype(np.uint16)


def plain(tiling: Tiling, dents: int) -> np.ndarray:
    """One plateau with few voxels above or below it."""
    rng = tiling.rng()
    found = np.full(tiling.shape, 500, np.uint16)
    places = tuple(rng.integers(0, n, dents) for n in tiling.shape)
    found[places] = rng.choice([499, 501, 501, 900], dents)
    return found


def masks(tiling: Tiling, share: float, boxed: bool) -> np.ndarray:
    """A mask that leaves a share of the voxels, single ones or a box away."""
    rng = tiling.rng()
    if not boxed:
        return rng.random(tiling.shape) < share
    found = np.ones(tiling.shape, bool)
    found[tuple(slice(0, int(n * (1 - share))) for n in tiling.shape)] = False
    return found


some_masks = st.tuples(st.sampled_from((1.0, 1.0, 0.9, 0.5)), st.booleans())
some_heights = st.one_of(
    st.tuples(st.just(noise), st.sampled_from((1, 2, 3, 5, 1000))),
    st.tuples(st.just(snake), st.sampled_from((1, 2, 5, 11))),
    st.tuples(st.just(ramp), st.sampled_from((1, 3, 8))),
    st.tuples(st.just(plain), st.integers(0, 12)),
)


def tiled_basins(
    tiling: Tiling, height: np.ndarray, valid: np.ndarray, in_plane: bool
) -> np.ndarray:
    halo = ZYX(0 if in_plane else basins.HALO_VX, basins.HALO_VX, basins.HALO_VX)
    _, blocks = tiling.blocks(halo, halo)
    labels = np.zeros(tiling.shape, np.uint64)
    seams = []
    for block in blocks:
        here = tiling.index(block.read)
        origin = tuple(part.start for part in here)
        labels[tiling.index(block.write)], seam = basins.basins(
            height[here], valid[here], block.inner, origin, tiling.shape, in_plane
        )
        seams.append(seam)
    return basins.resolve(seams).apply(labels)


@given(tilings(), some_heights, some_masks, st.booleans())
def test_basins_do_not_depend_on_the_tiling(tiling, drawn, mask, in_plane):
    make, parameter = drawn
    height, valid = make(tiling, parameter), masks(tiling, *mask)
    expected = oracles.watershed(height, valid, in_plane)
    assert np.array_equal(tiled_basins(tiling, height, valid, in_plane), expected.labels)


@given(tilings(), st.sampled_from((1, 2, 5, 11)), st.booleans())
def test_chains_longer_than_several_blocks_find_their_bottom(tiling, level_length, in_plane):
    height, valid = snake(tiling, level_length), np.ones(tiling.shape, bool)
    expected = oracles.watershed(height, valid, in_plane)
    assume(expected.longest_chain > 2 * max(tiling.block_vx))
    assert np.array_equal(tiled_basins(tiling, height, valid, in_plane), expected.labels)


@given(tilings(), st.integers(0, 5), some_masks)
def test_plateaus_wider_than_a_block_have_one_bottom(tiling, dents, mask):
    height, valid = plain(tiling, dents), masks(tiling, *mask)
    expected = oracles.watershed(height, valid, False)
    assume(expected.widest_plateau > max(tiling.block_vx))
    assert np.array_equal(tiled_basins(tiling, height, valid, False), expected.labels)


# Fragments


def drawn_affinities(tiling: Tiling, channels: int, levels: int, smooth: float) -> np.ndarray:
    """Random affinities: all bytes, or few of them, or larger objects with membranes between."""
    rng = tiling.rng()
    found = rng.random((channels, *tiling.shape))
    if smooth:
        found = gaussian_filter(found, (0, smooth, smooth, smooth))
        found -= found.min()
        found /= found.max()
    return np.rint(np.rint(found * (levels - 1)) * 255 / (levels - 1)).astype(np.uint8)


some_affinities = st.tuples(st.sampled_from((2, 3, 6, 256)), st.sampled_from((0.0, 0.8, 1.5)))


@st.composite
def rules(draw: st.DrawFn) -> FragmentRule:
    return FragmentRule(
        Nm.of(draw(st.sampled_from(SIZES_NM))),
        per_section=draw(st.booleans()),
        narrow_nm=draw(st.sampled_from((0.0, 3.0, 7.5))),
        wide_nm=draw(st.sampled_from((0.0, 8.0, 13.0, 30.0))),
        wide_share=draw(st.sampled_from((0.0, 0.4, 1.0))),
    )


def oracle_heights(affinities: np.ndarray, rule: FragmentRule) -> np.ndarray:
    return oracles.heights(
        affinities[:3],
        [float(size) for size in rule.voxel_size_nm],
        rule.per_section,
        rule.narrow_nm,
        rule.wide_nm,
        rule.wide_share,
    )


def tiled_fragments(
    tiling: Tiling, affinities: np.ndarray, valid: np.ndarray, rule: FragmentRule
) -> np.ndarray:
    """As ``FragmentsBlockwise``, ``ResolveFragments`` and the first step of ``EdgesBlockwise``."""
    _, blocks = tiling.blocks(rule.halo_below_vx, rule.halo_above_vx)
    labels = np.zeros(tiling.shape, np.uint64)
    seams = []
    for block in blocks:
        here = tiling.index(block.read)
        labels[tiling.index(block.write)], seam = block_fragments(
            affinities[(slice(3), *here)],
            valid[here],
            block.inner,
            tuple(part.start for part in here),
            tiling.shape,
            rule,
        )
        seams.append(seam)
    return basins.resolve(seams).apply(labels)


@given(tilings(longest=(4, 5, 9)), some_affinities, rules())
def test_heights_do_not_depend_on_the_tiling(tiling, drawn, rule):
    affinities = drawn_affinities(tiling, 3, *drawn)
    expected = oracle_heights(affinities, rule)
    _, blocks = tiling.blocks(rule.halo_below_vx, rule.halo_above_vx)
    reach = (0 if rule.per_section else basins.HALO_VX, basins.HALO_VX, basins.HALO_VX)
    for block in blocks:
        here = tiling.index(block.read)
        origin = tuple(part.start for part in here)
        found = heights(affinities[(slice(None), *here)], origin, rule)
        needed = tuple(
            slice(max(0, part.start - r), min(n, part.stop + r))
            for part, r, n in zip(tiling.index(block.write), reach, tiling.shape, strict=True)
        )
        inside = tuple(slice(s.start - o, s.stop - o) for s, o in zip(needed, origin, strict=True))
        assert np.array_equal(found[inside], expected[needed])


@given(tilings(), some_affinities, rules(), some_masks)
def test_fragments_do_not_depend_on_the_tiling(tiling, drawn, rule, mask):
    affinities, valid = drawn_affinities(tiling, 3, *drawn), masks(tiling, *mask)
    expected = oracles.watershed(oracle_heights(affinities, rule), valid, rule.per_section).labels
    assert np.array_equal(tiled_fragments(tiling, affinities, valid, rule), expected)
    assert np.array_equal(fragments(affinities, rule, valid), expected)


# Edges


def drawn_ids(tiling: Tiling, distinct: int) -> np.ndarray:
    """Patches of ids from everywhere below 2^60, with background."""
    rng = tiling.rng()
    ids = np.concatenate([[0], rng.integers(1, 2**60, distinct)]).astype(np.uint64)
    patches = rng.integers(0, len(ids), [-(-n // 2) for n in tiling.shape])
    whole = patches.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    return ids[whole[tuple(slice(n) for n in tiling.shape)]]


def columns_of(edges: dict[oracles.Edge, oracles.Contact]) -> RegionGraph:
    rows = [
        (u, v, c.direct_sum, c.direct_count, c.across_count, c.long_sum, c.long_count)
        for (u, v), c in edges.items()
    ]
    return RegionGraph(*np.array(rows, np.uint64).reshape(-1, 7).T)


def assert_equal_tables(found, expected):
    for name, column in expected.columns().items():
        assert found.columns()[name].dtype == column.dtype, name
        assert np.array_equal(found.columns()[name], column), name


def tiled_edges(
    tiling: Tiling, affinities: np.ndarray, labels: np.ndarray, offsets: Offsets
) -> tuple[RegionGraph, FragmentSizes]:
    """As ``EdgesBlockwise``: affinities of the block itself, fragments with a halo."""
    _, blocks = tiling.blocks(offsets.halo_below_vx, offsets.halo_above_vx)
    graphs, sizes = [], []
    for block in blocks:
        here = labels[tiling.index(block.read)]
        values = np.zeros((len(offsets), *here.shape), np.uint8)
        values[(slice(None), *block.inner)] = affinities[(slice(None), *tiling.index(block.write))]
        graphs.append(region_edges(values, here, offsets, block.inner))
        sizes.append(fragment_sizes(here[block.inner]))
    return RegionGraph.sum_of(graphs), FragmentSizes.sum_of(sizes)


@given(
    tilings(longest=(3, 5, 11)),
    st.sampled_from(NEIGHBOURHOODS),
    st.sampled_from((1, 4, 30)),
    some_affinities,
)
def test_edges_do_not_depend_on_the_tiling(tiling, vectors, distinct, drawn):
    offsets = Offsets.of(vectors)
    affinities = drawn_affinities(tiling, len(offsets), *drawn)
    labels = drawn_ids(tiling, distinct)
    graph, sizes = tiled_edges(tiling, affinities, labels, offsets)
    expected = columns_of(oracles.region_edges(affinities, labels, vectors))
    assert_equal_tables(graph, expected)
    assert_equal_tables(region_edges(affinities, labels, offsets), expected)
    assert dict(zip(sizes.fragment.tolist(), sizes.size_vx.tolist(), strict=True)) == (
        oracles.sizes(labels)
    )
    assert all(u < v for u, v in zip(graph.u, graph.v, strict=True))
    assert all(a < b for a, b in pairwise(zip(graph.u.tolist(), graph.v.tolist(), strict=True)))


def tiled_histograms(tiling: Tiling, affinities: np.ndarray, labels: np.ndarray) -> Histograms:
    """As ``HistogramsBlockwise``."""
    _, blocks = tiling.blocks(Offsets().halo_below_vx, Offsets().halo_above_vx)
    tables = []
    for block in blocks:
        here = labels[tiling.index(block.read)]
        values = np.zeros((3, *here.shape), np.uint8)
        values[(slice(None), *block.inner)] = affinities[(slice(3), *tiling.index(block.write))]
        tables.append(contact_histograms(values, here, block.inner))
    return Histograms.sum_of(tables)


@given(tilings(longest=(3, 5, 11)), st.sampled_from((1, 4, 30)), some_affinities)
def test_histograms_do_not_depend_on_the_tiling(tiling, distinct, drawn):
    affinities, labels = drawn_affinities(tiling, 3, *drawn), drawn_ids(tiling, distinct)
    rows = [
        (*edge, affinity, contacts)
        for edge, counts in oracles.histograms(affinities, labels).items()
        for affinity, contacts in counts.items()
    ]
    expected = Histograms(*np.array(rows, np.uint64).reshape(-1, 4).T)
    assert_equal_tables(tiled_histograms(tiling, affinities, labels), expected)
    assert_equal_tables(contact_histograms(affinities, labels), expected)


# Scores and coarser levels


@given(tilings(), st.sampled_from((1, 4, 30)), st.integers(0, 3))
def test_contingency_does_not_depend_on_the_tiling(tiling, distinct, shift):
    segments = drawn_ids(tiling, distinct)
    truth = np.roll(drawn_ids(tiling, 1 + distinct // 2), shift, axis=2)
    _, blocks = tiling.blocks(ZYX(0, 0, 0), ZYX(0, 0, 0))
    table = Contingency.sum_of(
        Contingency.count(segments[tiling.index(b.write)], truth[tiling.index(b.write)])
        for b in blocks
    )
    rows = [(s, t, n) for (s, t), n in score_oracles.contingency(segments, truth).items()]
    expected = Contingency(*np.array(rows, np.uint64).reshape(-1, 3).T)
    assert_equal_tables(table, expected)

    ids = np.unique(segments[segments > 0])
    assignment = Assignment(ids, tiling.rng().permutation(ids) % np.uint64(5))
    assert_equal_tables(
        table.relabel(assignment), Contingency.count(assignment.apply(segments), truth)
    )


@given(tilings(), st.sampled_from(((1, 2, 2), (2, 2, 2), (2, 1, 2), (1, 1, 1))))
def test_coarser_levels_do_not_depend_on_the_tiling(tiling, factors):
    labels = drawn_ids(tiling, 3)
    labels[tiling.rng().random(labels.shape) < 0.3] = 7
    coarse_shape = tuple(-(-n // f) for n, f in zip(labels.shape, factors, strict=True))
    grid = BlockGrid(Roi((0, 0, 0), coarse_shape), tiling.block_vx)
    found = np.zeros(coarse_shape, np.uint64)
    for block in grid:
        begin, end = block.write.begin, block.write.end
        fine = tuple(slice(b * f, e * f) for b, e, f in zip(begin, end, factors, strict=True))
        here = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
        found[here] = most_frequent(labels[fine], ZYX.of(factors))
    assert np.array_equal(found, oracles.most_frequent(labels, factors))


# All of it


@given(
    tilings(longest=(3, 4, 5)),
    some_affinities,
    rules(),
    some_masks,
    st.sampled_from(NEIGHBOURHOODS),
    st.sampled_from((0.0, 0.3, 0.5, 0.8, 1.0)),
    st.sampled_from((0, 2, 20)),
)
def test_segmentations_do_not_depend_on_the_tiling(
    tiling, drawn, rule, mask, vectors, threshold, dust_vx
):
    offsets = Offsets.of(vectors)
    affinities, valid = drawn_affinities(tiling, len(offsets), *drawn), masks(tiling, *mask)
    labels = tiled_fragments(tiling, affinities, valid, rule)
    graph, sizes = tiled_edges(tiling, affinities, labels, offsets)
    tree = mean_affinity_tree(graph)
    segments = tree.cut(threshold, sizes, dust_vx).apply(labels)

    whole = oracles.watershed(oracle_heights(affinities, rule), valid, rule.per_section).labels
    assert np.array_equal(labels, whole)
    edges = oracles.region_edges(affinities, whole, vectors)
    assert_equal_tables(graph, columns_of(edges))
    merges, _ = oracles.merges(oracles.direct(edges))
    assert_equal_tables(tree, tree_of(merges))
    names = oracles.cut(merges, oracles.sizes(whole), threshold, dust_vx)
    assert np.array_equal(segments, oracles.relabelled(whole, names))


@given(
    tilings(longest=(3, 4, 5)),
    some_affinities,
    st.sampled_from(NEIGHBOURHOODS[1:]),
    st.sampled_from(tuple(BUILT_IN)),
    st.sampled_from((None, 1, 2)),
    st.sampled_from(("none", "populations")),
)
def test_no_method_depends_on_the_tiling(tiling, drawn, vectors, method, domain, weighting):
    offsets = Offsets.of(vectors)
    affinities = drawn_affinities(tiling, len(offsets), *drawn)
    labels = fragments(affinities, FragmentRule(Nm.of((40, 8, 8)), per_section=False))
    graph, sizes = tiled_edges(tiling, affinities, labels, offsets)
    histograms = tiled_histograms(tiling, affinities, labels)
    domains = None
    if domain is not None:
        # Domains are a tiling of their own, which belongs to the numbers.
        sides = ZYX(*(-(-n // (domain + 1)) for n in tiling.shape))
        domains = BlockGrid(Roi(tiling.begin, tiling.shape), sides)
    rule = Rule(method, threshold=0.4, quantile=75, weighting=weighting, domains=domains)
    rule = replace(rule, merge_small_vx=6, dust_vx=2)
    tree = merge_tree(rule, graph, sizes, histograms)

    edges = columns_of(oracles.region_edges(affinities, labels, vectors))
    whole = FragmentSizes(*np.array(list(oracles.sizes(labels).items()), np.uint64).T)
    expected = merge_tree(rule, edges, whole, contact_histograms(affinities, labels))
    assert_equal_tables(tree, expected)
    assert_equal_tables(
        segments_of(rule, tree, sizes, graph), segments_of(rule, expected, whole, edges)
    )


def tree_of(merges: list[oracles.Merge]) -> MergeTree:
    return MergeTree(
        np.array([merge.a for merge in merges], np.uint64),
        np.array([merge.b for merge in merges], np.uint64),
        np.array([merge.score for merge in merges], np.float64),
    )

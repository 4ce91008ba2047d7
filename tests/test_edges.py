"""Every contact is counted, once, and nothing else is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Offsets
from pipeline.graph import Histograms, RegionGraph
from pipeline.segment.edges import contact_histograms, fragment_sizes, region_edges
from tests import oracles

DIRECT = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]


def rows(graph: RegionGraph | Histograms) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in graph.columns().values()), strict=True))


def twin_rows(affinities, fragments, vectors) -> list[tuple[int, ...]]:
    return [
        (*edge, c.direct_sum, c.direct_count, c.across_count, c.long_sum, c.long_count)
        for edge, c in oracles.region_edges(affinities, fragments, vectors).items()
    ]


def test_sums_and_counts_of_a_drawn_row():
    #             1 1|2 2 . 3|1    voxel x holds the affinity to x - 1, then that to x - 3
    fragments = np.array([[[1, 1, 2, 2, 0, 3, 1]]], np.uint64)
    affinities = np.zeros((4, 1, 1, 7), np.uint8)
    affinities[2, 0, 0] = [255, 200, 90, 210, 255, 255, 30]
    affinities[3, 0, 0] = [255, 255, 255, 8, 16, 32, 64]
    offsets = Offsets.of([*DIRECT, (0, 0, -3)])
    assert rows(region_edges(affinities, fragments, offsets)) == [
        (1, 2, 90, 1, 0, 8 + 64, 2),
        (1, 3, 30, 1, 0, 0, 0),
        (2, 3, 0, 0, 0, 32, 1),
    ]


def test_a_pair_belongs_to_the_block_that_owns_its_voxel():
    fragments = np.array([[[1, 2]]], np.uint64)
    affinities = np.full((3, 1, 1, 2), 77, np.uint8)
    whole = slice(0, 1)
    lower = region_edges(affinities, fragments, Offsets(), (whole, whole, slice(0, 1)))
    upper = region_edges(affinities, fragments, Offsets(), (whole, whole, slice(1, 2)))
    assert rows(lower) == []
    assert rows(upper) == [(1, 2, 77, 1, 0, 0, 0)]


def test_what_is_stored_at_a_voxel_without_partner_is_never_read():
    rng = np.random.default_rng(4)
    fragments = rng.integers(0, 5, (4, 5, 6)).astype(np.uint64)
    offsets = Offsets.of([*DIRECT, (-2, 0, 1), (0, 3, 0)])
    affinities = rng.integers(0, 256, (5, 4, 5, 6)).astype(np.uint8)
    changed = affinities.copy()
    for channel, offset in enumerate(offsets.vectors):
        for voxel in oracles.voxels(fragments.shape):
            if not oracles.is_in(oracles.plus(voxel, offset), fragments.shape):
                changed[(channel, *voxel)] ^= 255
    assert (changed != affinities).any()
    assert rows(region_edges(affinities, fragments, offsets)) == rows(
        region_edges(changed, fragments, offsets)
    )


def twin_histograms(affinities, fragments) -> list[tuple[int, ...]]:
    return [
        (*edge, affinity, contacts)
        for edge, counts in oracles.histograms(affinities, fragments).items()
        for affinity, contacts in counts.items()
    ]


def test_a_graph_outgrows_its_first_hash_table():
    rng = np.random.default_rng(5)
    fragments = rng.permutation(12**3).reshape(12, 12, 12).astype(np.uint64) * np.uint64(2**50)
    affinities = rng.integers(0, 256, (3, 12, 12, 12)).astype(np.uint8)
    found = rows(region_edges(affinities, fragments, Offsets()))
    assert len(found) > 4000
    assert found == twin_rows(affinities, fragments, DIRECT)
    bins = rows(contact_histograms(affinities, fragments))
    assert len(bins) > 4000
    assert bins == twin_histograms(affinities, fragments)


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 9)),
    st.lists(
        st.tuples(*(st.integers(-9, 9),) * 3).filter(lambda o: any(o) and o not in DIRECT),
        unique=True,
        max_size=4,
    ),
    st.integers(1, 12),
    st.integers(0, 2**32),
)
def test_edges_and_sizes_are_those_of_the_twin(shape, more, distinct, seed):
    rng = np.random.default_rng(seed)
    vectors = [*DIRECT, *more]
    ids = np.concatenate([[0], rng.integers(1, 2**60, distinct)]).astype(np.uint64)
    fragments = rng.choice(ids, shape)
    affinities = rng.integers(0, 256, (len(vectors), *shape)).astype(np.uint8)
    graph = region_edges(affinities, fragments, Offsets.of(vectors))
    assert rows(graph) == twin_rows(affinities, fragments, vectors)
    histograms = contact_histograms(affinities, fragments)
    assert rows(histograms) == twin_histograms(affinities, fragments)
    for table in (graph, histograms):
        assert {column.dtype for column in table.columns().values()} == {np.dtype(np.uint64)}
    sizes = fragment_sizes(fragments)
    assert dict(zip(sizes.fragment.tolist(), sizes.size_vx.tolist(), strict=True)) == (
        oracles.sizes(fragments)
    )

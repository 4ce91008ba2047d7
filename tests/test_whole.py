"""References that see a whole volume, each against a check that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from bioimage_cpp import graph as library
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import Offsets
from pipeline.segment.sections import MIN_SIZE_VX, multicut_of_sections, section_fragments
from pipeline.segment.voxel_mutex import voxel_mutex_watershed
from pipeline.segment.whole import SCORINGS, waterz_segmentations
from tests import oracles
from tests.drawn import DIRECT, drawn_affinities, drawn_labels

FAR = (*DIRECT, (-2, 0, 0), (0, -3, 0), (0, 0, -2), (1, 2, -1))


def voxel_pairs(
    affinities: np.ndarray, offsets: tuple[tuple[int, ...], ...], strides: tuple[int, ...]
) -> tuple[list[oracles.Edge], list[float], list[oracles.Edge], list[float]]:
    """Attractive and repulsive pairs of voxels with weights; of equal weights the order is ours."""
    shape = affinities.shape[1:]
    number = np.arange(np.prod(shape)).reshape(shape)
    pairs: list[list[tuple[oracles.Edge, float]]] = [[], []]
    for channel, offset in enumerate(offsets):
        repels = channel >= 3
        for voxel in oracles.voxels(shape):
            partner = oracles.plus(voxel, offset)
            strided = any(n % stride for n, stride in zip(voxel, strides, strict=True))
            if not oracles.is_in(partner, shape) or (repels and strided):
                continue
            value = float(affinities[(channel, *voxel)])
            edge = (int(number[voxel]), int(number[partner]))
            pairs[repels].append((edge, 255 - value if repels else value))
    (edges, weights), (mutex_edges, mutex_weights) = (zip(*rows, strict=True) for rows in pairs)
    return list(edges), list(weights), list(mutex_edges), list(mutex_weights)


def in_order(*pairs: list[float]) -> list[list[float]]:
    """Weights made distinct in the order of rows, so that no two tie in the twin."""
    total = sum(len(weights) for weights in pairs)
    numbers = iter(range(total))
    return [[weight - next(numbers) / (total + 1) for weight in weights] for weights in pairs]


@settings(max_examples=30)
@given(
    st.integers(0, 2**32),
    st.sampled_from([2, 9, 256]),
    st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 1, 3)]),
)
def test_the_voxel_mutex_watershed_is_that_of_its_definition(seed, levels, strides):
    rng = np.random.default_rng(seed)
    shape = (2, 4, 5)
    values = rng.integers(0, levels, (len(FAR), *shape)) * (255 // (levels - 1))
    affinities = values.astype(np.uint8)
    labels = voxel_mutex_watershed(affinities, Offsets.of(FAR), strides)
    edges, weights, mutex_edges, mutex_weights = voxel_pairs(affinities, FAR, strides)
    weights, mutex_weights = in_order(weights, mutex_weights)
    twin = oracles.mutex_watershed(labels.size, edges, weights, mutex_edges, mutex_weights)
    assert oracles.same_partition(labels, np.array(twin).reshape(shape))
    assert labels.min() > 0


def noisy(shape: tuple[int, ...] = (4, 70, 83), seed: int = 3) -> np.ndarray:
    return drawn_affinities(drawn_labels(shape, seed, spacing=16), DIRECT, seed)


def test_superpixels_of_a_section_depend_on_it_alone_and_are_not_small():
    affinities = noisy()
    fragments = section_fragments(affinities)
    assert fragments.min() == 1
    assert np.array_equal(np.unique(fragments), np.arange(1, fragments.max() + 1))
    for z in range(len(fragments)):
        alone = section_fragments(affinities[:, z : z + 1])[0]
        assert oracles.same_partition(fragments[z], alone)
        assert np.bincount(alone.ravel().astype(int))[1:].min() >= MIN_SIZE_VX
        assert len(np.unique(alone)) > 4
        assert not np.isin(fragments[z], np.delete(fragments, z, axis=0)).any()


def test_affinities_towards_other_sections_and_beyond_the_rim_do_not_touch_superpixels():
    affinities = noisy()
    changed = affinities.copy()
    changed[0] = 255 - changed[0]
    changed[1, :, 0] ^= 255
    changed[2, :, :, 0] ^= 255
    assert np.array_equal(section_fragments(affinities), section_fragments(changed))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(3, 20, 30), (2, 1, 9), (1, 1, 1)])
def test_sections_without_a_boundary_or_of_nothing_else_are_one_superpixel(shape, value):
    fragments = section_fragments(np.full((3, *shape), value, np.uint8))
    for z, section in enumerate(fragments, start=1):
        assert (section == z).all()


def test_the_multicut_of_sections_is_that_of_the_graph_of_another_library():
    affinities = noisy()
    affinities[1:, :, :, 38:42] = 0  # a membrane from wall to wall
    fragments = section_fragments(affinities)
    dense = (fragments - np.uint64(1)).astype(np.uint32)
    rag = library.region_adjacency_graph(dense)
    features = library.features.affinity_features(
        rag, dense, 1 - affinities.astype(np.float32) / np.float32(255), DIRECT
    )
    boundary, size = features[:, 0].astype(float), features[:, 1].astype(float)
    p = 0.001 + 0.998 * boundary
    costs = np.log((1 - p) / p) * size / size.max()
    objective = library.multicut.MulticutObjective(rag, costs)
    theirs = library.multicut.KernighanLinMulticut().optimize(objective)
    ours = multicut_of_sections(affinities)
    assert oracles.same_partition(ours, theirs[dense])
    assert 1 < len(np.unique(ours)) < fragments.max()


@pytest.mark.parametrize("scoring", SCORINGS)
def test_every_scoring_of_waterz_is_there_compiled(scoring, monkeypatch):
    def compiling(*_: object, **__: object) -> None:
        raise AssertionError("waterz wants to compile")

    monkeypatch.setattr("waterz._agglomerate._jit_compile", compiling)
    labels = drawn_labels((4, 12, 13), 2, 4)
    affinities = drawn_affinities(labels // np.uint64(2), DIRECT, 2)
    counts = [
        len(np.unique(found))
        for found in waterz_segmentations(affinities, labels, [0.0, 0.5, 1.1], SCORINGS[scoring])
    ]
    assert counts[0] == len(np.unique(labels))
    assert counts == sorted(counts, reverse=True)
    assert counts[2] == 1

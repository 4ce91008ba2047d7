"""The region graph: how strongly neighbouring fragments belong together."""

from __future__ import annotations

import fastremap
import numpy as np
from numba import njit

from pipeline.geometry import Offsets
from pipeline.graph import FragmentSizes, Histograms, RegionGraph, sum_rows
from pipeline.hashing import densified, grown, slot_of


def region_edges(
    affinities: np.ndarray,
    fragments: np.ndarray,
    offsets: Offsets,
    inner: tuple[slice, ...] | None = None,
) -> RegionGraph:
    """Sum the affinities over every contact between two fragments.

    A pair ``(v, v + offset)`` belongs to the block that owns ``v``, so blocks with disjoint
    ``inner`` boxes count each pair once. A partner outside the array does not exist. Sums are
    integers, and exact.

    Args:
        affinities: uint8 ``(channel, z, y, x)``, high inside an object.
        fragments: uint64 ``(z, y, x)``; 0 is background and has no edges.
        inner: the voxels this call owns, as an index into ``fragments``; all if omitted.
    """
    dense, ids = densified(fragments)
    vectors, box = _vectors_and_box(offsets, fragments, inner)
    keys, sums = _pair_sums(affinities, dense, vectors, box, len(ids), Offsets.NUM_DIRECT)
    return RegionGraph(*sum_rows(_ends(keys, ids), tuple(sums.T)))


def contact_histograms(
    affinities: np.ndarray, fragments: np.ndarray, inner: tuple[slice, ...] | None = None
) -> Histograms:
    """Count the affinities of every direct contact between two fragments.

    Args:
        affinities: uint8 ``(channel, z, y, x)``, the direct neighbours first.
        fragments, inner: as ``region_edges`` has them, with a halo of one voxel below.
    """
    dense, ids = densified(fragments)
    assert len(ids) < 1 << 27, "two ids and a bin are one int64"
    vectors, box = _vectors_and_box(Offsets(), fragments, inner)
    keys, counts = _bin_counts(affinities, dense, vectors, box, len(ids))
    bins = (keys & 255).astype(np.uint64)
    return Histograms(*sum_rows((*_ends(keys >> 8, ids), bins), (counts[:, 0],)))


def fragment_sizes(fragments: np.ndarray) -> FragmentSizes:
    """Voxels of each fragment, background left out.

    Args:
        fragments: uint64, any shape.
    """
    ids, counts = fastremap.unique(fragments, return_counts=True)
    return FragmentSizes(ids[ids > 0], counts[ids > 0].astype(np.uint64))


def _vectors_and_box(
    offsets: Offsets, fragments: np.ndarray, inner: tuple[slice, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and the voxels whose pairs count, as arrays."""
    if inner is None:
        inner = tuple(slice(0, n) for n in fragments.shape)
    box = [[part.start, part.stop] for part in inner]
    return np.array(offsets.vectors, np.int64), np.array(box, np.int64)


def _ends(pairs: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of pairs ``i * len(ids) + j``, the smaller one first."""
    one, other = ids[pairs // len(ids)], ids[pairs % len(ids)]
    return (np.minimum(one, other), np.maximum(one, other))


@njit(cache=True, nogil=True)
def _pair_sums(affinities, dense, offsets, inner, num_ids, num_direct):  # type: ignore[no-untyped-def]
    """Keys ``i * num_ids + j`` of dense ids, ``i < j``, and their five sums, unsorted.

    The sums sit in an open-addressing hash table that doubles when half full.
    """
    capacity = 1 << 12
    keys = np.full(capacity, -1, np.int64)
    sums = np.zeros((capacity, 5), np.uint64)
    used = 0
    shape = dense.shape
    for channel in range(len(offsets)):
        dz, dy, dx = offsets[channel]
        column = 0 if channel < num_direct else 3
        across = np.uint64(channel == 0)
        z0, z1 = max(inner[0, 0], -dz), min(inner[0, 1], shape[0] - dz)
        y0, y1 = max(inner[1, 0], -dy), min(inner[1, 1], shape[1] - dy)
        x0, x1 = max(inner[2, 0], -dx), min(inner[2, 1], shape[2] - dx)
        for z in range(z0, z1):
            for y in range(y0, y1):
                for x in range(x0, x1):
                    a, b = dense[z, y, x], dense[z + dz, y + dy, x + dx]
                    if a == b or a == 0 or b == 0:
                        continue
                    key = np.int64(min(a, b)) * num_ids + max(a, b)
                    slot = slot_of(key, keys)
                    if keys[slot] < 0:
                        keys[slot] = key
                        used += 1
                        if used * 2 > capacity:
                            capacity *= 2
                            keys, sums = grown(keys, sums, capacity)
                            slot = slot_of(key, keys)
                    sums[slot, column] += np.uint64(affinities[channel, z, y, x])
                    sums[slot, column + 1] += np.uint64(1)
                    sums[slot, 2] += across
    filled = keys >= 0
    return keys[filled], sums[filled]


@njit(cache=True, nogil=True)
def _bin_counts(affinities, dense, offsets, inner, num_ids):  # type: ignore[no-untyped-def]
    """Keys ``(i * num_ids + j) << 8 | affinity`` and how often each was met, unsorted."""
    capacity = 1 << 12
    keys = np.full(capacity, -1, np.int64)
    counts = np.zeros((capacity, 1), np.uint64)
    used = 0
    for channel in range(len(offsets)):
        dz, dy, dx = offsets[channel]
        for z in range(max(inner[0, 0], -dz), inner[0, 1]):
            for y in range(max(inner[1, 0], -dy), inner[1, 1]):
                for x in range(max(inner[2, 0], -dx), inner[2, 1]):
                    a, b = dense[z, y, x], dense[z + dz, y + dy, x + dx]
                    if a == b or a == 0 or b == 0:
                        continue
                    pair = np.int64(min(a, b)) * num_ids + max(a, b)
                    key = pair << 8 | np.int64(affinities[channel, z, y, x])
                    slot = slot_of(key, keys)
                    if keys[slot] < 0:
                        keys[slot] = key
                        used += 1
                        if used * 2 > capacity:
                            capacity *= 2
                            keys, counts = grown(keys, counts, capacity)
                            slot = slot_of(key, keys)
                    counts[slot, 0] += np.uint64(1)
    filled = keys >= 0
    return keys[filled], counts[filled]

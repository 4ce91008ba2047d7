"""Watershed basins by a local rule, so that a volume may be cut into blocks anywhere.

Each voxel has a height. A voxel with a strictly lower neighbour points to the lowest one (of equal
ones, to that with the smallest linear index). The others are flat; flat neighbours necessarily have
equal heights, and their connected components are plateaus. A plateau that touches a sloping voxel
of its own height drains there (of several, to that with the smallest linear index); one that does
not is the bottom of a basin. A fragment is a basin, and its id is one plus the smallest linear
index of its bottom in the whole volume.

Nothing here depends on the order of visits, so the rule has one answer. A block computes what it
can and names the rest: a chain that leaves the block is labelled with the voxel it leaves to, a
plateau that goes on outside with its own first voxel here. ``resolve`` joins those names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pipeline.graph import Assignment, Table

NOWHERE = np.iinfo(np.int64).max
NOT_THERE, OUTSIDE, INSIDE, RIM = 0, 1, 2, 3
HALO_VX = 2
"""Heights needed around a block: where its neighbours point to depends on their neighbours."""


@dataclass(frozen=True)
class Seams(Table):
    """What a block cannot settle alone, and what it tells its neighbours.

    Places and labels are ids, one plus a linear index in the volume, int64. The columns of a pair
    have one length; the pairs differ.
    """

    face_place: np.ndarray
    """Voxels of this block that a neighbour may name, or that a plateau drains to,"""
    face_label: np.ndarray
    """and their labels in this block."""
    plateau_label: np.ndarray
    """Plateaus that go on in a neighbouring block,"""
    plateau_exit: np.ndarray
    """and where their part in this block may drain to, or ``NOWHERE``."""
    link_label: np.ndarray
    """Such plateaus again, once for each way out,"""
    link_beyond: np.ndarray
    """and the voxel outside through which they go on."""
    loose: np.ndarray
    """Labels in this block that are not final, sorted."""

    @classmethod
    def none(cls) -> Seams:
        """Of a block without voxels."""
        return cls(*(np.zeros(0, np.int64) for _ in fields(cls)))


def basins(
    heights: np.ndarray,
    valid: np.ndarray,
    inner: tuple[slice, ...],
    origin: tuple[int, ...],
    volume: tuple[int, ...],
    in_plane: bool,
) -> tuple[np.ndarray, Seams]:
    """Basins of one block.

    Args:
        heights: uint16 ``(z, y, x)``, of the block and two voxels around it, clipped to the volume.
        valid: bool of the same shape; voxels that are not valid do not exist for the others.
        inner: the block as an index into ``heights``.
        origin: place of ``heights[0, 0, 0]`` in the volume.
        volume: sides of the volume, for linear indices.
        in_plane: neighbours are the four in the same section instead of all six.

    Returns:
        Labels of the block, uint64, 0 where not valid; and its seams.
    """
    sides = [n + 2 for n in heights.shape]
    assert math.prod(sides) < 2**31, "indices in a block are int32"
    height = np.zeros(sides, np.uint16)
    height[1:-1, 1:-1, 1:-1] = heights
    kind = np.full(sides, NOT_THERE, np.uint8)
    kind[1:-1, 1:-1, 1:-1][valid] = OUTSIDE
    block = kind[1:-1, 1:-1, 1:-1][inner]
    block[block == OUTSIDE] = RIM
    core = block[1:-1, 1:-1, 1:-1] if not in_plane else block[:, 1:-1, 1:-1]
    core[core == RIM] = INSIDE
    planes, rows = sides[1] * sides[2], sides[2]
    steps = np.array([-rows, -1, 1, rows] if in_plane else [-planes, -rows, -1, 1, rows, planes])
    corner = np.array(origin, np.int64) - 1
    label, faces, plateaus, links, loose = _basins(
        height.ravel(), kind.ravel(), steps, np.array(sides), corner, np.array(volume, np.int64)
    )
    labels = label.reshape(sides)[1:-1, 1:-1, 1:-1][inner].astype(np.uint64)
    columns = (*faces.T, *plateaus.T, *links.T, np.unique(loose))
    return labels, Seams(*columns)


def resolve(blocks: Iterable[Seams]) -> Assignment:
    """Final ids of the labels that single blocks could not settle.

    Args:
        blocks: the seams of every block of a volume, in any order.

    Returns:
        Loose labels and the fragments they belong to. A label without a row is final.
    """
    every = list(blocks)
    seams = Seams(
        *(np.concatenate([getattr(each, field.name) for each in every]) for field in fields(Seams))
    )
    place, first = np.unique(seams.face_place, return_index=True)
    label = seams.face_label[first]

    def label_at(places: np.ndarray) -> np.ndarray:
        position = np.searchsorted(place, places)
        assert np.array_equal(place[np.minimum(position, len(place) - 1)], places), (
            "a face is missing"
        )
        return label[position]

    order = np.argsort(seams.plateau_label)
    plateau, part_exit = seams.plateau_label[order], seams.plateau_exit[order]
    loose = np.unique(seams.loose)
    target = np.empty_like(loose)

    is_plateau = np.isin(loose, plateau, assume_unique=True)
    target[~is_plateau] = label_at(loose[~is_plateau])
    if len(plateau):
        ends = seams.link_label, label_at(seams.link_beyond)
        assert np.isin(ends[1], plateau).all(), "a plateau is missing"
        joined = csr_array(
            (np.ones(len(ends[0]), bool), tuple(np.searchsorted(plateau, end) for end in ends)),
            shape=(len(plateau), len(plateau)),
        )
        count, whole = connected_components(joined, directed=False)
        bottom, drain = np.full(count, NOWHERE), np.full(count, NOWHERE)
        np.minimum.at(bottom, whole, plateau)
        np.minimum.at(drain, whole, part_exit)
        drains = drain != NOWHERE
        bottom[drains] = label_at(drain[drains])
        target[is_plateau] = bottom[whole[np.searchsorted(plateau, loose[is_plateau])]]

    while True:
        position = np.minimum(np.searchsorted(loose, target), max(len(loose) - 1, 0))
        further = (
            np.where(loose[position] == target, target[position], target) if len(loose) else target
        )
        if np.array_equal(further, target):
            return Assignment(loose.astype(np.uint64), target.astype(np.uint64))
        target = further


@njit(cache=True, nogil=True)
def _downhill(i, height, kind, steps):  # type: ignore[no-untyped-def]
    """The voxel that a voxel points to, or -1 if it is flat."""
    best, best_height = -1, height[i]
    for step in steps:
        j = i + step
        if kind[j] != NOT_THERE and height[j] < best_height:
            best, best_height = j, height[j]
    return best


@njit(cache=True, nogil=True)
def _root(i, parent):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _id(i, sides, corner, volume):  # type: ignore[no-untyped-def]
    """One plus the linear index in the volume of a voxel of the padded box."""
    z = i // (sides[1] * sides[2]) + corner[0]
    y = i // sides[2] % sides[1] + corner[1]
    return (z * volume[1] + y) * volume[2] + i % sides[2] + corner[2] + 1


@njit(cache=True, nogil=True)
def _basins(height, kind, steps, sides, corner, volume):  # type: ignore[no-untyped-def]
    """Labels, and the rows of faces, plateaus, links and loose labels.

    Linear indices in the padded box order voxels as their ids in the volume do, so minima may be
    taken over either.
    """
    size = len(height)
    # Of a sloping voxel of the block, where it points; of a flat one, its plateau's union-find.
    slope = np.full(size, -1, np.int32)
    parent = np.full(size, -1, np.int32)
    for i in range(size):
        if kind[i] < INSIDE:
            continue
        slope[i] = _downhill(i, height, kind, steps)
        if slope[i] < 0:
            parent[i] = i
            for step in steps[: len(steps) // 2]:
                j = i + step
                if kind[j] >= INSIDE and parent[j] >= 0 and height[j] == height[i]:
                    a, b = _root(j, parent), _root(i, parent)
                    parent[max(a, b)] = min(a, b)

    exits = np.full(size, -1, np.int32)
    is_open = np.zeros(size, np.bool_)
    faces, plateaus, links, loose = [(0, 0)], [(0, 0)], [(0, 0)], [0]
    for i in range(size):
        if kind[i] < INSIDE or (kind[i] == INSIDE and slope[i] >= 0):
            continue
        root = _root(i, parent) if slope[i] < 0 else -1
        named = False
        for step in steps:
            j = i + step
            if kind[j] >= INSIDE:
                drains = slope[j] >= 0
            elif kind[j] == OUTSIDE:
                below = _downhill(j, height, kind, steps)
                drains = below >= 0
                named |= below == i or (below < 0 and height[j] == height[i])
            else:
                continue
            if root >= 0 and height[j] == height[i]:
                if drains:
                    if exits[root] < 0 or j < exits[root]:
                        exits[root] = j
                elif kind[j] == OUTSIDE:
                    is_open[root] = True
                    links.append((root, j))
        if named:
            faces.append((i, 0))

    labels = np.zeros(size, np.int64)
    for start in range(size):
        if kind[start] < INSIDE or labels[start] != 0:
            continue
        i, label = start, np.int64(0)
        while label == 0:
            if slope[i] >= 0:
                i = slope[i]
            else:
                root = _root(i, parent)
                if is_open[root]:
                    label = _id(root, sides, corner, volume)
                    loose.append(label)
                elif exits[root] < 0:
                    label = _id(root, sides, corner, volume)
                else:
                    i = exits[root]
            if label == 0 and kind[i] == OUTSIDE:
                label = _id(i, sides, corner, volume)
                loose.append(label)
            elif label == 0:
                label = labels[i]
        i = start
        while kind[i] >= INSIDE and labels[i] == 0:
            labels[i] = label
            if slope[i] >= 0:
                i = slope[i]
            else:
                root = _root(i, parent)
                labels[root] = label
                if is_open[root] or exits[root] < 0:
                    break
                i = exits[root]

    for root in range(size):
        if is_open[root]:
            exit_id = NOWHERE
            if exits[root] >= 0:
                exit_id = _id(exits[root], sides, corner, volume)
                if kind[exits[root]] >= INSIDE:
                    faces.append((exits[root], 0))
            plateaus.append((_id(root, sides, corner, volume), exit_id))
    face_rows = np.empty((len(faces) - 1, 2), np.int64)
    for n in range(1, len(faces)):
        face_rows[n - 1, 0] = _id(faces[n][0], sides, corner, volume)
        face_rows[n - 1, 1] = labels[faces[n][0]]
    link_rows = np.empty((len(links) - 1, 2), np.int64)
    for n in range(1, len(links)):
        link_rows[n - 1, 0] = _id(_root(links[n][0], parent), sides, corner, volume)
        link_rows[n - 1, 1] = _id(links[n][1], sides, corner, volume)
    plateau_rows = np.empty((len(plateaus) - 1, 2), np.int64)
    for n in range(1, len(plateaus)):
        plateau_rows[n - 1, 0], plateau_rows[n - 1, 1] = plateaus[n]
    return labels, face_rows, plateau_rows, link_rows, np.array(loose[1:], dtype=np.int64)

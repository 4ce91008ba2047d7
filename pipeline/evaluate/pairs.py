"""Counting the pairs of labels that two arrays have at the same voxels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

FIRST_CAPACITY = 1 << 12


class PairRows(NamedTuple):
    """One row for each pair of labels, sorted by ``(segment, truth)``."""

    segment: np.ndarray
    """uint64"""
    truth: np.ndarray
    """uint64"""
    voxels: np.ndarray
    """uint64"""
    begin: np.ndarray
    """``(n, 3)`` int64: the first voxel of the bounding box, in the array."""
    end: np.ndarray
    """``(n, 3)`` int64: one beyond the last."""


def pair_rows(segments: np.ndarray, truth: np.ndarray) -> PairRows:
    """Count the pairs of two arrays of unsigned integers, of one shape and at most three axes."""
    assert segments.shape == truth.shape, (segments.shape, truth.shape)
    shape = (1,) * (3 - segments.ndim) + segments.shape
    here, there = (
        np.ascontiguousarray(labels, np.uint64).reshape(shape) for labels in (segments, truth)
    )
    pairs, voxels, boxes = _pair_rows(here, there)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, boxes = pairs[order], boxes[order]
    return PairRows(pairs[:, 0], pairs[:, 1], voxels[order], boxes[:, :3], boxes[:, 3:])


@njit(cache=True, nogil=True)
def _pair_rows(here, there):  # type: ignore[no-untyped-def]
    """Pairs, counts and boxes, unsorted.

    Labels come in runs along x, so the hash table is asked once for each run.
    """
    capacity = FIRST_CAPACITY
    pairs = np.zeros((capacity, 2), np.uint64)
    voxels = np.zeros(capacity, np.uint64)
    boxes = np.zeros((capacity, 6), np.int64)
    used = 0
    depth, height, width = here.shape
    for z in range(depth):
        for y in range(height):
            row, other = here[z, y], there[z, y]
            x = 0
            while x < width:
                segment, truth = row[x], other[x]
                begin = x
                x += 1
                while x < width and row[x] == segment and other[x] == truth:
                    x += 1
                slot = _slot_of(segment, truth, pairs, voxels)
                box = boxes[slot]
                if voxels[slot] == 0:
                    pairs[slot, 0], pairs[slot, 1] = segment, truth
                    box[0], box[1], box[2] = z, y, begin
                    box[3], box[4], box[5] = z + 1, y + 1, x
                    used += 1
                box[1], box[2] = min(box[1], y), min(box[2], begin)
                box[3], box[4], box[5] = z + 1, max(box[4], y + 1), max(box[5], x)
                voxels[slot] += np.uint64(x - begin)
                if used * 2 > capacity:
                    capacity *= 2
                    pairs, voxels, boxes = _grown(pairs, voxels, boxes, capacity)
    filled = voxels > 0
    return pairs[filled], voxels[filled], boxes[filled]


@njit(cache=True, nogil=True)
def _slot_of(segment, truth, pairs, voxels):  # type: ignore[no-untyped-def]
    """Slot of a pair, in a table of a power of two of which those without voxels are free."""
    mask = np.uint64(len(voxels) - 1)
    mixed = (segment * np.uint64(0x9E3779B97F4A7C15) + truth) * np.uint64(0xC2B2AE3D27D4EB4F)
    slot = (mixed >> np.uint64(32)) & mask
    while voxels[slot] and (pairs[slot, 0] != segment or pairs[slot, 1] != truth):
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _grown(pairs, voxels, boxes, capacity):  # type: ignore[no-untyped-def]
    """The same rows in a larger table."""
    more_pairs = np.zeros((capacity, 2), np.uint64)
    more_voxels = np.zeros(capacity, np.uint64)
    more_boxes = np.zeros((capacity, 6), np.int64)
    for old in range(len(voxels)):
        if voxels[old]:
            slot = _slot_of(pairs[old, 0], pairs[old, 1], more_pairs, more_voxels)
            more_pairs[slot] = pairs[old]
            more_voxels[slot] = voxels[old]
            more_boxes[slot] = boxes[old]
    return more_pairs, more_voxels, more_boxes

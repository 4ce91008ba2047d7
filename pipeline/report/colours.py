"""Colours of labels: the same for the same object in every panel, and neighbours apart.

A true object has one of seven colours, and its segments and fragments shades of it. So a merge
shows as one colour over two objects, and a split as shades within one.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from pipeline.evaluate.contingency import Contingency

MIXER, MASK = 0x9E3779B97F4A7C15, 2**64 - 1
"""Fibonacci hashing: ids that differ little get colours that differ much."""

PALETTE = np.array(
    [
        [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66],
        [0, 114, 178], [213, 94, 0], [204, 121, 167],
    ],
    np.uint8,
)  # fmt: skip
"""That of Okabe and Ito (2008), told apart with any kind of colour vision."""
GREY = np.array([150, 150, 150], np.uint8)
"""Of segments and fragments that overlap no object."""
SHADES = (0.0, 0.5, -0.4, 0.25, -0.2)
"""How far towards white, or if negative towards black; the first is the colour itself."""
REACH_VX = 3
"""Labels that near in a section are neighbours, as a membrane may lie between them."""

Sections = Sequence[np.ndarray]
"""Labels of sections, uint64 ``(row, column)`` of any shapes; 0 is background."""


@dataclass(frozen=True)
class ColourTable:
    """A colour per id."""

    ids: np.ndarray
    """uint64, ascending, without 0."""
    rgb: np.ndarray
    """uint8 ``(n, 3)``."""

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Colours of an array of ids, uint8 ``(*shape, 3)``; ids without a colour are black."""
        padded = np.concatenate([self.rgb, np.zeros((1, 3), np.uint8)])
        place = np.searchsorted(self.ids, labels)
        known = np.append(self.ids, np.uint64(0))[place] == labels
        return np.asarray(padded[np.where(known & (labels != 0), place, len(self.ids))])


def colour_tables(labels: Mapping[str, Sections]) -> dict[str, ColourTable]:
    """The tables of all volumes of labels, so that they agree.

    Args:
        labels: the sections of truth, segmentation and fragments, or of some of them, each in the
            same order and of the same places.
    """
    names = [name for name in ("truth", "segmentation", "fragments") if name in labels]
    if not names:
        return {}
    wholes = labels[names[0]]
    tables = {names[0]: object_colours(wholes)}
    for name in names[1:]:
        tables[name] = part_colours(labels[name], wholes, tables[names[0]])
    return tables


def object_colours(sections: Sections) -> ColourTable:
    """Colours of the palette, no two neighbours alike as far as it goes."""
    ids = ids_in(sections)
    first = ((ids * np.uint64(MIXER)) >> np.uint64(32)) % np.uint64(len(PALETTE))
    neighbours = neighbours_in(sections, ids)
    order = smallest_last(neighbours)
    chosen = spread(neighbours, order, first.astype(int), len(PALETTE))
    return ColourTable(ids, PALETTE[chosen])


def part_colours(parts: Sections, wholes: Sections, table: ColourTable) -> ColourTable:
    """Shades of the colour of the object that a part overlaps most; the largest has the colour.

    Args:
        wholes: sections of the objects, at the same places.
        table: the colours of the objects.
    """
    counts = Contingency.sum_of(
        Contingency.count(*pair) for pair in zip(parts, wholes, strict=True)
    )
    counts = counts.without_segment(0)
    # The last row of each part; an overlap without an object counts only where there is no other.
    best = np.lexsort((counts.truth, counts.voxels, counts.truth != 0, counts.segment))
    ids, last = np.unique(counts.segment[best][::-1], return_index=True)
    rows = best[::-1][last]
    partner, voxels = counts.truth[rows], counts.voxels[rows].astype(np.int64)
    neighbours = neighbours_in(parts, ids)
    siblings = [[n for n in near if partner[n] == partner[i]] for i, near in enumerate(neighbours)]
    order = np.lexsort((ids, -voxels))
    _, firsts = np.unique(partner[order], return_index=True)
    largest = np.zeros(len(ids), bool)
    largest[order[firsts]] = True
    mixed = (ids * np.uint64(MIXER)) >> np.uint64(32)
    first = np.where(largest, 0, 1 + (mixed % np.uint64(len(SHADES) - 1)).astype(int))
    shades = spread(siblings, order.tolist(), first, len(SHADES))
    base = np.where((partner == 0)[:, None], GREY, table.of(partner))
    return ColourTable(ids, shaded(base, np.array(SHADES)[shades]))


def shaded(rgb: np.ndarray, shades: np.ndarray) -> np.ndarray:
    """Colours, uint8 ``(n, 3)``, moved towards white or black by shares in [-1, 1]."""
    goal = np.where(shades > 0, 255.0, 0.0)[:, None]
    share = np.abs(shades)[:, None]
    return np.asarray(np.rint(rgb * (1 - share) + goal * share).astype(np.uint8))


def ids_in(sections: Sections) -> np.ndarray:
    """The ids in sections, ascending, without 0."""
    found = [np.unique(section) for section in sections]
    ids = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))
    return np.asarray(ids[ids != 0])


def neighbours_in(sections: Sections, ids: np.ndarray) -> list[list[int]]:
    """For each id the places, among the ids, of those near it in any section."""
    pairs = [np.zeros((0, 2), np.int64)]
    for section in sections:
        index = np.searchsorted(ids, section)
        for axis in (0, 1):
            for step in range(1, min(REACH_VX, section.shape[axis] - 1) + 1):
                cut = [slice(None)] * 2
                low, high = list(cut), list(cut)
                low[axis], high[axis] = slice(None, -step), slice(step, None)
                here, there = tuple(low), tuple(high)
                near = (section[here] != section[there]) & (section[here] != 0)
                near &= section[there] != 0
                both = np.stack([index[here][near], index[there][near]], axis=1)
                pairs.append(np.unique(np.sort(both, axis=1), axis=0))
    neighbours: list[list[int]] = [[] for _ in ids]
    for a, b in np.unique(np.concatenate(pairs), axis=0).tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    return neighbours


def smallest_last(neighbours: Sequence[Sequence[int]]) -> list[int]:
    """An order in which few neighbours come before each node; at most five in a planar graph."""
    left = [len(near) for near in neighbours]
    queue = [(count, node) for node, count in enumerate(left)]
    heapify(queue)
    order: list[int] = []
    gone = [False] * len(left)
    while queue:
        count, node = heappop(queue)
        if gone[node] or count != left[node]:
            continue
        gone[node] = True
        order.append(node)
        for other in neighbours[node]:
            if not gone[other]:
                left[other] -= 1
                heappush(queue, (left[other], other))
    return order[::-1]


def spread(
    neighbours: Sequence[Sequence[int]], order: Iterable[int], first: np.ndarray, count: int
) -> np.ndarray:
    """One of ``count`` choices for each node, the one that fewest neighbours before it have.

    Args:
        first: the choice of a node that is free to choose; others follow in turn.
    """
    chosen = np.full(len(neighbours), -1)
    for node in order:
        used = np.bincount(chosen[neighbours[node]] + 1, minlength=count + 1)[1:]
        turn = (first[node] + np.arange(count)) % count
        chosen[node] = turn[np.argmin(used[turn])]
    return chosen


def colours(ids: np.ndarray) -> np.ndarray:
    """A colour per id that depends on nothing else, for pictures of many steps.

    Hues and lightness are well spread; 0 is black.

    Returns:
        float32 ``(n, 3)`` in [0, 1].
    """
    table = []
    for value in ids.tolist():
        mixed = (value * MIXER & MASK) >> 32
        hue, light = (mixed & 0xFFFF) / 0x10000, 0.35 + 0.4 * (mixed >> 16) / 0x10000
        table.append(colorsys.hls_to_rgb(hue, light, 0.65) if value else (0.0, 0.0, 0.0))
    return np.array(table, np.float32).reshape(-1, 3)

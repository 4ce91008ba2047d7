"""Small segments join a neighbour."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from heapq import heapify, heappop, heappush

import numpy as np

from pipeline.graph import Assignment, FragmentSizes, RegionGraph, sum_rows

Contacts = dict[int, dict[int, tuple[int, int]]]
"""Segment -> neighbour -> sum and count of the direct affinities between them, both ways round."""


def merge_small(
    graph: RegionGraph, sizes: FragmentSizes, assignment: Assignment, below_vx: int
) -> Assignment:
    """Each segment that is too small joins the neighbour of the highest mean direct affinity.

    The smallest segment goes first, of equal ones that with the smallest id; what it becomes a part
    of may be too small still, and waits for its turn. Of neighbours with equal means the one with
    the smallest id is taken. Background, 0, neither joins nor is joined.

    Args:
        graph: only direct contacts count.
        sizes: all fragments.
        assignment: a row for each of them; segments are named after their smallest fragment.
        below_vx: segments with fewer voxels are too small; those that touch none stay.

    Returns:
        A row for each fragment; a segment is named after its smallest fragment.
    """
    names, dense = np.unique(assignment.segment, return_inverse=True)
    voxels = np.zeros(len(names), np.int64)
    np.add.at(voxels, dense, sizes.size_vx.astype(np.int64))
    small = (voxels < below_vx) & (names > 0)
    contacts = _contacts_of(small, names, graph, assignment)
    into, size = np.arange(len(names)), voxels.tolist()
    queue = [(size[segment], segment) for segment in np.flatnonzero(small).tolist()]
    heapify(queue)
    while queue:
        size_then, segment = heappop(queue)
        if into[segment] != segment or size[segment] != size_then or not contacts[segment]:
            continue
        strongest = min(
            contacts[segment], key=lambda n: (-Fraction(*contacts[segment][n]), n)
        )  # as fractions: no two means are rounded to one
        keep, gone = min(segment, strongest), max(segment, strongest)
        into[gone] = keep
        size[keep] += size[gone]
        _join(contacts, keep, gone)
        if size[keep] < below_vx:
            heappush(queue, (size[keep], keep))
    while not np.array_equal(into[into], into):
        into = into[into]
    return Assignment(assignment.fragment, names[into[dense]])


def _contacts_of(
    small: np.ndarray, names: np.ndarray, graph: RegionGraph, assignment: Assignment
) -> Contacts:
    """Contacts of the small segments. Those between others never matter."""
    ends = np.searchsorted(names, [assignment.apply(end) for end in (graph.u, graph.v)])
    kept = (ends[0] != ends[1]) & (graph.direct_count > 0) & (names[ends] > 0).all(axis=0)
    kept &= small[ends].any(axis=0)
    rows = sum_rows(
        (ends[:, kept].min(axis=0), ends[:, kept].max(axis=0)),
        (graph.direct_sum[kept], graph.direct_count[kept]),
    )
    contacts: Contacts = defaultdict(dict)
    for one, other, total, count in zip(*(column.tolist() for column in rows), strict=True):
        contacts[one][other] = contacts[other][one] = (total, count)
    return contacts


def _join(contacts: Contacts, keep: int, gone: int) -> None:
    """Give the contacts of one segment to another."""
    for other, (total, count) in contacts.pop(gone).items():
        del contacts[other][gone]
        if other != keep:
            before = contacts[keep].get(other, (0, 0))
            joined = (before[0] + total, before[1] + count)
            contacts[keep][other] = contacts[other][keep] = joined

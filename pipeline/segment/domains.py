"""Multicut by domain decomposition: boxes are solved by themselves, then their seams.

The boxes belong to the numbers: others give another partition of nearly the same cost.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.geometry import Block, BlockGrid
from pipeline.graph import Assignment, RegionGraph
from pipeline.segment.multicut import solve_contracted, solve_domain


def decomposed_multicut(
    graph: RegionGraph, costs: np.ndarray, fragments: np.ndarray, domains: BlockGrid
) -> Assignment:
    """All of it, one domain after the other.

    Args:
        costs: float64, one for each row of the graph.
        fragments: uint64, all of them, sorted.
        domains: boxes of the volume that the fragments were made in.

    Returns:
        A row for each fragment; a segment is named after its smallest fragment.
    """
    solved = [solved_domain(graph, costs, fragments, domains, block) for block in domains]
    return solve_contracted(graph, costs, solved)


def solved_domain(
    graph: RegionGraph, costs: np.ndarray, fragments: np.ndarray, domains: BlockGrid, block: Block
) -> Assignment:
    """The multicut of one domain, as if there were no others. Arguments as above."""
    members = members_of(fragments, domains, block)
    if len(members) == 0:
        return Assignment(members, members)
    # Edges are sorted by their smaller end, so those of a box lie in few of all rows.
    rows = slice(*np.searchsorted(graph.u, [members[0], members[-1]]))
    return solve_domain(graph.rows(rows), costs[rows], members)


def members_of(fragments: np.ndarray, domains: BlockGrid, block: Block) -> np.ndarray:
    """The fragments of a domain: their ids are one plus the linear index of one of their voxels.

    Args:
        fragments: uint64, sorted.

    Returns:
        uint64, sorted; every fragment belongs to one domain.
    """
    shape = tuple(domains.total.shape)
    begin, end = (place - domains.total.begin for place in (block.write.begin, block.write.end))
    section = math.prod(shape[1:])
    low, high = np.searchsorted(fragments, [1 + begin[0] * section, 1 + end[0] * section])
    ids = fragments[low:high]
    _, y, x = np.unravel_index(ids.astype(np.int64) - 1, shape)
    inside = (begin[1] <= y) & (y < end[1]) & (begin[2] <= x) & (x < end[2])
    return np.asarray(ids[inside])

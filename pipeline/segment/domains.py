"""Multicut by domain decomposition: boxes are solved by themselves, then what is between them.

The boxes belong to the numbers: others give another partition of nearly the same cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np

from pipeline.geometry import Block, BlockGrid, Roi
from pipeline.graph import Assignment, RegionGraph, Table
from pipeline.segment.contacts import Contacts
from pipeline.segment.multicut import Weighting, edge_costs, solve_contracted, solve_domain
from pipeline.segment.solvers import Solver

SHIFTED = ((False, False, False), (True, True, True), (True, False, True), (False, True, False))
"""Grids of domains, by the axes along which they lie half a domain lower."""


@dataclass(frozen=True)
class DomainMerges(Table):
    """What domains join: a row for each fragment and grid."""

    grid: np.ndarray
    """uint64, a place in ``SHIFTED``."""
    fragment: np.ndarray
    segment: np.ndarray
    """uint64, the same for those of a domain that belong together."""

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """Of several domains."""
        columns = [part.columns() for part in parts]
        return cls(*(np.concatenate([c[name] for c in columns]) for name in columns[0]))

    def by_grid(self) -> Iterator[Assignment]:
        """What each grid says, sorted by fragment."""
        for number in np.unique(self.grid):
            rows = np.flatnonzero(self.grid == number)
            rows = rows[np.argsort(self.fragment[rows])]
            yield Assignment(self.fragment[rows], self.segment[rows])


def decomposed_multicut(
    graph: RegionGraph,
    fragments: np.ndarray,
    domains: BlockGrid,
    beta: float,
    weighting: Weighting,
    solver: Solver = "bioimage_cpp",
) -> Assignment:
    """All of it, one domain after the other.

    Args:
        fragments: uint64, all of them, sorted.
        domains: boxes of the volume that the fragments were made in.

    Returns:
        A row for each fragment; a segment is named after its smallest fragment.
    """
    contacts = Contacts.of_graph(graph, fragments)
    solved = [
        solved_domains(contacts, domains, block, beta, weighting, solver) for block in domains
    ]
    return joined_domains(graph, solved, beta, weighting, solver)


def solved_domains(
    contacts: Contacts,
    domains: BlockGrid,
    block: Block,
    beta: float,
    weighting: Weighting,
    solver: Solver,
) -> DomainMerges:
    """The multicuts of one block's boxes of all grids, each as if there were no others."""
    parts = [DomainMerges(*np.zeros((3, 0), np.uint64))]
    for grid, box in boxes(domains, block):
        members = members_of(contacts.fragments, domains.total, box)
        graph = contacts.around(members)
        costs = edge_costs(graph, beta, weighting, contacts.index.largest)
        solved = solve_domain(graph, costs, members, solver)
        parts.append(DomainMerges(np.full_like(members, grid), solved.fragment, solved.segment))
    return DomainMerges.joined(parts)


def joined_domains(
    graph: RegionGraph,
    solved: Iterable[DomainMerges],
    beta: float,
    weighting: Weighting,
    solver: Solver,
) -> Assignment:
    """The multicut of a whole graph, from those of all domains; see ``solve_contracted``."""
    costs = edge_costs(graph, beta, weighting)
    return solve_contracted(graph, costs, list(DomainMerges.joined(solved).by_grid()), solver)


def boxes(domains: BlockGrid, block: Block) -> Iterator[tuple[int, Roi]]:
    """The boxes that a block stands for, each with the number of its grid.

    All boxes of a grid partition the volume. Where one domain spans it along an axis, nothing is
    shifted along that; of grids that are then the same the first counts.
    """
    spans = [count == 1 for count in domains.counts]
    grids: dict[tuple[bool, ...], int] = {}
    for number, wanted in enumerate(SHIFTED):
        possible = tuple(w and not span for w, span in zip(wanted, spans, strict=True))
        grids.setdefault(possible, number)
    for shifted, number in grids.items():
        for sides in product(*(_sides(domains, block, n, shifted[n]) for n in range(3))):
            begin, end = zip(*sides, strict=True)
            yield number, Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


def _sides(domains: BlockGrid, block: Block, axis: int, shifted: bool) -> list[tuple[int, int]]:
    """Begin and end of a block's boxes along an axis; the last block has one more if shifted."""
    low, high = domains.total.begin[axis], domains.total.end[axis]
    side = domains.block_vx[axis]
    begin = block.write.begin[axis] - (side // 2 if shifted else 0)
    sides = [(max(begin, low), min(begin + side, high))]
    if block.write.end[axis] == high and begin + side < high:
        sides.append((begin + side, high))
    return sides


def members_of(fragments: np.ndarray, total: Roi, box: Roi) -> np.ndarray:
    """The fragments of a domain: their ids are one plus the linear index of one of their voxels.

    Args:
        fragments: uint64, sorted.
        total: the volume whose indices these are.

    Returns:
        uint64, sorted.
    """
    shape = tuple(total.shape)
    begin, end = box.begin - total.begin, box.end - total.begin
    section = math.prod(shape[1:])
    low, high = np.searchsorted(fragments, [1 + begin[0] * section, 1 + end[0] * section])
    ids = np.asarray(fragments[low:high])
    _, y, x = np.unravel_index(ids.astype(np.int64) - 1, shape)
    inside = (begin[1] <= y) & (y < end[1]) & (begin[2] <= x) & (x < end[2])
    return np.asarray(ids[inside])

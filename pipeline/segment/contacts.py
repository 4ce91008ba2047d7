"""The region graph with an index, so that a few fragments are looked at without the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.graph import RegionGraph, Table
from pipeline.tables import Columns


@dataclass(frozen=True)
class GraphIndex(Table):
    """Where in a region graph the contacts of each fragment are; and what weights compare with.

    Fragments are known by their place among all, sorted. Columns differ in length.
    """

    first_u: np.ndarray
    """int64 ``(fragments + 1,)``: rows ``first_u[n]`` to ``first_u[n + 1]`` have the nth as u."""
    by_v: np.ndarray
    """int64, all rows, sorted by v."""
    first_v: np.ndarray
    """As ``first_u``, of v and places in ``by_v``."""
    largest: np.ndarray
    """uint64 ``(3,)``; see ``largest_counts``."""

    @classmethod
    def of_graph(cls, graph: RegionGraph, fragments: np.ndarray) -> Self:
        """The index of a whole graph.

        Args:
            fragments: uint64, all of them, sorted.
        """
        by_v = np.argsort(graph.v, kind="stable")
        u, v = np.searchsorted(graph.u, fragments), np.searchsorted(graph.v[by_v], fragments)
        end = len(graph)
        return cls(np.append(u, end), by_v, np.append(v, end), largest_counts(graph))


@dataclass(frozen=True)
class Contacts:
    """A region graph, its fragments and its index; any of the arrays may be mapped from a file."""

    graph: RegionGraph
    fragments: np.ndarray
    index: GraphIndex

    @classmethod
    def of(cls, columns: Columns) -> Self:
        """From the columns of graph, sizes and index."""
        return cls(RegionGraph.of(columns), columns["fragment"], GraphIndex.of(columns))

    @classmethod
    def of_graph(cls, graph: RegionGraph, fragments: np.ndarray) -> Self:
        return cls(graph, fragments, GraphIndex.of_graph(graph, fragments))

    def around(self, members: np.ndarray) -> RegionGraph:
        """The direct contacts among some fragments and those that touch them.

        Args:
            members: uint64, sorted.

        Returns:
            Rows in the order of the graph.
        """
        graph, index, at = self.graph, self.index, np.searchsorted(self.fragments, members)
        below = index.by_v[spread(index.first_v[at], index.first_v[at + 1])]
        above = spread(index.first_u[at], index.first_u[at + 1])
        near = [
            (end[rows])[graph.direct_count[rows] > 0]
            for end, rows in ((graph.u, below), (graph.v, above))
        ]
        nodes = np.unique(np.concatenate([members, *near]))
        at = np.searchsorted(self.fragments, nodes)
        rows = spread(index.first_u[at], index.first_u[at + 1])
        rows = rows[is_in(graph.v[rows], nodes)]
        return graph.rows(rows[graph.direct_count[rows] > 0])


def largest_counts(graph: RegionGraph) -> np.ndarray:
    """The size of the largest direct contact: of all, of those across sections only, of the others.

    Returns:
        uint64 ``(3,)``, none 0.
    """
    across = graph.across_count == graph.direct_count
    count = graph.direct_count
    return np.array(
        [kind.max(initial=1) for kind in (count, count[across], count[~across])], np.uint64
    )


def spread(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """All numbers of several half-open ranges, one range after the other; int64."""
    lengths = last - first
    begin = np.cumsum(lengths) - lengths
    return np.repeat(first - begin, lengths) + np.arange(lengths.sum())


def is_in(ids: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Whether each id is one of the sorted members."""
    if len(members) == 0:
        return np.zeros(len(ids), bool)
    place = np.minimum(np.searchsorted(members, ids), len(members) - 1)
    return np.asarray(members[place] == ids)

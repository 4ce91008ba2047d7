"""Partitions of weighted graphs: multicut, lifted multicut, mutex watershed. One door to libraries.

Solvers are those of bioimage-cpp, where the tools of the field moved to from nifty, or nifty's own.
Their answers depend on the order of edges and on the numbers of nodes, so here every problem is
first brought to one form: edges with ``u < v``, sorted, each once. Then a partition is a function
of the problem and the library, whatever order its rows came in.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import ConfigError, DataError

Solver = Literal["bioimage_cpp", "nifty"]


def library(solver: Solver) -> Any:
    """The module of a library's solvers.

    Raises:
        ConfigError: it is not installed.
    """
    if solver == "bioimage_cpp":
        from pipeline.segment import bioimage_solvers

        return bioimage_solvers
    try:
        from pipeline.segment import nifty_solvers
    except ImportError as error:
        raise ConfigError(
            f"run.agglomerate.solver nifty cannot be imported: {error}\n"
            "It is on conda-forge only: conda install -c conda-forge nifty (the package of that "
            "name on PyPI is another program).\nOr leave run.agglomerate.solver at bioimage_cpp."
        ) from None
    return nifty_solvers


def multicut(
    num_nodes: int, ends: np.ndarray, costs: np.ndarray, solver: Solver = "bioimage_cpp"
) -> np.ndarray:
    """The partition whose cut edges have the smallest sum of costs, nearly.

    Greedy additive contraction, then Kernighan-Lin (Keuper et al. 2015). The better of the two
    counts: on random graphs of 10000 nodes Kernighan-Lin was seen to end above where it began. Nor
    does it cost more than all nodes apart, or all that are connected together; the optimum is not
    promised.

    Args:
        num_nodes: nodes without an edge stay alone.
        ends: int64 ``(E, 2)``; edges given twice count with the sum of their costs, loops not.
        costs: float64 ``(E,)``; positive attracts, negative repels. Nodes joined by costs of 0
            only stay apart.

    Returns:
        int64 ``(num_nodes,)``; every cluster is connected and named after its smallest node.

    Raises:
        DataError: a cost that is not finite, or an edge to no node.
    """
    ends, costs = _summed(num_nodes, ends, costs)
    apart, together = np.arange(num_nodes), np.zeros(num_nodes, np.int64)
    if len(ends) == 0:
        return apart
    solvers = library(solver)
    greedy = solvers.greedy(num_nodes, ends, costs)
    moved = solvers.moved(num_nodes, ends, costs, greedy)
    return _cheapest(num_nodes, ends, ends, costs, apart, together, greedy, moved)


def improved_multicut(
    num_nodes: int,
    ends: np.ndarray,
    costs: np.ndarray,
    labels: np.ndarray,
    solver: Solver = "bioimage_cpp",
) -> np.ndarray:
    """A partition after Kernighan-Lin: never worse than it was. As ``multicut`` otherwise.

    Args:
        labels: int64 ``(num_nodes,)``, the partition to begin with.
    """
    ends, costs = _summed(num_nodes, ends, costs)
    if len(ends) == 0:
        return np.arange(num_nodes)
    dense = np.unique(labels, return_inverse=True)[1]
    moved = library(solver).moved(num_nodes, ends, costs, dense)
    return _cheapest(num_nodes, ends, ends, costs, labels, moved)


def lifted_multicut(
    num_nodes: int,
    ends: np.ndarray,
    costs: np.ndarray,
    lifted_ends: np.ndarray,
    lifted_costs: np.ndarray,
    solver: Solver = "bioimage_cpp",
) -> np.ndarray:
    """As ``multicut``, where pairs of distant nodes have costs too.

    A lifted edge costs when its nodes are apart, but joins nobody: clusters are connected by
    ``ends`` alone. One over an edge adds to it. Greedy additive contraction, then Kernighan-Lin
    (Keuper et al. 2015).

    Args:
        lifted_ends: int64 ``(L, 2)``.
        lifted_costs: float64 ``(L,)``.
    """
    ends, costs = _summed(num_nodes, ends, costs)
    lifted_ends, lifted_costs = _summed(num_nodes, lifted_ends, lifted_costs)
    everything = np.concatenate([ends, lifted_ends])
    all_costs = np.concatenate([costs, lifted_costs])
    apart, together = np.arange(num_nodes), np.zeros(num_nodes, np.int64)
    if len(ends) == 0:
        return apart
    solvers, problem = library(solver), (num_nodes, ends, costs, lifted_ends, lifted_costs)
    greedy = solvers.lifted_greedy(*problem)
    moved = solvers.lifted_moved(*problem, greedy)
    return _cheapest(num_nodes, ends, everything, all_costs, apart, together, greedy, moved)


def mutex_watershed(
    num_nodes: int,
    ends: np.ndarray,
    weights: np.ndarray,
    mutex_ends: np.ndarray,
    mutex_weights: np.ndarray,
) -> np.ndarray:
    """Kruskal's algorithm with prohibitions (Wolf et al. 2018); exact. By bioimage-cpp.

    All edges in falling order of weight: an attractive one joins two clusters unless a prohibition
    is between them, a mutex edge puts one there. Of equal weights attraction goes first, then the
    edge with the smaller nodes.

    Args:
        num_nodes: nodes without an edge stay alone.
        ends: int64 ``(E, 2)``, attractive; of edges given twice the heaviest counts, loops never.
        weights: float64 ``(E,)``.
        mutex_ends: int64 ``(M, 2)``, in the same way.
        mutex_weights: float64 ``(M,)``.

    Returns:
        int64 ``(num_nodes,)``; every cluster is connected and named after its smallest node.

    Raises:
        DataError: a weight that is not finite, or an edge to no node.
    """
    ends, weights = _heaviest(num_nodes, ends, weights)
    mutex_ends, mutex_weights = _heaviest(num_nodes, mutex_ends, mutex_weights)
    from bioimage_cpp.graph.mutex_watershed import mutex_watershed_clustering

    from pipeline.segment.bioimage_solvers import graph_of

    labels = mutex_watershed_clustering(
        graph_of(num_nodes, ends), weights, mutex_ends.astype(np.uint64), mutex_weights
    )
    return clusters(num_nodes, ends, labels)


def cut_cost(ends: np.ndarray, costs: np.ndarray, labels: np.ndarray) -> float:
    """Sum of the costs of the edges between clusters: what a multicut makes small."""
    return float(costs[labels[ends[:, 0]] != labels[ends[:, 1]]].sum())


def clusters(num_nodes: int, ends: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Connected parts of equally labelled nodes, each named after its smallest node.

    Args:
        ends: int64 ``(E, 2)``.
        labels: ``(num_nodes,)``, any integers.

    Returns:
        int64 ``(num_nodes,)``.
    """
    inside = ends[labels[ends[:, 0]] == labels[ends[:, 1]]]
    ones = np.ones(len(inside), np.int8)
    links = coo_array((ones, (inside[:, 0], inside[:, 1])), shape=(num_nodes, num_nodes))
    parts = connected_components(links, directed=False)[1] if num_nodes else np.zeros(0, int)
    _, first, index = np.unique(parts, return_index=True, return_inverse=True)
    return np.asarray(first[index], np.int64)


def _cheapest(
    num_nodes: int, links: np.ndarray, ends: np.ndarray, costs: np.ndarray, *found: np.ndarray
) -> np.ndarray:
    """Of several partitions, cut into parts connected by ``links``, the first that costs least."""
    partitions = [clusters(num_nodes, links, labels) for labels in found]
    return min(partitions, key=lambda labels: cut_cost(ends, costs, labels))


def _summed(num_nodes: int, ends: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct edges with the sums of their costs."""
    ends, costs, starts = _sorted(num_nodes, ends, costs)
    return ends[starts], np.add.reduceat(costs, starts) if len(starts) else costs


def _heaviest(
    num_nodes: int, ends: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct edges with the largest of their weights."""
    ends, weights, starts = _sorted(num_nodes, ends, weights)
    return ends[starts], np.maximum.reduceat(weights, starts) if len(starts) else weights


def _sorted(
    num_nodes: int, ends: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges ``u < v`` without loops, sorted, of equal ones by value; where each begins."""
    ends, values = np.asarray(ends, np.int64).reshape(-1, 2), np.asarray(values, np.float64)
    if len(ends) and not 0 <= ends.min() <= ends.max() < num_nodes:
        raise DataError(
            f"an edge must join two of {num_nodes} nodes, found {ends.min()} and {ends.max()}"
        )
    if not np.isfinite(values).all():
        odd = values[~np.isfinite(values)][0]
        raise DataError(f"costs of a graph must be finite, found {odd}")
    u, v = ends.min(axis=1), ends.max(axis=1)
    order = np.lexsort((values, v, u))
    order = order[u[order] != v[order]]
    u, v = u[order], v[order]
    new = np.ones(len(order), bool)
    new[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    return np.stack([u, v], axis=1), values[order], np.flatnonzero(new)

"""Multicut of the region graph: the partition that disagrees least with its contacts.

A contact's mean affinity becomes a cost, positive where it attracts, and the sum of the costs that
are cut is made small (Andres et al. 2012). Costs are those of the reference code of PEA, which are
the usual ones of nifty and elf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.graph import Assignment, FragmentSizes, RegionGraph
from pipeline.segment.contacts import is_in, largest_counts
from pipeline.segment.solvers import (
    Solver,
    clusters,
    cut_cost,
    improved_multicut,
    lifted_multicut,
    multicut,
)

Weighting = Literal["none", "contacts", "populations"]
"""How much a contact counts: each the same; by its size over that of the largest; by its size over
that of the largest of its kind, of contacts across sections only and of all others."""


def edge_costs(
    graph: RegionGraph, beta: float, weighting: Weighting, largest: np.ndarray | None = None
) -> np.ndarray:
    """Costs of all contacts: ``(ln((1 - p) / p) + ln((1 - beta) / beta)) * weight``.

    ``p`` is 1 - the mean direct affinity, squeezed to 0.001 to 0.999.

    Args:
        beta: in (0, 1), how likely a boundary is before anything was seen: higher cuts more.
        largest: the ``largest_counts`` that weights refer to; those of this graph if left out.

    Returns:
        float64, one for each row; 0 where there is no direct contact.
    """
    direct = graph.direct_count > 0
    costs = np.zeros(len(graph))
    costs[direct] = log_odds(graph.direct_sum[direct], graph.direct_count[direct], beta)
    if weighting == "none":
        return costs
    of_all, of_across, of_others = largest_counts(graph) if largest is None else largest
    if weighting == "contacts":
        return np.asarray(costs * (graph.direct_count / of_all))
    across = graph.across_count == graph.direct_count
    return np.asarray(costs * (graph.direct_count / np.where(across, of_across, of_others)))


def log_odds(total: np.ndarray, count: np.ndarray, beta: float) -> np.ndarray:
    """Unweighted costs of sums of uint8 affinities over their counts, none 0."""
    p = 0.001 + 0.998 * (1.0 - total.astype(np.float64) / count.astype(np.float64) / 255.0)
    return np.asarray(np.log((1.0 - p) / p) + np.log((1.0 - beta) / beta))


def multicut_segments(
    graph: RegionGraph,
    sizes: FragmentSizes,
    beta: float,
    weighting: Weighting,
    solver: Solver = "bioimage_cpp",
) -> Assignment:
    """Segments of a multicut over the direct contacts.

    Args:
        graph: long-range contacts do not count.
        sizes: all fragments, also those that touch none.

    Returns:
        A segment is named after its smallest fragment.
    """
    direct = graph.direct_count > 0
    ends = dense_ends(graph, sizes.fragment)[direct]
    labels = multicut(len(sizes), ends, edge_costs(graph, beta, weighting)[direct], solver)
    return Assignment(sizes.fragment, sizes.fragment[labels])


def lifted_multicut_segments(
    graph: RegionGraph,
    sizes: FragmentSizes,
    beta: float,
    weighting: Weighting,
    solver: Solver = "bioimage_cpp",
) -> Assignment:
    """Segments of a multicut that the long-range contacts take part in, as lifted edges.

    Fragments pull each other or push each other away by their mean long-range affinity as well; of
    those that touch, both costs add. Only direct contacts join: fragments far apart can be in one
    segment only through others. Leaving out the long-range contacts of fragments that touch, or
    pooling both kinds into one mean, was worse on real affinities (``configs/README.md``).

    Args:
        sizes: all fragments, also those that touch none.

    Returns:
        A segment is named after its smallest fragment.
    """
    ends = dense_ends(graph, sizes.fragment)
    direct, lifted = graph.direct_count > 0, graph.long_count > 0
    lifted_costs = log_odds(graph.long_sum[lifted], graph.long_count[lifted], beta)
    if weighting != "none":
        count = graph.long_count[lifted]
        lifted_costs *= count / count.max(initial=1)
    costs = edge_costs(graph, beta, weighting)[direct]
    labels = lifted_multicut(len(sizes), ends[direct], costs, ends[lifted], lifted_costs, solver)
    return Assignment(sizes.fragment, sizes.fragment[labels])


def multicut_energy(graph: RegionGraph, costs: np.ndarray, assignment: Assignment) -> float:
    """Sum of the costs of the contacts between segments.

    Args:
        costs: float64, one for each row of the graph.
        assignment: of all fragments that the graph has.
    """
    return cut_cost(dense_ends(graph, assignment.fragment), costs, assignment.segment)


def solve_domain(
    graph: RegionGraph, costs: np.ndarray, members: np.ndarray, solver: Solver = "bioimage_cpp"
) -> Assignment:
    """Which fragments of a domain belong together, as far as their surroundings tell.

    The multicut is solved with all fragments that touch a member, so that those at the rim are
    judged among neighbours; only what it joins within the domain is kept.

    Args:
        graph: at least every contact of the members and of those they touch.
        costs: float64, one for each row of the graph.
        members: uint64, sorted.

    Returns:
        A row for each member. A segment is connected inside the domain.
    """
    direct = graph.direct_count > 0
    touched = direct & (is_in(graph.u, members) | is_in(graph.v, members))
    nodes = np.unique(np.concatenate([members, graph.u[touched], graph.v[touched]]))
    seen = direct & is_in(graph.u, nodes) & is_in(graph.v, nodes)
    ends = np.stack([np.searchsorted(nodes, end[seen]) for end in (graph.u, graph.v)], axis=1)
    labels = multicut(len(nodes), ends, costs[seen], solver)
    inside = is_in(nodes, members)
    within = ends[inside[ends].all(axis=1)]
    return Assignment(members, nodes[clusters(len(nodes), within, labels)][inside])


def solve_contracted(
    graph: RegionGraph,
    costs: np.ndarray,
    grids: Sequence[Assignment],
    solver: Solver = "bioimage_cpp",
) -> Assignment:
    """Multicut of a whole graph whose domains were solved by themselves (Pape et al. 2017).

    Fragments that touch become one node where every grid of domains joins them: near the face of a
    domain, the domains of another grid see both sides. Contacts between two nodes add up. The
    multicut of that smaller graph is improved fragment by fragment, by Kernighan-Lin on the whole
    one. Then every segment is opened again, solved by itself, and what is left joined anew, as long
    as that lowers the energy. How near the energy comes to that of ``multicut_segments`` is in
    ``configs/README.md``.

    Args:
        grids: one or more; each has a row for each fragment, the same fragments in every one.

    Returns:
        A row for each fragment.
    """
    fragment = grids[0].fragment
    direct = graph.direct_count > 0
    ends, costs = dense_ends(graph, fragment)[direct], costs[direct]
    kept = np.ones(len(ends), bool)
    for grid in grids:
        kept &= grid.segment[ends[:, 0]] == grid.segment[ends[:, 1]]
    merged = clusters(len(fragment), ends[kept], np.zeros(len(fragment), int))
    labels = _joined(ends, costs, merged, solver)
    while True:
        inside = labels[ends[:, 0]] == labels[ends[:, 1]]
        opened = multicut(len(fragment), ends[inside], costs[inside], solver)
        again = _joined(ends, costs, opened, solver)
        if cut_cost(ends, costs, again) >= cut_cost(ends, costs, labels):
            return Assignment(fragment, fragment[labels])
        labels = again


def _joined(ends: np.ndarray, costs: np.ndarray, merged: np.ndarray, solver: Solver) -> np.ndarray:
    """Multicut with merged fragments as nodes, then improved fragment by fragment.

    Args:
        merged: an id for each fragment, the same for those that are one node.
    """
    nodes, node = np.unique(merged, return_inverse=True)
    contracted = multicut(len(nodes), node[ends], costs, solver)
    return improved_multicut(len(merged), ends, costs, contracted[node], solver)


def dense_ends(graph: RegionGraph, fragments: np.ndarray) -> np.ndarray:
    """Both ends of each edge as places in the sorted fragments; int64 ``(E, 2)``."""
    return np.stack([np.searchsorted(fragments, end) for end in (graph.u, graph.v)], axis=1)

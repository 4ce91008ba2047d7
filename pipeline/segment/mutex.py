"""Mutex watershed of the region graph."""

from __future__ import annotations

import numpy as np

from pipeline.graph import Assignment, FragmentSizes, RegionGraph
from pipeline.segment.multicut import dense_ends
from pipeline.segment.solvers import mutex_watershed


def mutex_watershed_segments(graph: RegionGraph, sizes: FragmentSizes) -> Assignment:
    """Direct contacts attract with their mean affinity, long-range ones repel with 1 - theirs.

    It has no parameter: strong evidence is believed first (Wolf et al. 2018).

    Args:
        sizes: all fragments, also those that touch none.

    Returns:
        A segment is named after its smallest fragment.
    """
    ends = dense_ends(graph, sizes.fragment)
    direct, distant = graph.direct_count > 0, graph.long_count > 0
    labels = mutex_watershed(
        len(sizes),
        ends[direct],
        mean_affinities(graph.direct_sum[direct], graph.direct_count[direct]),
        ends[distant],
        1.0 - mean_affinities(graph.long_sum[distant], graph.long_count[distant]),
    )
    return Assignment(sizes.fragment, sizes.fragment[labels])


def mean_affinities(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Of sums of uint8 affinities over their counts, none 0; float64 in [0, 1]."""
    return np.asarray(total.astype(np.float64) / count.astype(np.float64) / 255.0)

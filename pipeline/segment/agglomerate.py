"""Hierarchical agglomeration on the region graph, by mean affinity or by a quantile of it.

The same method as waterz: merge the pair of regions with the highest affinity, join their contacts,
repeat. The mean, or a quantile, of two contacts together lies between theirs, and so not above the
merge just made: scores never decrease, and one tree holds every threshold.
"""

from __future__ import annotations

import numpy as np

from pipeline.graph import Histograms, MergeTree, RegionGraph
from pipeline.segment.merging import Means, Quantiles, merges


def mean_affinity_tree(graph: RegionGraph) -> MergeTree:
    """Merge along the direct contacts, strongest first, until none is left.

    Of equal scores the contact that holds the smallest edge ``(u, v)`` of the graph goes first, so
    the tree is a function of the graph alone. A region is named after its smallest fragment.

    Args:
        graph: only edges with direct contacts count.

    Returns:
        Scores are 1 - mean affinity, in [0, 1].
    """
    direct = graph.direct_count > 0
    total, count = graph.direct_sum[direct], graph.direct_count[direct]
    means = Means(total.astype(np.float64), count.astype(np.float64))
    return _tree(graph.u[direct], graph.v[direct], means)


def quantile_tree(histograms: Histograms, percent: int) -> MergeTree:
    """As ``mean_affinity_tree``, by a quantile of the affinities of each contact.

    waterz has it as ``HistogramQuantileAffinity<..., 256, false>``, there with scores between the
    steps of uint8; its default begins with the largest affinity of each contact alone, which this
    does not.

    Args:
        percent: 50 for the median.
    """
    return _tree(*Quantiles.of(histograms, percent))


def _tree(u: np.ndarray, v: np.ndarray, contacts: Means | Quantiles) -> MergeTree:
    """The tree of contacts between ``u`` and ``v``, sorted by them."""
    ids, ends = np.unique(np.concatenate([u, v]), return_inverse=True)
    a, b, scores = merges(len(ids), ends[: len(u)], ends[len(u) :], contacts)
    return MergeTree(ids[a], ids[b], scores)

"""Hierarchical agglomeration on the region graph, by mean affinity or by a quantile of it.

The same method as waterz: merge the pair of regions with the highest affinity, join their contacts,
repeat. The mean, or a quantile, of two contacts together lies between theirs, and so not above the
merge just made: scores never decrease, and one tree holds every threshold.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np
from numba import njit

from pipeline.graph import Histograms, MergeTree, RegionGraph
from pipeline.hashing import slot_of
from pipeline.segment.contacts import Means, Quantiles, join, score

DEAD = -1


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
    a, b, scores = _merges(len(ids), ends[: len(u)], ends[len(u) :], contacts)
    return MergeTree(ids[a], ids[b], scores)


@njit(cache=True, nogil=True)
def _merges(num_nodes, u, v, contacts):  # type: ignore[no-untyped-def]
    """Merges as three arrays: kept id, merged id, score.

    A region is stored at one of its nodes. Its contacts are half-edges in a doubly linked list:
    half-edge 2e of edge e lies with one region and leads to the other, 2e + 1 the other way round.
    Of two lists the shorter is moved, so a half-edge moves at most log2(n) times. A hash table from
    pairs of regions to edges finds the contacts that become one; dead entries stay until it grows.
    """
    num_edges = len(u)
    leads_to = np.empty(2 * num_edges, np.int64)
    after = np.full(2 * num_edges, -1, np.int64)
    before = np.full(2 * num_edges, -1, np.int64)
    head = np.full(num_nodes, -1, np.int64)
    degree = np.zeros(num_nodes, np.int64)
    name = np.arange(num_nodes)
    version = np.zeros(num_edges, np.int64)
    for e in range(num_edges):
        leads_to[2 * e], leads_to[2 * e + 1] = v[e], u[e]
        _link(2 * e, u[e], head, after, before, degree)
        _link(2 * e + 1, v[e], head, after, before, degree)
    keys, edges, used = _rehashed(leads_to, version, num_nodes, num_edges)

    kept, merged, scores = [0], [0], [0.0]
    queue = [(score(contacts, e), e, 0) for e in range(num_edges)]
    heapify(queue)
    while len(queue):
        lowest, e, at_version = heappop(queue)
        if version[e] != at_version:
            continue
        keep, gone = leads_to[2 * e], leads_to[2 * e + 1]
        if degree[keep] < degree[gone]:
            keep, gone = gone, keep
        kept.append(min(name[keep], name[gone]))
        merged.append(max(name[keep], name[gone]))
        scores.append(lowest)
        name[keep] = kept[-1]
        version[e] = DEAD
        for half in (2 * e, 2 * e + 1):
            _unlink(half, leads_to[half ^ 1], head, after, before, degree)

        half = head[gone]
        while half >= 0:
            following, other, moved = after[half], leads_to[half], half >> 1
            twin_half = half ^ 1
            slot = slot_of(_pair(keep, other, num_nodes), keys)
            known = edges[slot] if keys[slot] >= 0 else -1
            joined = moved
            if known >= 0 and version[known] != DEAD:
                joined, dropped = min(moved, known), max(moved, known)
                join(contacts, joined, dropped)
                version[joined] += 1
                version[dropped] = DEAD
                if dropped == known:
                    known_half = 2 * known if leads_to[2 * known] == other else 2 * known + 1
                    _unlink(known_half, keep, head, after, before, degree)
                    _unlink(known_half ^ 1, other, head, after, before, degree)
                else:
                    _unlink(twin_half, other, head, after, before, degree)
                heappush(queue, (score(contacts, joined), joined, version[joined]))
            if joined == moved:
                _link(half, keep, head, after, before, degree)
                leads_to[twin_half] = keep
                if keys[slot] < 0:
                    used += 1
                keys[slot], edges[slot] = _pair(keep, other, num_nodes), moved
                if used * 2 > len(keys):
                    # The rest of the list of `gone` is found by walking it, not by this table.
                    keys, edges, used = _rehashed(leads_to, version, num_nodes, num_edges)
            half = following
    return np.array(kept[1:]), np.array(merged[1:]), np.array(scores[1:])


@njit(cache=True, nogil=True)
def _link(half, node, head, after, before, degree):  # type: ignore[no-untyped-def]
    after[half], before[half] = head[node], -1
    if head[node] >= 0:
        before[head[node]] = half
    head[node] = half
    degree[node] += 1


@njit(cache=True, nogil=True)
def _unlink(half, node, head, after, before, degree):  # type: ignore[no-untyped-def]
    if before[half] >= 0:
        after[before[half]] = after[half]
    else:
        head[node] = after[half]
    if after[half] >= 0:
        before[after[half]] = before[half]
    degree[node] -= 1


@njit(cache=True, nogil=True)
def _pair(a, b, num_nodes):  # type: ignore[no-untyped-def]
    return np.int64(min(a, b)) * num_nodes + max(a, b)


@njit(cache=True, nogil=True)
def _rehashed(leads_to, version, num_nodes, num_edges):  # type: ignore[no-untyped-def]
    """A hash table, at most a quarter full, of the edges that live."""
    alive = 0
    for e in range(num_edges):
        alive += version[e] != DEAD
    capacity = 1 << 10
    while capacity < 4 * alive:
        capacity *= 2
    keys, edges = np.full(capacity, -1, np.int64), np.full(capacity, -1, np.int64)
    for e in range(num_edges):
        if version[e] != DEAD:
            key = _pair(leads_to[2 * e], leads_to[2 * e + 1], num_nodes)
            slot = slot_of(key, keys)
            keys[slot], edges[slot] = key, e
    return keys, edges, alive

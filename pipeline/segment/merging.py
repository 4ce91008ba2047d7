"""The loop of hierarchical agglomeration, and what it knows of the contacts between regions.

One module: numba's cache of a compiled function does not see changes in other files.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload

from pipeline.graph import Histograms, grouped_rows
from pipeline.hashing import slot_of

DEAD = -1


class Means(NamedTuple):
    """Sums and counts of affinities in steps of 1/255; exact below 2^53."""

    total: np.ndarray
    """float64, as ``pairs``, one for each contact."""
    pairs: np.ndarray


class Quantiles(NamedTuple):
    """Histograms of affinities, each a linked list of rows in rising order.

    As in waterz the quantile is the affinity at rank ``percent * pairs // 100 + 1`` from below.
    Of two contacts that join it lies between theirs, as the ranks do.
    """

    first: np.ndarray
    """int64, the lowest row of each contact."""
    pairs: np.ndarray
    """int64, all of its neighbour pairs."""
    after: np.ndarray
    """int64, the row above each row, or -1."""
    affinity: np.ndarray
    """uint8, of each row."""
    contacts: np.ndarray
    """int64, how many of the pairs have it."""
    percent: int

    @classmethod
    def of(cls, histograms: Histograms, percent: int) -> tuple[np.ndarray, np.ndarray, Quantiles]:
        """The contacts of some histograms, in order: their ends, and what is known of them."""
        u, v = histograms.u, histograms.v
        _, first = grouped_rows((u, v))
        contacts = histograms.contacts.astype(np.int64)
        after = np.arange(1, len(u) + 1)
        after[first[1:] - 1] = -1
        after[-1:] = -1
        pairs = np.add.reduceat(contacts, first) if len(first) else contacts
        affinity = histograms.bin.astype(np.uint8)
        return u[first], v[first], cls(first, pairs, after, affinity, contacts, percent)


def score(contacts: Means | Quantiles, e: int) -> float:
    """1 - the affinity of a contact."""
    raise NotImplementedError("compiled code only")


def join(contacts: Means | Quantiles, into: int, other: int) -> None:
    """Add one contact to another."""
    raise NotImplementedError("compiled code only")


@overload(score)
def _score(contacts, e):  # type: ignore[no-untyped-def]
    return _mean_score if contacts.instance_class is Means else _quantile_score


@overload(join)
def _join(contacts, into, other):  # type: ignore[no-untyped-def]
    return _joined_means if contacts.instance_class is Means else _joined_quantiles


def _mean_score(contacts, e):  # type: ignore[no-untyped-def]
    return 1.0 - contacts.total[e] / contacts.pairs[e] / 255.0


def _joined_means(contacts, into, other):  # type: ignore[no-untyped-def]
    contacts.total[into] += contacts.total[other]
    contacts.pairs[into] += contacts.pairs[other]


def _quantile_score(contacts, e):  # type: ignore[no-untyped-def]
    rank = contacts.percent * contacts.pairs[e] // 100 + 1
    row = contacts.first[e]
    seen = contacts.contacts[row]
    while seen < rank:
        row = contacts.after[row]
        seen += contacts.contacts[row]
    return 1.0 - contacts.affinity[row] / 255.0


def _joined_quantiles(contacts, into, other):  # type: ignore[no-untyped-def]
    after, affinity = contacts.after, contacts.affinity
    contacts.pairs[into] += contacts.pairs[other]
    last, mine, theirs = -1, contacts.first[into], contacts.first[other]
    while theirs >= 0:
        if mine >= 0 and affinity[mine] < affinity[theirs]:
            last, mine = mine, after[mine]
        elif mine >= 0 and affinity[mine] == affinity[theirs]:
            contacts.contacts[mine] += contacts.contacts[theirs]
            theirs = after[theirs]
        else:
            following = after[theirs]
            after[theirs] = mine
            if last < 0:
                contacts.first[into] = theirs
            else:
                after[last] = theirs
            last, theirs = theirs, following


@njit(cache=True, nogil=True)
def merges(num_nodes, u, v, contacts):  # type: ignore[no-untyped-def]
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

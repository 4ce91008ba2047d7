"""What is known of the contacts of regions while these merge: it gives a score, and it adds.

``score`` and ``join`` are for compiled code, which picks the right ones by the type of the table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from pipeline.graph import Histograms, grouped_rows


class Means(NamedTuple):
    """Sums and counts of affinities in steps of 1/255; exact below 2^53."""

    total: np.ndarray
    """float64, as ``count``, one for each contact."""
    count: np.ndarray


class Quantiles(NamedTuple):
    """Histograms of affinities, each a linked list of rows in rising order.

    As in waterz the quantile is the affinity at rank ``percent * count // 100 + 1`` from below.
    Of two contacts that join it lies between theirs, as the ranks do.
    """

    first: np.ndarray
    """int64, the lowest row of each contact."""
    count: np.ndarray
    """int64, the sum over its rows."""
    after: np.ndarray
    """int64, the row above each row, or -1."""
    affinity: np.ndarray
    """uint8, of each row."""
    contacts: np.ndarray
    """int64, how many neighbour pairs have it."""
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
        count = np.add.reduceat(contacts, first) if len(first) else contacts
        affinity = histograms.bin.astype(np.uint8)
        return u[first], v[first], cls(first, count, after, affinity, contacts, percent)


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
    return 1.0 - contacts.total[e] / contacts.count[e] / 255.0


def _joined_means(contacts, into, other):  # type: ignore[no-untyped-def]
    contacts.total[into] += contacts.total[other]
    contacts.count[into] += contacts.count[other]


def _quantile_score(contacts, e):  # type: ignore[no-untyped-def]
    rank = contacts.percent * contacts.count[e] // 100 + 1
    row = contacts.first[e]
    seen = contacts.contacts[row]
    while seen < rank:
        row = contacts.after[row]
        seen += contacts.contacts[row]
    return 1.0 - contacts.affinity[row] / 255.0


def _joined_quantiles(contacts, into, other):  # type: ignore[no-untyped-def]
    after, affinity = contacts.after, contacts.affinity
    contacts.count[into] += contacts.count[other]
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

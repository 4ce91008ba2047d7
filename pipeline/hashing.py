"""Small numbers for large ids, and hash tables for compiled loops."""

from __future__ import annotations

import fastremap
import numpy as np
from numba import njit


def densified(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids as small numbers in their order of appearance; 0 stays 0.

    Returns:
        The array in uint32, and the id of each number (uint64; the first is 0).
    """
    dense, numbers = fastremap.renumber(ids, in_place=False)
    back = np.zeros(max(numbers.values(), default=0) + 1, np.uint64)
    back[list(numbers.values())] = list(numbers.keys())
    return dense.astype(np.uint32, copy=False), back


@njit(cache=True, nogil=True)
def slot_of(key, keys):  # type: ignore[no-untyped-def]
    """Slot of a key in a table of a power of two of int64 keys, of which -1 are free.

    At least one slot must be free.
    """
    mask = np.uint64(len(keys) - 1)
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while keys[slot] >= 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def grown(keys, rows, capacity):  # type: ignore[no-untyped-def]
    """A larger table with the same keys, and the row of each key in its new place."""
    more_keys = np.full(capacity, -1, np.int64)
    more_rows = np.zeros((capacity, rows.shape[1]), np.uint64)
    for old in range(len(keys)):
        if keys[old] >= 0:
            slot = slot_of(keys[old], more_keys)
            more_keys[slot] = keys[old]
            more_rows[slot] = rows[old]
    return more_keys, more_rows

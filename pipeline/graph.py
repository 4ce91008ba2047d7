"""Tables about fragments: the region graph, the merge tree, and who belongs to which segment.

Columns of counts and integer sums add, so tables of blocks sum to the table of the whole volume
whatever the blocks were. Edges have ``u < v`` and are sorted by ``(u, v)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np

from pipeline.hashing import densified
from pipeline.tables import Columns


def sum_rows(keys: tuple[np.ndarray, ...], values: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Sort rows by their keys and add the values of equal keys.

    Returns:
        The distinct keys in order, column by column, then the summed values.
    """
    if len(keys[0]) == 0:
        return [*keys, *values]
    order, starts = grouped_rows(keys)
    return [
        *(key[order[starts]] for key in keys),
        *(np.add.reduceat(value[order], starts) for value in values),
    ]


def grouped_rows(keys: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The order that sorts rows by their keys, and where in it each distinct key begins."""
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(order), bool)
    new[:1] = True
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(new)


@dataclass(frozen=True)
class Table:
    """Columns of one length, as attributes."""

    def columns(self) -> Columns:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, columns: Columns) -> Self:
        return cls(**{field.name: columns[field.name] for field in fields(cls)})

    def rows(self, index: slice | np.ndarray) -> Self:
        """Some of the rows."""
        return type(self)(*(column[index] for column in self.columns().values()))

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True)
class Sums(Table):
    """A table of uint64 whose first columns are keys, sorted and distinct; the others add."""

    KEYS: ClassVar[int]

    @classmethod
    def sum_of(cls, tables: Iterable[Self]) -> Self:
        """The table of all blocks together."""
        parts = list(tables)
        columns = [
            np.concatenate([np.zeros(0, np.uint64)] + [getattr(part, field.name) for part in parts])
            for field in fields(cls)
        ]
        return cls(*sum_rows(tuple(columns[: cls.KEYS]), tuple(columns[cls.KEYS :])))


@dataclass(frozen=True)
class RegionGraph(Sums):
    """Contacts between fragments.

    A mean affinity is a quotient of these columns at the very end, never an average of averages.
    """

    KEYS: ClassVar[int] = 2

    u: np.ndarray
    v: np.ndarray
    direct_sum: np.ndarray
    """Sum of uint8 affinities over the direct neighbour pairs that join the two fragments."""
    direct_count: np.ndarray
    across_count: np.ndarray
    """Those of them that join two sections."""
    long_sum: np.ndarray
    """Sum and count over the long-range offsets."""
    long_count: np.ndarray


@dataclass(frozen=True)
class Histograms(Sums):
    """How many direct neighbour pairs that join two fragments have each affinity."""

    KEYS: ClassVar[int] = 3

    u: np.ndarray
    v: np.ndarray
    bin: np.ndarray
    """The uint8 affinity; bins without contacts have no row."""
    contacts: np.ndarray


@dataclass(frozen=True)
class FragmentSizes(Sums):
    """Voxels of each fragment."""

    KEYS: ClassVar[int] = 1

    fragment: np.ndarray
    size_vx: np.ndarray


@dataclass(frozen=True)
class Assignment(Table):
    """Which id each id becomes; uint64, sorted by ``fragment``. 0 stays 0."""

    fragment: np.ndarray
    segment: np.ndarray

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """New ids for an array of any shape; an id without a row keeps itself."""
        if len(self.fragment) == 0:
            return ids.copy()
        dense, distinct = densified(ids)
        position = np.searchsorted(self.fragment, distinct)
        position[position == len(self.fragment)] = 0
        known = self.fragment[position] == distinct
        return np.asarray(np.where(known, self.segment[position], distinct)[dense])

    def without_dust(self, sizes: FragmentSizes, dust_vx: int) -> Assignment:
        """Segments with fewer voxels become background, 0.

        Args:
            sizes: of the same fragments.
        """
        if dust_vx == 0:
            return self
        _, segment = np.unique(self.segment, return_inverse=True)
        voxels = np.zeros(len(self), np.uint64)
        np.add.at(voxels, segment, sizes.size_vx)
        dust = voxels[segment] < dust_vx
        return Assignment(self.fragment, np.where(dust, np.uint64(0), self.segment))


@dataclass(frozen=True)
class MergeTree(Table):
    """Merges of an agglomeration, in the order they were made."""

    a: np.ndarray
    """Smallest fragment id of the region that keeps its id, uint64."""
    b: np.ndarray
    """Smallest fragment id of the region merged into it, uint64."""
    score: np.ndarray
    """1 - affinity of the merge, float64, never decreasing: low scores merge first."""

    @classmethod
    def of_partition(cls, assignment: Assignment) -> MergeTree:
        """Of a partition, which has no order: every merge has score 0.

        Args:
            assignment: a segment is named after its smallest fragment.
        """
        merged = assignment.segment != assignment.fragment
        a, b = assignment.segment[merged], assignment.fragment[merged]
        return cls(a, b, np.zeros(len(a)))

    def cut(self, threshold: float, sizes: FragmentSizes, dust_vx: int = 0) -> Assignment:
        """Segments when every merge with a score below the threshold is made.

        A segment is named after its smallest fragment. As in waterz, a higher threshold merges
        more.

        Args:
            sizes: all fragments, also those that merge with none.
            dust_vx: segments with fewer voxels become background, 0.
        """
        fragments = sizes.fragment
        count = int(np.searchsorted(self.score, threshold, side="left"))
        index = np.arange(len(fragments))
        parent = np.searchsorted(fragments, self.b[:count])
        index[parent] = np.searchsorted(fragments, self.a[:count])
        while True:
            above = index[index]
            if np.array_equal(above, index):
                break
            index = above
        return Assignment(fragments, fragments[index]).without_dust(sizes, dust_vx)

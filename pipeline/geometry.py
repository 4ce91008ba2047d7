"""Where things are: places, offsets between voxels, and the blocks a volume is cut into.

Inside the pipeline a place is a ``Roi`` in *world voxels*: nanometres divided by the voxel size.
That is an exact integer also where the voxel size is not a whole number of nanometres (4.04 nm),
which the integer ``Roi`` of funlib.geometry could not hold in nm. Nanometres appear in run files,
in metadata and in messages, and are converted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from funlib.geometry import Coordinate as Coordinate
from funlib.geometry import Roi as Roi

from pipeline.errors import ConfigError, LayoutError, MetadataError, RoiError

MAX_VOXELS = 2**63 - 2
"""Fragment ids are one plus a linear voxel index, computed in int64; 0 is background."""


class ZYX(NamedTuple):
    """Three integers in the one order of this project."""

    z: int
    y: int
    x: int

    @classmethod
    def of(cls, values: Iterable[int]) -> ZYX:
        z, y, x = (int(value) for value in values)
        return cls(z, y, x)


NO_HALO = ZYX(0, 0, 0)


class Nm(NamedTuple):
    """Three lengths in nanometres, kept as exact decimals."""

    z: Decimal
    y: Decimal
    x: Decimal

    @classmethod
    def of(cls, values: Sequence[object]) -> Nm:
        """Exact lengths from numbers or text; a float is taken as the decimal it prints as.

        Raises:
            MetadataError: not three finite numbers that are 0 or between a fm and 1000 km.
        """
        try:
            lengths = [] if isinstance(values, str) else [Decimal(str(value)) for value in values]
        except (ArithmeticError, TypeError):
            lengths = []
        if len(lengths) != 3 or not all(length.is_finite() for length in lengths):
            raise MetadataError(f"lengths in nm must be three numbers z, y, x; found {values!r}")
        # Beyond that, quotients would not be exact in the 28 digits of a Decimal.
        if any(length and not -7 < length.adjusted() < 16 for length in lengths):
            raise MetadataError(f"lengths in nm must be 1e-6 to 1e15 or 0, found {values!r}")
        return cls(*lengths)

    def numbers(self) -> list[int | float]:
        """As JSON numbers: whole ones as int, others as the float that prints the same."""
        return [int(v) if v == v.to_integral_value() else float(v) for v in self]

    def __str__(self) -> str:
        return "(" + ", ".join(f"{value.normalize():f}" for value in self) + ")"


def checked_voxel_size(values: Sequence[object], where: object) -> Nm:
    """A voxel size in nm, refused unless it is three positive numbers.

    Raises:
        MetadataError: naming ``where``.
    """
    try:
        size = Nm.of(values)
    except MetadataError as error:
        raise MetadataError(f"voxel size of {where}: {error}") from None
    if min(size) <= 0:
        raise MetadataError(f"voxel size must be positive, found {size} nm: {where}")
    return size


def voxels(length_nm: Nm, voxel_size_nm: Nm, what: str) -> ZYX:
    """A place or extent in nm, in whole voxels.

    Raises:
        RoiError: ``length_nm`` is not a whole number of voxels.
    """
    if any(length % size for length, size in zip(length_nm, voxel_size_nm, strict=True)):
        nearest = Nm(*(round(n / s) * s for n, s in zip(length_nm, voxel_size_nm, strict=True)))
        raise RoiError(
            f"{what} must be whole voxels of {voxel_size_nm} nm, found {length_nm} nm\n"
            f"The nearest is {nearest} nm."
        )
    return ZYX(*(int(n / s) for n, s in zip(length_nm, voxel_size_nm, strict=True)))


def nanometres(place_vx: Sequence[int], voxel_size_nm: Nm) -> Nm:
    """A place or extent in voxels, in nm."""
    return Nm(*(int(n) * s for n, s in zip(place_vx, voxel_size_nm, strict=True)))


def describe(roi: Roi, voxel_size_nm: Nm) -> str:
    """A region in nm and voxels, for messages."""
    begin, end = (nanometres(place, voxel_size_nm) for place in (roi.begin, roi.end))
    return f"{begin} to {end} nm (voxels {tuple(roi.begin)} to {tuple(roi.end)})"


def slices(roi: Roi, origin: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """Index of ``roi`` in an array whose first voxel lies at ``origin``."""
    return tuple(
        slice(int(b) - int(o), int(e) - int(o))
        for b, e, o in zip(roi.begin, roi.end, origin, strict=True)
    )


@dataclass(frozen=True)
class Offsets:
    """Channel ``c`` at voxel ``v`` relates ``v`` and ``v + vectors[c]``; direct neighbours first.

    Direct offsets are negative, so that a value is stored at the higher voxel of its pair, as in
    gunpowder, waterz and the reference code of PEA.
    """

    vectors: tuple[ZYX, ...] = (ZYX(-1, 0, 0), ZYX(0, -1, 0), ZYX(0, 0, -1))

    NUM_DIRECT = 3

    def __post_init__(self) -> None:
        direct = (ZYX(-1, 0, 0), ZYX(0, -1, 0), ZYX(0, 0, -1))
        if self.vectors[:3] != direct:
            shown = [list(vector) for vector in self.vectors[:3]]
            raise ConfigError(
                f"offsets must begin with the direct neighbours {[list(v) for v in direct]}, "
                f"found {shown}\n"
                "Channel c at voxel v relates v and v + offset[c]. If the array stores each value "
                "at the lower voxel, shift it by one and negate the offsets."
            )
        if len(set(self.vectors)) != len(self.vectors) or ZYX(0, 0, 0) in self.vectors:
            raise ConfigError(f"offsets must be distinct and not zero, found {self.numbers()}")

    @classmethod
    def of(cls, vectors: Iterable[Sequence[int]]) -> Offsets:
        """Offsets from plain lists.

        Raises:
            ConfigError: not triples of whole numbers.
        """
        try:
            given = [list(vector) for vector in vectors]
            rows = [[int(value) for value in row] for row in given]
        except (TypeError, ValueError, OverflowError):
            given, rows = [], [[0]]
        if rows != given or any(len(row) != 3 for row in rows):
            raise ConfigError(f"an offset must be three whole numbers z, y, x; found {vectors!r}")
        return cls(tuple(ZYX.of(row) for row in rows))

    def __len__(self) -> int:
        return len(self.vectors)

    def numbers(self) -> list[list[int]]:
        return [list(vector) for vector in self.vectors]

    @property
    def halo_below_vx(self) -> ZYX:
        """How far partners reach below a voxel, along each axis."""
        return ZYX(*(max(0, *(-v[axis] for v in self.vectors)) for axis in range(3)))

    @property
    def halo_above_vx(self) -> ZYX:
        """How far partners reach above a voxel, along each axis."""
        return ZYX(*(max(0, *(v[axis] for v in self.vectors)) for axis in range(3)))


@dataclass(frozen=True)
class Block:
    """One piece of a stage's work.

        +--------- read: the block and its halo ----------+
        |        +------- write: owned alone ------+      |
        |        |                                 |      |
        +--------+---------------------------------+------+

    Both are in world voxels, and clipped to the volume: what lies outside does not exist.
    """

    index: int
    write: Roi
    read: Roi

    @property
    def inner(self) -> tuple[slice, ...]:
        """The write box as an index into an array of the read box."""
        return slices(self.write, self.read.begin)


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of a volume, anchored at its first voxel; their write boxes partition it.

    Args:
        total: the volume, in world voxels.
        block_vx: sides of a block; the last ones along an axis may be smaller.
        below_vx: halo towards lower coordinates.
        above_vx: halo towards higher coordinates.

    Raises:
        LayoutError: a side that is not positive.
        RoiError: an empty volume, or one with more voxels than ids.
    """

    total: Roi
    block_vx: ZYX
    below_vx: ZYX = NO_HALO
    above_vx: ZYX = NO_HALO

    def __post_init__(self) -> None:
        if min(self.block_vx) < 1:
            raise LayoutError(f"block_vx must be positive, found {list(self.block_vx)}")
        if self.total.empty:
            raise RoiError(f"a volume must have voxels, found sides {tuple(self.total.shape)}")
        if math.prod(self.total.shape) > MAX_VOXELS:
            raise RoiError(
                f"a volume may have up to 2^63 - 2 voxels, found {tuple(self.total.shape)}\n"
                "Segment a region of it: run.data.roi."
            )

    @property
    def counts(self) -> ZYX:
        """Number of blocks along each axis."""
        return ZYX(*(-(-n // b) for n, b in zip(self.total.shape, self.block_vx, strict=True)))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __iter__(self) -> Iterator[Block]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(index)
        counts, block = self.counts, Coordinate(self.block_vx)
        place = (index // (counts.y * counts.x), index // counts.x % counts.y, index % counts.x)
        write = Roi(self.total.begin + block * Coordinate(place), block).intersect(self.total)
        read = write.grow(Coordinate(self.below_vx), Coordinate(self.above_vx))
        return Block(index, write, read.intersect(self.total))

    def index_at(self, begin: Sequence[int]) -> int:
        """Index of the block whose write box begins at a place."""
        place = [
            (int(b) - int(t)) // n
            for b, t, n in zip(begin, self.total.begin, self.block_vx, strict=True)
        ]
        return (place[0] * self.counts.y + place[1]) * self.counts.x + place[2]

    @property
    def name(self) -> str:
        """Tells this layout from others of the same volume; a directory name."""
        return "x".join(str(side) for side in self.block_vx)

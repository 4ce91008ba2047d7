"""From the values of a source to those a volume stores: types, ranges, and what neither may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from pipeline.errors import ConfigError, DataError, DtypeError
from pipeline.geometry import Offsets
from pipeline.ingest.kinds import Kind
from pipeline.ingest.sources import Source
from pipeline.segment.affinities import affinities_from_interior

MAX_ID = 2**64 - 1
UINT8, UINT16, UINT64 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint64)


def stored_dtype(kind: Kind, dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The type that voxels of a kind are stored in.

    Raises:
        DtypeError: values of ``dtype`` cannot mean ``kind``.
    """
    if kind is Kind.LABELS:
        if dtype.kind == "f":
            exact = np.finfo(dtype).nmant + 1
            raise DtypeError(
                f"labels must be integers, found {dtype}: {where}\n"
                f"{dtype} holds whole numbers exactly up to 2^{exact} only, above that ids have "
                "merged already. Export the labels again as uint32 or uint64."
            )
        return UINT64
    if kind is Kind.MASK:
        if dtype.kind == "f":
            raise DtypeError(
                f"a mask must be bool or integers, found {dtype}: {where}\nThreshold it first."
            )
        return UINT8
    wide = kind is not Kind.AFFINITIES
    if dtype.kind != "f" and dtype != UINT8 and not (wide and dtype == UINT16):
        allowed = "uint8, uint16 or floats in [0, 1]" if wide else "uint8 or floats in [0, 1]"
        raise DtypeError(
            f"{kind} must be {allowed}, found {dtype}: {where}\n"
            "Rescale it to one of these, or say what it is instead: --as KIND."
        )
    return UINT16 if kind is Kind.RAW and dtype == UINT16 else UINT8


def checked_background(ids: Sequence[int], kind: Kind) -> tuple[int, ...]:
    """Ids that become 0.

    Raises:
        ConfigError: not ids, or given for anything but labels.
    """
    if ids and kind is not Kind.LABELS:
        raise ConfigError(f"--background maps ids of labels to 0, this is {kind}\nLeave it out.")
    if any(not 0 <= number <= MAX_ID for number in ids):
        raise ConfigError(f"--background takes ids from 0 to 2^64 - 1, found {list(ids)}")
    return tuple(ids)


class Converter:
    """Turns the planes of one source, slab by slab in order, into the voxels to store.

    The result does not depend on the slabs: of boundary and interior maps the last plane is kept,
    for the affinities between it and the next.
    """

    def __init__(
        self, kind: Kind, source: Source, offsets: Offsets, background: Sequence[int]
    ) -> None:
        self.kind = kind
        self.where = source.where
        self._integers = source.dtype.kind in "ui"
        self._offsets = offsets
        self._unseen = set(background)
        self._background = tuple(background)
        self._plane_below: np.ndarray | None = None
        self._low, self._high = np.inf, -np.inf
        self._next = 0

    def __call__(self, planes: np.ndarray) -> np.ndarray:
        """The voxels of the next planes.

        Raises:
            DataError: floats that are NaN, infinite or outside [0, 1]. DtypeError: negative labels.
        """
        self._low = min(self._low, planes.min())
        self._high = max(self._high, planes.max())
        match self.kind:
            case Kind.LABELS:
                stored = self._labels(planes)
            case Kind.MASK:
                stored = (planes != 0).view(np.uint8)
            case Kind.RAW | Kind.AFFINITIES:
                stored = (
                    planes if planes.dtype.kind == "u" else np.rint(self._fractions(planes) * 255)
                )
            case Kind.BOUNDARY | Kind.INTERIOR:
                stored = self._map_affinities(self._fractions(planes))
        self._next += planes.shape[-3]
        return stored

    def warnings(self) -> list[str]:
        """What looks wrong in the voxels seen so far, although it may be meant."""
        unseen = sorted(self._unseen)
        found = [f"background id {number} does not occur: {self.where}" for number in unseen]
        whole_mask = self.kind is Kind.MASK and self._low > 0
        if self._low == self._high and not whole_mask:
            found.append(f"every voxel has the value {self._low}: {self.where}")
        elif self._integers and self._high == 1 and self.kind not in (Kind.LABELS, Kind.MASK):
            found.append(f"all values are 0 or 1, nearly black as {self.kind}: {self.where}")
        return found

    def _labels(self, planes: np.ndarray) -> np.ndarray:
        if planes.dtype.kind == "i" and planes.min() < 0:
            negative = planes < 0
            raise DtypeError(
                f"labels must not be negative, found {planes[negative][0]} in {planes.dtype} at "
                f"voxel {self._first(negative)}: {self.where}\n"
                f"Export them as uint64; -1 is then {MAX_ID}: --background {MAX_ID} makes it 0."
            )
        stored = planes.astype(np.uint64)
        for number in self._background:
            here = planes == number
            if here.any():
                stored[here] = 0
                self._unseen.discard(number)
        return stored

    def _fractions(self, planes: np.ndarray) -> np.ndarray:
        """Floats in [0, 1]; unsigned integers stand for fractions of their largest value."""
        if planes.dtype.kind == "u":
            return planes / np.float32(np.iinfo(planes.dtype).max)
        if not (planes.min() >= 0 and planes.max() <= 1):  # also where one of them is NaN
            self._refuse(planes)
        return planes.astype(np.result_type(planes, np.float32), copy=False)

    def _map_affinities(self, fractions: np.ndarray) -> np.ndarray:
        interior = 1 - fractions if self.kind is Kind.BOUNDARY else fractions
        if self._plane_below is None:
            affinities = affinities_from_interior(interior, self._offsets)
        else:
            both = np.concatenate([self._plane_below, interior])
            affinities = affinities_from_interior(both, self._offsets)[:, 1:]
        self._plane_below = interior[-1:].copy()
        return affinities

    def _refuse(self, planes: np.ndarray) -> NoReturn:
        bad, what = ~np.isfinite(planes), "NaN or infinite"
        remedy = "Replace them, e.g. by 0, before it is ingested."
        if not bad.any():
            bad, what = (planes < 0) | (planes > 1), "outside"
            remedy = "Store values from 0 to 255 as uint8; rescale or clip others."
        begin, end = self._next, self._next + planes.shape[-3]
        raise DataError(
            f"floats of {self.kind} must lie in [0, 1]: {self.where}\n"
            f"In planes {begin} to {end} {bad.sum()} voxels are {what}, the first is "
            f"{planes[bad][0]} at {self._first(bad)}.\n{remedy}"
        )

    def _first(self, where: np.ndarray) -> tuple[int, ...]:
        index = [int(i) for i in np.unravel_index(where.argmax(), where.shape)]
        index[-3] += self._next
        return tuple(index)

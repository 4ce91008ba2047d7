"""A region of a volume as it is to be written: which voxels, and which numbers stand for labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np

from pipeline.errors import ConfigError, DataError
from pipeline.geometry import ZYX, BlockGrid, Nm, Roi, nanometres
from pipeline.volume import Volume

READ_VX = ZYX(64, 256, 256)
LABELS = ("labels", "basins", "fragments", "segmentation")
Count = Callable[[int], None]
"""Told the voxels that were dealt with since it was last told."""


@dataclass(frozen=True)
class Cut:
    """A region of a volume."""

    volume: Volume
    roi: Roi
    """In world voxels."""
    dtype: np.dtype[Any]
    ids: np.ndarray | None = None
    """Sorted, 0 first: each label is written as its place in here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(z, y, x)`` or ``(channel, z, y, x)``."""
        channels = self.volume.spec.channels
        return tuple(self.roi.shape) if channels is None else (channels, *self.roi.shape)

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def num_voxels(self) -> int:
        return int(np.prod(tuple(self.roi.shape), dtype=object))

    @property
    def meaning(self) -> str:
        """What the volume says it is; of one that says nothing, what its axes and type tell."""
        spec = self.volume.spec
        if spec.meaning:
            return spec.meaning
        if spec.channels is not None:
            return "affinities"
        return "labels" if np.dtype(spec.dtype) in (np.uint32, np.uint64) else "raw"

    @property
    def is_labels(self) -> bool:
        return self.meaning in LABELS

    @property
    def voxel_size_nm(self) -> Nm:
        return self.volume.spec.voxel_size_nm

    @property
    def offset_nm(self) -> Nm:
        return nanometres(self.roi.begin, self.voxel_size_nm)

    def attributes(self) -> dict[str, Any]:
        """Place and pairs of channels, as the attributes of funlib, gunpowder and CREMI."""
        size = self.voxel_size_nm.numbers()
        found: dict[str, Any] = {
            "resolution": size,
            "voxel_size": size,
            "offset": self.offset_nm.numbers(),
            "units": "nm",
        }
        return found | self.neighborhood()

    def neighborhood(self) -> dict[str, Any]:
        """Of affinities, which pairs their channels hold."""
        offsets = self.volume.spec.offsets
        if offsets is None:
            return {}
        return {"neighborhood": offsets.numbers(), "neighborhood_anchor": "source"}

    def read(self, roi: Roi) -> np.ndarray:
        """Voxels of a part, as they are written."""
        voxels = self.volume.read(roi)
        if self.ids is not None:
            return np.searchsorted(self.ids, voxels).astype(self.dtype)
        return voxels.astype(self.dtype, copy=False)

    def blocks(self) -> BlockGrid:
        return BlockGrid(self.roi, READ_VX)


def must_look(cut: Cut, dtype: str | None, dense: bool) -> bool:
    """Whether the ids have to be seen before any is written."""
    return dense or (dtype is not None and np.dtype(dtype).itemsize < cut.dtype.itemsize)


def narrowed(cut: Cut, dtype: str | None, dense: bool, count: Count) -> Cut:
    """The same labels in another type, or counted 1, 2, ... in ascending order of their ids.

    Args:
        dtype: uint16, uint32 or uint64; that of the volume if omitted.

    Raises:
        ConfigError: the volume does not hold labels. DataError: ids that do not fit.
    """
    if dtype is None and not dense:
        return cut
    if not cut.is_labels:
        raise ConfigError(
            f"a type and new ids can be chosen for labels only, {cut.volume.path} is {cut.meaning}"
        )
    wanted = cut.dtype if dtype is None else np.dtype(dtype)
    if not must_look(cut, dtype, dense):
        return Cut(cut.volume, cut.roi, wanted)
    ids, largest = np.zeros(1, cut.dtype), 0
    for block in cut.blocks():
        voxels = cut.read(block.write)
        if dense:
            ids = np.union1d(ids, fastremap.unique(voxels))
        else:
            largest = max(largest, int(voxels.max()))
        count(voxels.size)
    highest = len(ids) - 1 if dense else largest
    if highest > np.iinfo(wanted).max:
        remedy = (
            "Take a wider type, or a smaller region: --roi."
            if dense
            else "Number them anew with --dense, or take a wider type."
        )
        raise DataError(
            f"ids must fit {wanted}, up to {np.iinfo(wanted).max}; the highest is {highest}: "
            f"{cut.volume.path}\n{remedy}"
        )
    return Cut(cut.volume, cut.roi, wanted, ids if dense else None)

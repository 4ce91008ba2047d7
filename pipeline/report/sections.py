"""Planes through the volumes of a run, small enough to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import ZYX, Nm, Roi, nanometres
from pipeline.volume import Volume

NAMES = ("raw", "affinities", "fragments", "segmentation", "truth")
"""What can be shown of a run, in the order of the panels."""
LABELS = NAMES[2:]
PLANES = ("xy", "zx", "zy")
"""Across z, y and x. Rows go down along y, z and z."""


@dataclass(frozen=True)
class Section:
    """One plane through volumes on one voxel grid."""

    axis: int
    """It is cut across."""
    roi: Roi
    """One voxel thick, in world voxels."""
    voxel_size_nm: Nm
    images: Mapping[str, np.ndarray]
    """By the name of the volume: ``(row, column)``; of affinities ``(3, row, column)``."""

    def __post_init__(self) -> None:
        assert set(self.images) <= set(NAMES), list(self.images)

    @property
    def name(self) -> str:
        return PLANES[self.axis]

    @property
    def size_nm(self) -> tuple[float, float]:
        """Height and width."""
        sides = nanometres(self.roi.shape, self.voxel_size_nm).numbers()
        height, width = (side for axis, side in enumerate(sides) if axis != self.axis)
        return height, width

    @property
    def place_nm(self) -> float:
        """Of its voxels along the axis it is cut across."""
        return nanometres(self.roi.begin, self.voxel_size_nm).numbers()[self.axis]


def read_section(volumes: Mapping[str, Volume], roi: Roi, axis: int) -> Section:
    """Read a plane of each volume.

    Args:
        roi: inside all of them, one voxel thick across the axis.

    Raises:
        DataError: a chunk is missing or damaged.
    """
    images = {}
    for name, volume in volumes.items():
        data = volume.read(roi, slice(0, 3)) if name == "affinities" else volume.read(roi)
        images[name] = np.take(data, 0, axis=data.ndim - 3 + axis)
    size = next(iter(volumes.values())).spec.voxel_size_nm
    return Section(axis, roi, size, images)


def common(volumes: Mapping[str, Volume], region: Roi) -> tuple[dict[str, Volume], Roi]:
    """The volumes that share voxels with a region, and what of it they all cover.

    Raw beside affinities was never checked: with other voxels or elsewhere it is left out.
    """
    kept: dict[str, Volume] = {}
    for name in sorted(volumes, key=lambda name: (name == "raw", NAMES.index(name))):
        volume = volumes[name]
        size = next(iter(kept.values()), volume).spec.voxel_size_nm
        plain = name == "affinities" or volume.spec.channels is None
        if plain and volume.spec.voxel_size_nm == size and not volume.roi.intersect(region).empty:
            kept[name] = volume
            region = region.intersect(volume.roi)
    return {name: kept[name] for name in NAMES if name in kept}, region


def window(centre: Sequence[int], inside: Roi, voxel_size_nm: Nm, side_vx: int) -> Roi:
    """A cube around a place, as far as it lies inside a region.

    Args:
        centre: in world voxels.
        side_vx: of the cube, in voxels of the finest axis; thicker voxels are fewer.
    """
    finest = min(voxel_size_nm)
    sides = [max(1, int(side_vx * finest / size)) for size in voxel_size_nm]
    shape = [min(side, int(n)) for side, n in zip(sides, inside.shape, strict=True)]
    begin = [
        min(max(int(c) - side // 2, int(low)), int(high) - side)
        for c, side, low, high in zip(centre, shape, inside.begin, inside.end, strict=True)
    ]
    return Roi(ZYX.of(begin), ZYX.of(shape))


def plane(box: Roi, place: Sequence[int], axis: int) -> Roi:
    """The plane of a box across an axis at a place."""
    begin, shape = list(box.begin), list(box.shape)
    begin[axis], shape[axis] = int(place[axis]), 1
    return Roi(ZYX.of(begin), ZYX.of(shape))


def middle(box: Roi) -> ZYX:
    return ZYX.of(box.begin + box.shape / 2)

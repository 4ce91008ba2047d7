"""TIFF: a stack, or a file for each section.

What ImageJ reads by itself has its metadata: 8 and 16 bits, up to 4 GB. All else is OME-TIFF. Both
hold the voxel size; an offset is in neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffWriter

from pipeline.errors import DataError, DtypeError, ShapeError
from pipeline.export.cut import Count, Cut
from pipeline.geometry import Coordinate, Roi
from pipeline.ngff import AXES

SLAB_BYTES = 2**28
MAX_PLANES = 64
MAX_CLASSIC_BYTES = 2**32 - 2**26
"""Less than 4 GiB, with room for the tags."""
IMAGEJ_TYPES = (np.uint8, np.uint16, np.float32)
OME_TYPES = (*IMAGEJ_TYPES, np.uint32, np.float64)


def check_tiff(cut: Cut) -> None:
    """Refuse what TIFF cannot hold.

    Raises:
        ShapeError: channels. DataError: 64-bit labels. DtypeError: any other type.
    """
    path = cut.volume.path
    if len(cut.shape) != 3:
        raise ShapeError(
            f"a TIFF stack has axes (z, y, x), found shape {cut.shape}: {path}\n"
            "Export it as HDF5, N5 or precomputed."
        )
    if cut.is_labels and cut.dtype == np.uint64:
        raise DataError(
            f"programs that read TIFF know ids of up to 32 bits, these are uint64: {path}\n"
            "Give --dtype uint32, or uint16 for ImageJ; with --dense if ids are higher."
        )
    if cut.dtype not in OME_TYPES:
        raise DtypeError(
            f"TIFF holds uint8, uint16, uint32, float32 and float64, found {cut.dtype}: {path}\n"
            "Export it as HDF5."
        )


def write_stack(path: Path, cut: Cut, count: Count) -> None:
    """All planes in one file."""
    imagej = cut.num_bytes < MAX_CLASSIC_BYTES and cut.dtype in IMAGEJ_TYPES
    with TiffWriter(
        path, bigtiff=cut.num_bytes >= MAX_CLASSIC_BYTES, imagej=imagej, ome=not imagej
    ) as file:
        file.write(
            planes(cut, count), shape=cut.shape, dtype=cut.dtype, **described(cut, imagej, "ZYX")
        )


def write_sections(path: Path, cut: Cut, count: Count) -> None:
    """A folder of ``z00000.tif``, ``z00001.tif``, ..."""
    path.mkdir()
    imagej = cut.dtype in IMAGEJ_TYPES
    for number, plane in enumerate(planes(cut, count)):
        with TiffWriter(path / f"z{number:05d}.tif", imagej=imagej, ome=not imagej) as file:
            file.write(plane, **described(cut, imagej, "YX"))


def planes(cut: Cut, count: Count) -> Iterator[np.ndarray]:
    """Planes one after the other; a slab of them is in memory."""
    num_planes, *sides = cut.shape
    plane_bytes = int(np.prod(sides)) * max(cut.dtype.itemsize, cut.volume.dtype.itemsize)
    at_once = min(MAX_PLANES, max(1, SLAB_BYTES // plane_bytes))
    for begin in range(0, num_planes, at_once):
        thick = min(at_once, num_planes - begin)
        slab = Roi(cut.roi.begin + Coordinate(begin, 0, 0), (thick, *sides))
        yield from cut.read(slab)
        count(thick * sides[0] * sides[1])


def described(cut: Cut, imagej: bool, axes: str) -> dict[str, Any]:
    """How tifffile is told the voxel size."""
    sizes = dict(zip(AXES, map(float, cut.voxel_size_nm), strict=True))
    if imagej:
        metadata = {"axes": axes, "spacing": sizes["z"], "unit": "nm"}
        resolution = {"resolution": (1 / sizes["x"], 1 / sizes["y"])}
        return {"metadata": metadata, "photometric": "minisblack", **resolution}
    metadata = {"axes": axes}
    for axis, size in sizes.items():
        metadata |= {f"PhysicalSize{axis.upper()}": size, f"PhysicalSize{axis.upper()}Unit": "nm"}
    return {"metadata": metadata, "photometric": "minisblack"}

"""Zarr arrays of others, version 2 or 3, alone or as the finest level of an OME-NGFF group.

A chunk that a foreign array lacks reads as its fill value, as the format means it; only the volumes
that this pipeline writes promise every chunk. Codecs that unpickle are refused by Zarr itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, MetadataError
from pipeline.geometry import Nm, checked_voxel_size
from pipeline.ingest.lengths import check_axes, in_nm, place_from_attributes
from pipeline.ingest.sources import Place, Source, check_plane, reading, zarr_parts
from pipeline.location import Location, has_file
from pipeline.ngff import AXES, first_multiscale, level_names, level_place
from pipeline.volume import group_attributes, open_array

METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(folder: Location) -> bool:
    """Whether a folder is, or lies in, something with a Zarr name or metadata."""
    path = folder if isinstance(folder, Path) else folder.path
    named = any(part.suffix == ".zarr" for part in (path, *path.parents))
    return named or any(has_file(folder, name) for name in METADATA_FILES)


@contextmanager
def zarr_source(path: Location, dataset: str | None) -> Iterator[Source]:
    """An array at ``path``, or at ``dataset`` below it.

    Voxel size and offset are the array's own attributes if it has them, else those of its OME-NGFF
    group. NGFF places voxel centres; the centre of the finest level counts as its offset.

    Raises:
        NotFoundError: nothing there. FormatError: unreadable metadata or an unknown codec.
        MetadataError: axes in another order than z, y, x.
    """
    inner = (dataset or "").strip("/")
    if ".." in inner.split("/"):
        raise ConfigError(f"--dataset must be a path inside {path}, found {dataset}")
    target = path / inner
    location, array, group = open_array(target, 0, "r")
    where = str(location)
    with reading(where):
        group = group or group_attributes(location.parent)
        attributes: dict[str, Any] = dict(array.attrs)
        dimensions = getattr(array.metadata, "dimension_names", None) or ()  # of Zarr v3
        names = [str(name).lower() for name in dimensions]
    check_plane(array.chunks, array.dtype, where)
    check_axes(attributes.get("axis_names", []), where)
    if set(AXES) <= set(names):
        check_axes(names, where)
    level = next((name for name in level_names(group) if where.endswith(f"/{name}")), None)
    if level is not None:
        check_axes(
            [_axis(axis).get("name", "") for axis in first_multiscale(group).get("axes", [])], where
        )

    def place() -> Place:
        own = place_from_attributes(attributes, where)
        if own.voxel_size_nm is not None or level is None:
            return own
        return _ome_place(group, level, where)

    root, inside = zarr_parts(location if isinstance(location, Path) else location.path)
    yield Source(
        where=where,
        file=root.name,
        dataset=inside or None,
        shape=tuple(array.shape),
        dtype=np.dtype(array.dtype).newbyteorder("="),
        load=lambda begin, end: np.asarray(array[..., begin:end, :, :]),
        place=place,
        attributes=attributes,
    )


def _axis(axis: object) -> dict[str, Any]:
    """Of an axis in NGFF 0.4 or 0.5, its object; of one in 0.3, which is only a name, the same."""
    return axis if isinstance(axis, dict) else {"name": str(axis)}


def _ome_place(group: Mapping[str, Any], level: str, where: str) -> Place:
    multiscale = first_multiscale(group)
    try:
        size, offset = level_place(group, level)
        for transform in multiscale.get("coordinateTransformations", []):
            if transform["type"] == "scale":
                scale = Nm.of(transform["scale"][-3:])
                size, offset = (
                    Nm(*(a * b for a, b in zip(v, scale, strict=True))) for v in (size, offset)
                )
            elif transform["type"] == "translation":
                shift = Nm.of(transform["translation"][-3:])
                offset = Nm(*(a + b for a, b in zip(offset, shift, strict=True)))
    except (KeyError, IndexError, TypeError, StopIteration, MetadataError) as error:
        raise MetadataError(
            f"the OME-NGFF metadata must give each level a scale z, y, x: {where}: {error!r}\n"
            "Correct them, or give --voxel-size Z,Y,X in nm."
        ) from error
    units = [_axis(axis).get("unit", "") for axis in multiscale.get("axes", [])][-3:]
    what = f"OME-NGFF scale of {where}"
    size = checked_voxel_size(in_nm(size, units, what), where)
    return Place(size, in_nm(offset, units, what))

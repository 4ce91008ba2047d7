"""N5 and Neuroglancer precomputed, on a disk or a server, through tensorstore.

Both count axes x, y, z; here they are turned round. A chunk that is missing reads as 0, as both
formats mean it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, MetadataError, NotFoundError
from pipeline.geometry import Nm, checked_voxel_size
from pipeline.ingest.lengths import check_axes, in_nm, place_from_attributes
from pipeline.ingest.sources import Place, Source, check_plane, reading
from pipeline.ingest.stores import opened, read_json
from pipeline.location import Location, has_file
from pipeline.ngff import AXES

PRECOMPUTED_FILE = "info"
N5_FILE = "attributes.json"
XYZ = tuple(reversed(AXES))


def is_precomputed(place: Location) -> bool:
    """Whether a folder holds a precomputed volume."""
    return has_file(place, PRECOMPUTED_FILE)


def is_n5(place: Location) -> bool:
    """Whether a folder is, or lies in, something with an N5 name or metadata."""
    path = place if isinstance(place, Path) else place.path
    named = any(part.suffix == ".n5" for part in (path, *path.parents))
    return named or has_file(place, N5_FILE)


@contextmanager
def precomputed_source(place: Location, scale: str | None) -> Iterator[Source]:
    """A scale of a precomputed volume, by its key; the finest if none is named.

    Raises:
        NotFoundError: no ``info``, or no such scale; lists them. FormatError: unreadable.
        MetadataError: a scale without size or place.
    """
    info = read_json(place, PRECOMPUTED_FILE)
    if info is None:
        raise NotFoundError(f"no precomputed volume at {place}: it has no file info")
    try:
        scales = {str(each["key"]): each for each in info["scales"]}
        key = next(iter(scales)) if scale is None else scale
        if key not in scales:
            raise NotFoundError(f"no scale {key} in {place}\nIt has: {', '.join(scales)}")
        size = Nm.of(scales[key]["resolution"][::-1])
        begin = Nm.of(scales[key].get("voxel_offset", [0, 0, 0])[::-1])
    except (LookupError, TypeError) as error:
        raise MetadataError(
            f"info must give each scale a key and a resolution: {place}: {error!r}\n"
            "Correct it, or make the volume again."
        ) from error
    where = f"{place}/{key}"
    size = checked_voxel_size(size, where)
    with reading(where):
        array = opened("neuroglancer_precomputed", place, scale_index=list(scales).index(key))
        channels = array.shape[-1]
        array = array[..., 0].T if channels == 1 else array.T
    stated = Place(size, Nm(*(b * s for b, s in zip(begin, size, strict=True))))
    yield source_of(array, where, place, None, info, lambda: stated)


@contextmanager
def n5_source(place: Location, dataset: str | None) -> Iterator[Source]:
    """A data set of an N5 container, or level ``s0`` of a group of them.

    Raises:
        NotFoundError: no data set there. FormatError: unreadable.
        MetadataError: axes in another order than x, y, z, or a resolution in an unknown order.
    """
    inner = (dataset or "").strip("/")
    if ".." in inner.split("/"):
        raise ConfigError(f"--dataset must be a path inside {place}, found {dataset}")
    target = place / inner
    attributes = read_json(target, N5_FILE) or {}
    if "dimensions" not in attributes:
        target = target / "s0"
        finest = read_json(target, N5_FILE) or {}
        if "dimensions" not in finest:
            raise NotFoundError(
                f"no N5 data set at {place / inner}, nor a level s0 below it\n"
                "Name one: --dataset PATH"
            )
        attributes |= finest
    where = str(target)
    with reading(where):
        array = opened("n5", target)
        names = [str(name).lower() for name in attributes.get("axes", [])]
    check_axes(names[::-1] if set(XYZ) <= set(names) else [], where)
    path = target if isinstance(target, Path) else target.path
    yield source_of(
        array.T, where, place, path.name, attributes, lambda: n5_place(attributes, where)
    )


def source_of(
    array: Any,
    where: str,
    container: Location,
    dataset: str | None,
    attributes: Mapping[str, Any],
    stated: Callable[[], Place],
) -> Source:
    """A source of a tensorstore whose axes are in order."""
    begin_z = array.domain.inclusive_min[-3]
    dtype = np.dtype(array.dtype.numpy_dtype)
    check_plane(tuple(array.chunk_layout.read_chunk.shape), dtype, where)
    return Source(
        where=where,
        file=container.name,
        dataset=dataset,
        shape=tuple(array.shape),
        dtype=dtype,
        load=lambda begin, end: array[..., begin_z + begin : begin_z + end, :, :].read().result(),
        place=stated,
        attributes=attributes,
    )


def n5_place(attributes: Mapping[str, Any], where: str) -> Place:
    """Voxel size and offset of an N5 data set, by whichever convention its attributes follow.

    ``transform`` (CellMap) names its axes; ``pixelResolution`` (Fiji) is x, y, z; ``resolution``
    is in the order of ``axes`` (tensorstore) or ``axis_names`` (funlib). CellMap places voxel
    centres; the centre of the finest level counts as its offset, as in OME-NGFF.

    Raises:
        MetadataError: an unknown unit, or a resolution whose order nothing tells.
    """
    transform, pixel = attributes.get("transform"), attributes.get("pixelResolution")
    try:
        if transform is not None:
            order = [[str(axis) for axis in transform["axes"]].index(axis) for axis in AXES]
            size, offset = (
                in_nm(
                    [transform[key][n] for n in order],
                    [transform["units"][n] for n in order],
                    f"transform of {where}",
                )
                for key in ("scale", "translate")
            )
            return Place(checked_voxel_size(size, where), offset)
        if pixel is not None:
            lengths = list(pixel["dimensions"])[:3][::-1]
            size = in_nm(lengths, pixel["unit"], f"pixelResolution of {where}")
            return Place(checked_voxel_size(size, where))
    except (LookupError, TypeError, ValueError) as error:
        raise MetadataError(
            f"transform and pixelResolution must be as CellMap and Fiji write them: {where}: "
            f"{error!r}\nCorrect them, or give --voxel-size Z,Y,X in nm."
        ) from error
    return place_from_attributes(in_zyx(attributes, where), where)


def in_zyx(attributes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Attributes whose lengths are z, y, x, whatever order they were in.

    Raises:
        MetadataError: it makes a difference, and neither ``axes`` nor ``axis_names`` tells.
    """
    lengths = {
        key: attributes[key] for key in ("resolution", "offset", "voxel_size") if key in attributes
    }
    names = [str(n).rstrip("^").lower() for n in attributes.get("axis_names", [])]
    axes = [str(n).lower() for n in attributes.get("axes", [])]
    found = {**lengths, **{k: attributes[k] for k in ("units", "unit") if k in attributes}}
    if names[-3:] == list(AXES) or all(len(set(map(str, v))) == 1 for v in lengths.values()):
        return found
    if axes[:3] == list(XYZ):
        return {
            key: value if isinstance(value, str) else list(value[:3])[::-1]
            for key, value in found.items()
        }
    raise MetadataError(
        f"nothing tells whether these lengths are z, y, x or x, y, z: {lengths}: {where}\n"
        "Give --voxel-size Z,Y,X and, if not zero, --offset Z,Y,X in nm."
    )

"""The volume that a source becomes: its shape, type, place and offsets, before a voxel is read."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ConfigError, MetadataError, ShapeError
from pipeline.geometry import ZYX, Nm, Offsets, checked_voxel_size, voxels
from pipeline.ingest.convert import stored_dtype
from pipeline.ingest.kinds import Kind
from pipeline.ingest.planes import ALL_PLANES, Planes
from pipeline.ingest.sources import Place, Source
from pipeline.spec import VolumeSpec


def volume_spec(
    source: Source,
    kind: Kind,
    voxel_size: Nm | None,
    offset: Nm | None,
    offsets: Offsets | None,
    shard_vx: ZYX,
    planes: Planes = ALL_PLANES,
) -> tuple[VolumeSpec, list[str]]:
    """The volume to make, and warnings about the metadata it is made from.

    Args:
        voxel_size: of the file; overrides what it states.
        offset: of the first voxel of the source; overrides what the file states; 0 if neither does.
        offsets: of affinities; overrides the attribute ``neighborhood``.
        planes: of the file, that the source holds.

    Raises:
        ShapeError: another number of axes than the kind has, or of channels than of offsets.
        DtypeError: a type that cannot mean the kind.
        MetadataError: no voxel size, or no offsets of channels.
        RoiError: an offset that is not a whole number of voxels.
    """
    num_axes = 4 if kind is Kind.AFFINITIES else 3
    if len(source.shape) != num_axes:
        raise ShapeError(
            f"{kind} must have {num_axes} axes, found shape {source.shape}: {source.where}\n"
            "Choose another data set, or say what it is: --as KIND."
        )
    dtype = stored_dtype(kind, source.dtype, source.where)
    size, offset_nm, warnings = _placed(source, voxel_size, offset, planes)
    channels = _channels(source, kind, offsets)
    shape = (len(channels), *source.shape[-3:]) if channels else source.shape
    spec = VolumeSpec(shape, dtype.name, size, offset_nm, kind.meaning, shard_vx, channels)
    return spec, warnings


def _placed(
    source: Source, voxel_size: Nm | None, offset: Nm | None, planes: Planes
) -> tuple[Nm, Nm, list[str]]:
    """Voxel size and offset, from the user before the file; a file that differs is a warning."""
    warnings = []
    try:
        place = source.place()
    except MetadataError as error:
        if voxel_size is None:
            raise
        place = Place()
        warnings.append(f"the voxel size given is used, as the file's cannot be: {error}")
    size = voxel_size or place.voxel_size_nm
    if size is None:
        raise MetadataError(
            f"the voxel size must be known, the file does not state it: {source.where}\n"
            "Give it in nm: --voxel-size Z,Y,X"
        )
    size = checked_voxel_size(size, source.where)
    stated_offset = place.offset_nm and planes.offset(place.offset_nm, size)
    pairs = {"voxel size": (voxel_size, place.voxel_size_nm), "offset": (offset, stated_offset)}
    for what, (given, stated) in pairs.items():
        if given is not None and stated is not None and given != stated:
            warnings.append(f"the {what} given, {given} nm, replaces {stated} nm: {source.where}")
    start = offset or stated_offset or planes.offset(Nm.of([0, 0, 0]), size)
    size = planes.voxel_size(size)
    hint = "" if planes.step == 1 else " (of the first plane taken)"
    voxels(start, size, f"--offset{hint}, or the offset of {source.where},")
    return size, start, warnings


def _channels(source: Source, kind: Kind, offsets: Offsets | None) -> Offsets | None:
    """Offsets of the channels to be stored; none if the kind has no channels."""
    if kind is Kind.AFFINITIES:
        return _affinity_offsets(source, offsets)
    if offsets is not None:
        raise ConfigError(f"offsets belong to affinities, this is {kind}: {source.where}")
    return Offsets() if kind.meaning == Kind.AFFINITIES else None


def _affinity_offsets(source: Source, offsets: Offsets | None) -> Offsets:
    anchor = source.attributes.get("neighborhood_anchor", "source")
    if anchor not in ("source", b"source"):
        raise MetadataError(
            f"an affinity must be stored at voxel v of its pair (v, v + offset): {source.where}\n"
            f"its neighborhood_anchor is {anchor!r}; shift each channel and negate the offsets."
        )
    stated: Any = source.attributes.get("neighborhood")
    num_channels = source.shape[0]
    if offsets is None and stated is None and num_channels != Offsets.NUM_DIRECT:
        raise MetadataError(
            f"{num_channels} channels need an offset each, there is no attribute neighborhood: "
            f"{source.where}\nSet it on the array: a list of z, y, x offsets."
        )
    try:
        found = offsets or (Offsets() if stated is None else Offsets.of(stated))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"attribute neighborhood of {source.where}: {error}") from error
    if len(found) != num_channels:
        raise ShapeError(
            f"affinities need one offset for each channel, found {num_channels} channels, "
            f"{len(found)} offsets: {source.where}\nCorrect the attribute neighborhood."
        )
    return found

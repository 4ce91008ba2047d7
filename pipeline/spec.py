"""What a volume is, apart from its voxels, and how its attributes say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import MetadataError, ShapeError
from pipeline.geometry import ZYX, Nm, Offsets, Roi, checked_voxel_size, voxels
from pipeline.location import Location
from pipeline.ngff import AXES, first_multiscale, level_names, level_place

if TYPE_CHECKING:
    import zarr

MAX_CHUNK_VX = 64
DEFAULT_SHARD_VX = ZYX(64, 256, 256)
NANOMETRE = ("nm", "nanometer", "nanometers", "nanometre", "nanometres")


def chunk_of(shard_vx: ZYX) -> ZYX:
    """Chunk sides that divide a shard: at most 64 voxels each, unless only slivers would divide."""

    def side(shard: int) -> int:
        best = max(n for n in range(1, min(shard, MAX_CHUNK_VX) + 1) if shard % n == 0)
        return best if best * 4 >= min(shard, MAX_CHUNK_VX) else shard

    return ZYX(*(side(n) for n in shard_vx))


@dataclass(frozen=True)
class VolumeSpec:
    """What a volume is, apart from its voxels."""

    shape: tuple[int, ...]
    """``(z, y, x)``, or ``(channel, z, y, x)``."""
    dtype: str
    voxel_size_nm: Nm
    offset_nm: Nm
    """Place of the lower corner of the first voxel."""
    meaning: str
    """raw, labels, affinities, mask, fragments or segmentation."""
    shard_vx: ZYX = DEFAULT_SHARD_VX
    """The unit of writing: one process owns a shard. Chunks, the unit of reading, divide it."""
    offsets: Offsets | None = None
    """Of affinities: one per channel."""

    def __post_init__(self) -> None:
        if len(self.shape) not in (3, 4) or min(self.shape) < 1:
            raise ShapeError(
                "a volume has axes (z, y, x) or (channel, z, y, x), none empty; "
                f"found shape {self.shape}"
            )
        if self.offsets is not None and self.channels != len(self.offsets):
            raise ShapeError(
                f"affinities need one channel for each offset: {self.channels} channels, "
                f"{len(self.offsets)} offsets {self.offsets.numbers()}"
            )

    @property
    def channels(self) -> int | None:
        return self.shape[0] if len(self.shape) == 4 else None

    @property
    def roi(self) -> Roi:
        """The region covered, in world voxels."""
        return Roi(self.offset_vx, self.shape[-3:])

    @property
    def offset_vx(self) -> ZYX:
        """World voxel of the first voxel.

        Raises:
            RoiError: the offset is not a whole number of voxels.
        """
        return voxels(self.offset_nm, self.voxel_size_nm, "the offset of a volume")

    def attributes(self) -> dict[str, Any]:
        """Attributes of one array: those of funlib.persistence, of gunpowder, and ours."""
        size, channel = self.voxel_size_nm.numbers(), len(self.shape) == 4
        attributes: dict[str, Any] = {
            "voxel_size": size,
            "resolution": size,
            "offset": self.offset_nm.numbers(),
            "units": ["nm", "nm", "nm"],
            "axis_names": ["c^", *AXES] if channel else list(AXES),
            "types": ["channel", "space", "space", "space"] if channel else ["space"] * 3,
            "meaning": self.meaning,
        }
        if self.offsets is not None:
            attributes |= {
                "neighborhood": self.offsets.numbers(),
                # The value of the pair (v, v + offset) is stored at v.
                "neighborhood_anchor": "source",
                "affinity_kind": "same",
            }
        return attributes


def read_spec(array: zarr.Array[Any], group: Mapping[str, Any], where: Location) -> VolumeSpec:
    """What an array is, from its attributes or those of its multiscale group.

    Raises:
        ShapeError: not three or four axes; MetadataError: axes in another order, another unit than
        nm, no voxel size or one that contradicts itself, values at the other voxel of a pair.
    """
    attributes: dict[str, Any] = dict(array.attrs)
    if array.ndim not in (3, 4):
        raise ShapeError(
            f"a volume has axes (z, y, x) or (channel, z, y, x), found {array.ndim} axes: {where}"
        )
    _check_axes(array, attributes, group, where)
    size, offset = _place(array, attributes, group, where)
    neighborhood = attributes.get("neighborhood")
    if neighborhood is not None and attributes.get("neighborhood_anchor", "source") != "source":
        raise MetadataError(
            f"an affinity must be stored at voxel v of its pair (v, v + offset): {where}\n"
            f"its neighborhood_anchor is {attributes['neighborhood_anchor']!r}\n"
            "Shift it by one voxel, and negate the offsets."
        )
    return VolumeSpec(
        shape=tuple(array.shape),
        dtype=str(array.dtype),
        voxel_size_nm=size,
        offset_nm=offset,
        meaning=str(attributes.get("meaning", "")),
        shard_vx=ZYX.of((array.shards or array.chunks)[-3:]),
        offsets=Offsets.of(neighborhood) if neighborhood is not None else None,
    )


def _check_axes(
    array: zarr.Array[Any], attributes: Mapping[str, Any], group: Mapping[str, Any], where: Location
) -> None:
    """Raise if anything says that the axes are not z, y, x in nm."""
    names = [str(name).rstrip("^") for name in attributes.get("axis_names", [])]
    if names and names[-3:] != list(AXES):
        raise MetadataError(f"axes must end in z, y, x; axis_names says {names}: {where}")
    dimensions = getattr(array.metadata, "dimension_names", None) or ()
    _refuse_other_order(dimensions, "dimension_names", where)
    axes = first_multiscale(group).get("axes", [])
    _refuse_other_order([axis.get("name") for axis in axes], "multiscales", where)
    units = attributes.get("units", [])
    if any(unit not in (*NANOMETRE, "") for unit in ([units] if isinstance(units, str) else units)):
        raise MetadataError(
            f"lengths must be in nm, units says {units}: {where}\nIngest it: pea ingest."
        )


def _refuse_other_order(names: Sequence[object], source: str, where: Location) -> None:
    """Raise if the last three axes have the names z, y, x in another order."""
    last = [str(name).rstrip("^").lower() for name in names][-3:]
    if sorted(last) == sorted(AXES) and last != list(AXES):
        raise MetadataError(
            f"axes must end in z, y, x; {source} says {', '.join(last)}: {where}\n"
            "Transpose it, or ingest it: pea ingest SOURCE DEST"
        )


def _place(
    array: zarr.Array[Any], attributes: Mapping[str, Any], group: Mapping[str, Any], where: Location
) -> tuple[Nm, Nm]:
    """Voxel size and offset: of the array itself, else of its multiscale group."""
    sizes = {
        key: checked_voxel_size(attributes[key], f"{where} ({key})")
        for key in ("voxel_size", "resolution")
        if key in attributes
    }
    offset = Nm.of(attributes["offset"]) if "offset" in attributes else None
    if not sizes and level_names(group):
        for axis in first_multiscale(group).get("axes", []):
            if axis.get("type") == "space" and axis.get("unit") not in (*NANOMETRE, None):
                raise MetadataError(f"lengths must be in nm, axis {axis} is not: {where}")
        size, place = level_place(group, array.basename)
        return checked_voxel_size(size, where), offset or place
    if not sizes:
        raise MetadataError(
            f"voxel size is not known: {where} has no attribute voxel_size or resolution\n"
            "Ingest it with one: pea ingest SOURCE DEST --voxel-size Z,Y,X"
        )
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{key} {value}" for key, value in sizes.items())
        raise MetadataError(f"voxel sizes contradict each other: {shown} nm: {where}")
    return next(iter(sizes.values())), offset or Nm.of([0, 0, 0])

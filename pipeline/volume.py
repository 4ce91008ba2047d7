"""Arrays on disk: the only module that knows Zarr.

A volume is an OME-NGFF 0.5 multiscale group whose levels ``s0``, ``s1``, ... are Zarr v3 arrays,
sharded, each chunk compressed with zstd and its checksum. Every chunk of a finished volume exists,
so a chunk that is missing is an error and never reads as zeros. Each array also carries the
attributes that funlib, gunpowder and daisy users expect.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.errors import BaseZarrError

from pipeline.errors import (
    DataError,
    DtypeError,
    ExistsError,
    FormatError,
    LayoutError,
    MetadataError,
    NotFoundError,
    PipelineError,
    RoiError,
    ShapeError,
)
from pipeline.geometry import ZYX, Nm, Offsets, Roi, checked_voxel_size, describe, slices, voxels
from pipeline.ngff import AXES, first_multiscale, level_names, level_place, multiscales

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


class Volume:
    """An open array with its place in the world.

    ``read`` returns exactly the voxels asked for, and ``write`` accepts only whole shards, so two
    processes that write different boxes never touch one file.
    """

    def __init__(self, path: Path, array: zarr.Array[Any], spec: VolumeSpec) -> None:
        self.path = path
        self.spec = spec
        self._array = array

    @classmethod
    def create(
        cls,
        path: Path,
        spec: VolumeSpec,
        attributes: Mapping[str, Any] | None = None,
        level: str = "s0",
    ) -> Volume:
        """Make an empty volume, or a further level of one.

        Raises:
            ExistsError: something is already there.
        """
        target = path / level
        if target.exists() and not is_unfinished(target):
            raise ExistsError(
                f"there is already an array at {target}\nRemove it, or choose another name."
            )
        channel = spec.channels is not None
        shard, chunk = spec.shard_vx, chunk_of(spec.shard_vx)
        if path.parent.suffix == ".zarr":
            open_group(path.parent)
        group = open_group(path)
        # The group first: a crash in between leaves a level to make, and not one without a name.
        levels = {name: level_place(group.attrs, name) for name in level_names(group.attrs)}
        levels[level] = (spec.voxel_size_nm, spec.offset_nm)
        group.attrs["ome"] = multiscales(path.name, channel, levels)
        array = zarr.create_array(
            target,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=(1, *chunk) if channel else chunk,
            shards=(*spec.shape[:-3], *shard),
            compressors=[ZstdCodec(level=1, checksum=True)],
            fill_value=0,
            dimension_names=["c", *AXES] if channel else list(AXES),
            attributes={**spec.attributes(), **(attributes or {})},
            config={"write_empty_chunks": True, "read_missing_chunks": False},
        )
        return cls(target, array, spec)

    @classmethod
    def open(cls, path: Path, level: int = 0, writable: bool = False) -> Volume:
        """Open an array, or a level of a multiscale group, of Zarr v2 or v3.

        Raises:
            NotFoundError: nothing there; FormatError: not a readable array; DtypeError: not of
            numbers; MetadataError: no voxel size, or one that contradicts itself; ShapeError: not
            three or four axes.
        """
        try:
            where, array, group = open_array(path, level, "r+" if writable else "r")
            refuse_objects(array, path)
            array = array.with_config({"write_empty_chunks": True, "read_missing_chunks": False})
            return cls(where, array, read_spec(array, group, path))
        except PipelineError as error:
            if str(path) in str(error):
                raise
            raise type(error)(f"{error}\nin {path}") from None
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise MetadataError(
                f"{path} has metadata that are not those of a volume: {first_line(error)}\n"
                "Mend its attributes, or ingest it: pea ingest SOURCE DEST"
            ) from error

    @staticmethod
    def remove(level: Path) -> None:
        """Delete one level of a volume; with the last level, the volume."""
        shutil.rmtree(level, ignore_errors=True)
        if not (level.parent / "zarr.json").exists():
            return
        group = zarr.open_group(level.parent, mode="r+")
        channel = len(first_multiscale(group.attrs).get("axes", [])) == 4
        left = {
            name: level_place(group.attrs, name)
            for name in level_names(group.attrs)
            if (level.parent / name).exists()
        }
        if left:
            group.attrs["ome"] = multiscales(level.parent.name, channel, left)
        else:
            shutil.rmtree(level.parent)

    def at_origin(self) -> Volume:
        """The same array with its first voxel at world voxel 0.

        Coarse levels need it: their offset is not a whole number of their voxels.
        """
        spec = replace(self.spec, offset_nm=Nm.of([0, 0, 0]))
        return Volume(self.path, self._array, spec)

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._array.attrs)

    def set_attributes(self, **values: Any) -> None:
        self._array.update_attributes(values)

    @property
    def roi(self) -> Roi:
        """The region covered, in world voxels.

        Raises:
            RoiError: the offset is not a whole number of voxels.
        """
        try:
            return self.spec.roi
        except RoiError as error:
            raise RoiError(f"{error}\nin {self.path}") from None

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._array.dtype)

    def read(self, roi: Roi, channels: slice = slice(None)) -> np.ndarray:
        """The voxels of a region.

        Raises:
            RoiError: part of it lies outside; DataError: a chunk is missing or damaged.
        """
        if not self.roi.contains(roi):
            size = self.spec.voxel_size_nm
            raise RoiError(
                f"a region must lie inside its volume: {self.path}\n"
                f"asked for {describe(roi, size)}\nthe volume has {describe(self.roi, size)}"
            )
        try:
            return np.asarray(self._array[self._index(roi, channels)])
        except (BaseZarrError, ValueError, RuntimeError, EOFError, OSError) as error:
            raise DataError(
                f"damaged or missing chunk in {self.path}, voxels {tuple(roi.begin)} to "
                f"{tuple(roi.end)}: {first_line(error)}\n"
                "Make it again: an array of yours by `pea ingest`, one of a run by `pea drop`."
            ) from error

    def write(self, roi: Roi, data: np.ndarray) -> None:
        """Write whole shards.

        Raises:
            LayoutError: the region is not whole shards; ShapeError: data of another shape.
        """
        index = self._index(roi)
        expected = (
            tuple(roi.shape) if self.spec.channels is None else (self.spec.channels, *roi.shape)
        )
        if data.shape != expected:
            raise ShapeError(
                f"data for {tuple(roi.shape)} voxels of {self.path} have shape {data.shape}"
            )
        for axis, part, shard, side in zip(
            AXES, index[-3:], self.spec.shard_vx, self.spec.shape[-3:], strict=True
        ):
            if part.start % shard or (part.stop % shard and part.stop != side):
                raise LayoutError(
                    f"a write must cover whole shards: {self.path}\nalong {axis} it covers "
                    f"{part.start} to {part.stop}, shards have {shard} voxels"
                )
        try:
            self._array[index] = data
        except (BaseZarrError, ValueError, RuntimeError, EOFError):
            # Where a shard reaches beyond the array zarr reads it first, and it may be damaged.
            for file in self.shards(roi):
                file.unlink(missing_ok=True)
            self._array[index] = data

    def shards(self, roi: Roi) -> list[Path]:
        """The files that hold a region."""
        ranges = [
            range(part.start // shard, -(-part.stop // shard))
            for part, shard in zip(self._index(roi)[-3:], self.spec.shard_vx, strict=True)
        ]
        prefix = self.path / "c" if self.spec.channels is None else self.path / "c" / "0"
        return [
            prefix / str(z) / str(y) / str(x)
            for z in ranges[0]
            for y in ranges[1]
            for x in ranges[2]
        ]

    def _index(self, roi: Roi, channels: slice = slice(None)) -> tuple[slice, ...]:
        index = slices(roi, self.spec.offset_vx)
        return index if self.spec.channels is None else (channels, *index)


def open_array(path: Path, level: int, mode: Any) -> tuple[Path, zarr.Array[Any], dict[str, Any]]:
    """The array at a path or in its multiscale group: its path, itself, the group's attributes."""
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path} cannot be a path: {type(error).__name__}") from None
    if not there:
        raise NotFoundError(f"no volume at {path}{suggestion(path)}")
    try:
        node = zarr.open(path, mode=mode)
    except (BaseZarrError, ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise FormatError(
            f"{path} is not a Zarr array or group that can be read: "
            f"{first_line(error)}{suggestion(path)}"
        ) from error
    if isinstance(node, zarr.Array):
        return path, node, {}
    attributes = dict(node.attrs)
    names = level_names(attributes)
    if not names:
        raise FormatError(
            f"{path} is a group without multiscale levels, not an array{suggestion(path)}"
        )
    if level >= len(names):
        raise NotFoundError(f"{path} has levels {names}, not {level}")
    if Path(names[level]).is_absolute() or ".." in Path(names[level]).parts:
        raise FormatError(f"a level must lie inside its group, found {names[level]!r}: {path}")
    try:
        array = node[names[level]]
    except KeyError:
        raise FormatError(f"{path} names a level {names[level]} that does not exist") from None
    except (BaseZarrError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise FormatError(
            f"{path}/{names[level]} is not a Zarr array that can be read: {first_line(error)}"
        ) from error
    if not isinstance(array, zarr.Array):
        raise FormatError(f"{path}/{names[level]} is not an array")
    return path / names[level], array, attributes


def open_group(path: Path) -> zarr.Group:
    """A group, made if there is nothing.

    Raises:
        ExistsError: there is something else.
    """
    try:
        return zarr.open_group(path, mode="a", zarr_format=3)
    except (BaseZarrError, FileExistsError, NotADirectoryError, ValueError, TypeError) as error:
        raise ExistsError(
            f"a group of volumes must lie at {path}, found something else: {first_line(error)}\n"
            "Move it away, or choose another name."
        ) from error


def is_unfinished(target: Path) -> bool:
    """Whether a crash left nothing of an array but its folder."""
    return target.is_dir() and all(entry.suffix == ".partial" for entry in target.iterdir())


def refuse_objects(array: zarr.Array[Any], where: Path) -> None:
    """Raise unless an array holds plain numbers: others may run code when they are read."""
    if np.dtype(array.dtype).kind not in "buif":
        raise DtypeError(f"an array must hold integers or floats, found {array.dtype}: {where}")


def refuse_other_order(names: Sequence[object], source: str, where: Path) -> None:
    """Raise if the last three axes have the names z, y, x in another order."""
    last = [str(name).rstrip("^").lower() for name in names][-3:]
    if sorted(last) == sorted(AXES) and last != list(AXES):
        raise MetadataError(
            f"axes must end in z, y, x; {source} says {', '.join(last)}: {where}\n"
            "Transpose it, or ingest it: pea ingest SOURCE DEST"
        )


def read_spec(array: zarr.Array[Any], group: Mapping[str, Any], where: Path) -> VolumeSpec:
    """What an array is, from its attributes or those of its multiscale group."""
    attributes: dict[str, Any] = dict(array.attrs)
    if array.ndim not in (3, 4):
        raise ShapeError(
            f"a volume has axes (z, y, x) or (channel, z, y, x), found {array.ndim} axes: {where}"
        )
    names = [str(name).rstrip("^") for name in attributes.get("axis_names", [])]
    if names and names[-3:] != list(AXES):
        raise MetadataError(f"axes must end in z, y, x; axis_names says {names}: {where}")
    refuse_other_order(
        getattr(array.metadata, "dimension_names", None) or (), "dimension_names", where
    )
    refuse_other_order(
        [axis.get("name") for axis in first_multiscale(group).get("axes", [])], "multiscales", where
    )
    units = attributes.get("units", [])
    if any(unit not in (*NANOMETRE, "") for unit in ([units] if isinstance(units, str) else units)):
        raise MetadataError(
            f"lengths must be in nm, units says {units}: {where}\nIngest it: pea ingest."
        )
    sizes: dict[str, Nm] = {
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
        sizes, offset = {"multiscales": checked_voxel_size(size, where)}, offset or place
    if not sizes:
        raise MetadataError(
            f"voxel size is not known: {where} has no attribute voxel_size or resolution\n"
            "Ingest it with one: pea ingest SOURCE DEST --voxel-size Z,Y,X"
        )
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{key} {value}" for key, value in sizes.items())
        raise MetadataError(f"voxel sizes contradict each other: {shown} nm: {where}")
    size = next(iter(sizes.values()))
    shard = array.shards or array.chunks
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
        offset_nm=offset or Nm.of([0, 0, 0]),
        meaning=str(attributes.get("meaning", "")),
        shard_vx=ZYX.of(shard[-3:]),
        offsets=Offsets.of(neighborhood) if neighborhood is not None else None,
    )


def first_line(error: Exception) -> str:
    """A library's error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def suggestion(path: Path) -> str:
    """What arrays there are near a path, as a line to end a message with."""
    root = path
    while not root.exists() and root != root.parent:
        root = root.parent
    while root != root.parent and (root.parent / "zarr.json").exists():
        root = root.parent
    if not (root / "zarr.json").exists() and root.suffix != ".zarr":
        return ""
    found = sorted(
        str(entry.parent.relative_to(root))
        for entry in [
            *root.glob("*/zarr.json"),
            *root.glob("*/*/zarr.json"),
            *root.glob("*/.zarray"),
        ]
        if entry.name == ".zarray" or _is_array_file(entry)
    )
    return f"\n{root} has: {', '.join(found)}" if found else f"\n{root} has no arrays"


def _is_array_file(entry: Path) -> bool:
    try:
        return bool(json.loads(entry.read_text())["node_type"] == "array")
    except (ValueError, KeyError, TypeError):
        return False

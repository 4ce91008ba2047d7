"""Arrays on disk: the only module that knows Zarr.

A volume is an OME-NGFF 0.5 multiscale group whose levels ``s0``, ``s1``, ... are Zarr v3 arrays,
sharded, each chunk compressed with zstd and its checksum. Every chunk of a finished volume exists,
so a chunk that is missing is an error and never reads as zeros. Each array also carries the
attributes that funlib, gunpowder and daisy users expect.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.errors import BaseZarrError, ContainsArrayError, GroupNotFoundError

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
    first_line,
)
from pipeline.geometry import Nm, Roi, describe, slices
from pipeline.location import Location, server_errors, zarr_store
from pipeline.ngff import AXES, first_multiscale, level_names, level_place, multiscales
from pipeline.spec import VolumeSpec, chunk_of, read_spec

Errors = tuple[type[Exception], ...]
READ_ERRORS: Errors = (BaseZarrError, ValueError, RuntimeError, EOFError, OSError)
"""What zarr raises of damaged chunks."""
OPEN_ERRORS: Errors = (
    BaseZarrError, ValueError, TypeError, KeyError, OSError, NotImplementedError,
)  # fmt: skip
"""What zarr raises of damaged metadata."""


class Volume:
    """An open array with its place in the world.

    ``read`` returns exactly the voxels asked for, and ``write`` accepts only whole shards, so two
    processes that write different boxes never touch one file.
    """

    def __init__(self, path: Location, array: zarr.Array[Any], spec: VolumeSpec) -> None:
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
    def open(cls, path: Location, level: int = 0, writable: bool = False) -> Volume:
        """Open an array, or a level of a multiscale group, of Zarr v2 or v3; on a server to read.

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

    @property
    def zarr_format(self) -> int:
        return int(self._array.metadata.zarr_format)

    @property
    def axis_names(self) -> list[str | None]:
        """What the array itself calls its axes; xarray does so by an attribute in Zarr v2."""
        given: Any = (
            self._array.attrs.get("_ARRAY_DIMENSIONS")
            if self.zarr_format == 2
            else getattr(self._array.metadata, "dimension_names", None)
        )
        return list(given or [None] * self._array.ndim)

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
        except READ_ERRORS + server_errors(self.path) as error:
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
        assert isinstance(self.path, Path), f"files of a volume on a server: {self.path}"
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


def open_array(
    path: Location, level: int, mode: Any
) -> tuple[Location, zarr.Array[Any], dict[str, Any]]:
    """The array at a path or in its multiscale group: its path, itself, the group's attributes."""
    try:
        there = not isinstance(path, Path) or path.exists()
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path} cannot be a path: {type(error).__name__}") from None
    if not there:
        raise NotFoundError(f"no volume at {path}{suggestion(path)}")
    try:
        node = zarr.open(zarr_store(path), mode=mode)
    except server_errors(path) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    except OPEN_ERRORS as error:
        if isinstance(error, GroupNotFoundError) and not isinstance(path, Path):
            raise NotFoundError(f"no volume at {path}, or it may not be read") from None
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
    except server_errors(path) as error:
        raise DataError(f"{path}/{names[level]} cannot be read: {first_line(error)}") from error
    except OPEN_ERRORS as error:
        raise FormatError(
            f"{path}/{names[level]} is not a Zarr array that can be read: {first_line(error)}"
        ) from error
    if not isinstance(array, zarr.Array):
        raise FormatError(f"{path}/{names[level]} is not an array")
    return path / names[level], array, attributes


def group_attributes(path: Location) -> dict[str, Any]:
    """Attributes of the group at a path; none if there is no group."""
    try:
        return dict(zarr.open_group(zarr_store(path), mode="r").attrs)
    except (GroupNotFoundError, ContainsArrayError):
        return {}


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


def refuse_objects(array: zarr.Array[Any], where: Location) -> None:
    """Raise unless an array holds plain numbers: others may run code when they are read."""
    if np.dtype(array.dtype).kind not in "buif":
        raise DtypeError(f"an array must hold integers or floats, found {array.dtype}: {where}")


def suggestion(path: Location) -> str:
    """What arrays there are near a path, as a line to end a message with."""
    if not isinstance(path, Path):
        return ""
    root = path
    while not root.exists() and root != root.parent:
        root = root.parent
    while root != root.parent and (root.parent / "zarr.json").exists():
        root = root.parent
    if not (root / "zarr.json").exists() and root.suffix != ".zarr":
        if path.exists():
            return ""
        return f"\nPaths are relative to {Path.cwd()}; `pea ingest` makes volumes."
    found = sorted(
        str(entry.parent.relative_to(root))
        for depth in range(1, 5)
        for name in ("zarr.json", ".zarray")
        for entry in root.glob("*/" * depth + name)
        if name == ".zarray" or _is_array_file(entry)
    )
    return f"\n{root} has: {', '.join(found)}" if found else f"\n{root} has no arrays"


def _is_array_file(entry: Path) -> bool:
    try:
        return bool(json.loads(entry.read_text())["node_type"] == "array")
    except (ValueError, KeyError, TypeError):
        return False

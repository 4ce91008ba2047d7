"""What every file format gives: an array that is read plane by plane, and where it says it lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import DtypeError, FormatError, PipelineError, ShapeError
from pipeline.geometry import Nm
from pipeline.location import SCHEME

MAX_PLANE_BYTES = 2**40
"""More in one plane, page or chunk is a damaged or hostile header, refused before allocation."""


class Place(NamedTuple):
    """What a file says of its place in the world, in nm; None where it says nothing."""

    voxel_size_nm: Nm | None = None
    offset_nm: Nm | None = None


@dataclass(frozen=True)
class Source:
    """An array in a file, not yet read.

    Raises:
        ShapeError: not ``(z, y, x)`` or ``(channel, z, y, x)``, or an empty side.
        DtypeError: voxels that are not real numbers.
        FormatError: a plane of absurd size.
    """

    where: str
    """The path, and the data set in it; for messages."""
    file: str
    """Name of the file or folder, without the folders it lies in."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """In the byte order of this machine, whatever that of the file."""
    load: Callable[[int, int], np.ndarray]
    """Planes ``begin`` to ``end`` along z, all channels."""
    place: Callable[[], Place]
    """Raises MetadataError where the file contradicts itself or uses an unknown unit."""
    dataset: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.shape) not in (3, 4) or min(self.shape) < 1:
            raise ShapeError(
                "a volume has axes (z, y, x) or (channel, z, y, x), none empty; "
                f"found shape {self.shape}: {self.where}\n"
                "Export it as a stack of planes, one channel and one time point."
            )
        if self.dtype.kind not in "buif":
            raise DtypeError(
                f"voxels must be integers or real numbers, found {self.dtype}: {self.where}\n"
                "Convert the array before it is ingested."
            )
        check_plane(self.shape[-2:], self.dtype, self.where)

    @property
    def num_planes(self) -> int:
        return self.shape[-3]

    @property
    def description(self) -> str:
        return f"{self.where}, shape {self.shape}, {self.dtype}"

    def read(self, begin: int, end: int) -> np.ndarray:
        """Planes ``begin`` to ``end`` along z, all channels.

        Raises:
            FormatError: they are damaged, cut short, or encoded in an unknown way.
        """
        with reading(f"{self.where}, planes {begin} to {end},"):
            planes = self.load(begin, end)
        expected = (*self.shape[:-3], end - begin, *self.shape[-2:])
        assert planes.shape == expected, f"reader gave {planes.shape} for {expected}: {self.where}"
        return planes.astype(self.dtype, copy=False)


def check_plane(shape: tuple[int, ...], dtype: np.dtype[Any], where: object) -> None:
    """Refuse a plane or chunk that no sound file declares.

    Raises:
        FormatError: more than 2^40 bytes.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_PLANE_BYTES:
        raise FormatError(
            f"a plane or chunk may have up to 2^40 bytes, found {size} of {shape} {dtype}: "
            f"{where}\nThe file is damaged; export it again."
        )


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Turn whatever a library says of a broken file into a FormatError.

    The decoders raise errors of a dozen types on damaged bytes, some undocumented, hence the wide
    net; nothing of this pipeline's own may be called inside it except the read itself.
    """
    try:
        yield
    except (PipelineError, MemoryError):
        raise
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")
        advice = "It is damaged, cut short or encoded in an unknown way; copy or export it again."
        if SCHEME.match(str(where)):
            advice = "The server failed or refused, or it is damaged: try again, or download it."
        raise FormatError(
            f"{where} cannot be read: {type(error).__name__}: {text}\n{advice}"
        ) from error


def zarr_parts(path: PurePath) -> tuple[PurePath, str]:
    """A path cut behind its first part that ends in ``.zarr``; all of it, and "", if none does."""
    for root in reversed([path, *path.parents]):
        if root.suffix == ".zarr":
            return root, "/".join(path.relative_to(root).parts)
    return path, ""

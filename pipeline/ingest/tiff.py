"""TIFF: the grey pages of one file as planes, read one at a time.

Only the chain of pages counts. The series that tifffile assembles for microscope formats are left
alone, since they may open other files that the metadata name. ImageJ writes stacks above 4 GB as
one page followed by the rest of the voxels; that is read too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile, TiffPage

from pipeline.errors import DtypeError, FormatError, MetadataError, ShapeError
from pipeline.ingest.lengths import in_nm
from pipeline.ingest.sources import Place, Source, check_plane, reading

MILLION = 1_000_000
Header = tuple[tuple[int, ...], np.dtype[Any]]


@contextmanager
def tiff_source(path: Path) -> Iterator[Source]:
    """All pages of a TIFF file, as ``(z, y, x)``.

    Raises:
        FormatError: not TIFF, cut short, RGB, or a hyperstack with channels or times.
        ShapeError: a single page, or pages of different sizes.
    """
    with opened(path) as tiff:
        with reading(path):
            shape, dtype = page_header(tiff, 0, path)
            num_planes = _num_planes(tiff, path)
            num_pages = len(tiff.pages)
        _check_end(tiff, path, num_planes, num_pages)
        for index in range(1, num_pages):
            header = page_header(tiff, index, path)
            if header != (shape, dtype):
                raise ShapeError(
                    f"pages must be alike, page 0 has {shape} {dtype}, page {index} {header[0]} "
                    f"{header[1]}: {path}\nExport the stack without previews and other images."
                )
        first = tiff.pages.first
        begin_of_voxels = first.dataoffsets[0]

        def pages(begin: int, end: int) -> np.ndarray:
            return np.stack([tiff.pages[index].asarray() for index in range(begin, end)])

        def following(begin: int, end: int) -> np.ndarray:
            side = shape[0] * shape[1]
            start = begin_of_voxels + begin * side * dtype.itemsize
            stored = dtype.newbyteorder(tiff.byteorder)
            values = np.fromfile(path, stored, (end - begin) * side, offset=start)
            return values.reshape(end - begin, *shape)

        yield Source(
            where=str(path),
            file=path.name,
            shape=(num_planes, *shape) if num_planes > 1 else shape,
            dtype=dtype,
            load=pages if num_pages == num_planes else following,
            place=lambda: tiff_place(tiff, path),
        )


@contextmanager
def opened(path: Path) -> Iterator[TiffFile]:
    """A TIFF file, without the series of OME, which could lie in other files."""
    with reading(path):
        tiff = TiffFile(path, is_ome=False)
        len(tiff.pages)
    with tiff:
        yield tiff


def page_header(tiff: TiffFile, index: int, path: Path) -> Header:
    """Shape and type of a page, checked.

    Raises:
        FormatError: not a grey plane, of absurd size, or its voxels lie behind the end of the file.
    """
    with reading(f"{path}, page {index},"):
        page = tiff.pages[index]
        assert isinstance(page, TiffPage)
        end = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    if page.axes != "YX":
        raise FormatError(
            f"a page must be one grey plane, found axes {page.axes}, shape {page.shape}: "
            f"{path}, page {index}\nExport it without colour (in ImageJ: Image > Type > 8-bit)."
        )
    if page.dtype is None:
        raise DtypeError(f"page {index} has no type of voxel that NumPy knows: {path}")
    check_plane(page.shape, page.dtype, f"{path}, page {index},")
    if end > tiff.filehandle.size:
        raise FormatError(
            f"page {index} must end inside the file, it ends at byte {end} of "
            f"{tiff.filehandle.size}: {path}\nThe file is cut short; copy it again."
        )
    return page.shape, page.dtype


def _num_planes(tiff: TiffFile, path: Path) -> int:
    """Planes that the file's metadata declare, else its number of pages."""
    imagej = tiff.imagej_metadata or {}
    pixels = _ome_pixels(tiff)
    channels = int(imagej.get("channels", pixels.get("SizeC", 1)))
    slices = int(imagej.get("slices", pixels.get("SizeZ", 1)))
    times = int(imagej.get("frames", pixels.get("SizeT", 1)))
    if channels > 1 or (slices > 1 and times > 1):
        raise FormatError(
            f"a stack must have one channel and one time, {path} has {channels} channels, "
            f"{slices} slices, {times} times\n"
            "Save one channel as a stack of its own (in ImageJ: Image > Color > Split Channels)."
        )
    if imagej or pixels:
        return int(imagej.get("images", max(slices, times)))
    # What tifffile writes into the first page: the shape of the whole array.
    description = tiff.pages.first.description
    shape = json.loads(description)["shape"] if description.startswith('{"shape":') else []
    leading = shape[:-2]
    if sum(side > 1 for side in leading) > 1:
        raise FormatError(
            f"a TIFF stack must have axes z, y, x, found shape {shape}: {path}\n"
            "Give affinities as HDF5 or Zarr."
        )
    return math.prod(leading) if leading else len(tiff.pages)


def _check_end(tiff: TiffFile, path: Path, num_planes: int, num_pages: int) -> None:
    """Refuse a file whose planes are not all there; tifffile itself stops at the last that is."""
    first = tiff.pages.first
    if num_pages == 1 < num_planes and first.is_contiguous:
        end = first.dataoffsets[0] + num_planes * first.nbytes
        if end <= tiff.filehandle.size:
            return
    elif num_pages == num_planes:
        with reading(path):
            tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
            raw = tiff.filehandle.read(tiff.tiff.offsetsize)
            (following,) = struct.unpack(tiff.tiff.offsetformat, raw)
        if following == 0:
            return
    raise FormatError(
        f"all planes must be in the file, it tells of {num_planes} or more and has {num_pages} "
        f"whole pages: {path}\nIt may be cut short at page {num_pages}; copy or export it again."
    )


def tiff_place(tiff: TiffFile, path: Path) -> Place:
    """Voxel size from ImageJ's metadata and resolution tags, or from OME-XML.

    Raises:
        MetadataError: an unknown unit, or sides missing.
    """
    imagej, pixels = tiff.imagej_metadata or {}, _ome_pixels(tiff)
    if pixels:
        keys = [f"PhysicalSize{axis}" for axis in "ZYX"]
        lengths: list[object] = [pixels.get(key) for key in keys]
        units = [pixels.get(f"{key}Unit", "µm") for key in keys]  # the schema's default
    else:
        unit = imagej.get("unit", "pixel")
        units = [imagej.get("zunit", unit), imagej.get("yunit", unit), unit]
        tags = [tiff.pages.first.tags.get(f"{axis}Resolution") for axis in "YX"]
        lengths = [imagej.get("spacing"), *(tag and _length_of(*tag.value) for tag in tags)]
    if lengths == [None] * 3 or set(units) & {"pixel", "pixels", ""}:
        return Place()
    if None in lengths:
        raise MetadataError(
            f"a voxel size needs three sides z, y, x, found {lengths} {units}: {path}\n"
            "Give --voxel-size Z,Y,X in nm."
        )
    return Place(in_nm(lengths, units, f"voxel size of {path}"))


def _ome_pixels(tiff: TiffFile) -> dict[str, str]:
    """Attributes of the first Pixels element of the OME-XML; empty if there is none."""
    page = tiff.pages.first
    if not page.is_ome:
        return {}
    if "<!DOCTYPE" in page.description:  # of which OME-XML has no need, and entity bombs are made
        raise FormatError(
            f"OME-XML must not have a document type: {tiff.filename}\nExport it again."
        )
    with reading(tiff.filename):
        pixels = ElementTree.fromstring(page.description).find(".//{*}Pixels")  # noqa: S314
    return dict(pixels.attrib) if pixels is not None else {}


def _length_of(numerator: int, denominator: int) -> Decimal | None:
    """Length of a voxel from its resolution tag, voxels per unit; None if that is no number.

    ImageJ rounds the resolution to millionths, so that 0.006 µm is stored as 166666667 / 1000000.
    As with a float, the shortest decimal that is stored as the same number is meant.
    """
    if not numerator or not denominator:
        return None
    length = Decimal(denominator) / Decimal(numerator)
    if MILLION % denominator == 0:
        millionths = numerator * (MILLION // denominator)
        for digits in range(9):
            shorter = Decimal(f"{length:.{digits}e}")
            if round(MILLION / shorter) == millionths:
                return shorter
    return Decimal(f"{length:.8e}")  # two 32-bit numbers tell no more digits

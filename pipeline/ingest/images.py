"""A folder of single images, PNG or one-page TIFF: a plane each, in the order of their numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import FormatError, ShapeError
from pipeline.ingest import tiff
from pipeline.ingest.sources import Place, Source, reading

SUFFIXES = (".png", ".tif", ".tiff")
PNG_TYPES: dict[str, np.dtype[Any]] = {"L": np.dtype(np.uint8), "I;16": np.dtype(np.uint16)}
MAX_SHOWN = 5


@contextmanager
def folder_source(folder: Path) -> Iterator[Source]:
    """The images of a folder, as ``(z, y, x)``; other files and hidden ones are not looked at.

    Plane 2 comes before plane 10. A gap in the numbers is a warning, not a black plane.

    Raises:
        FormatError: no images, PNG and TIFF mixed, or one that is not grey.
        ShapeError: an image of another size or type than the first.
    """
    files = [
        f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")
    ]
    kinds = {file.suffix.lower()[:4] for file in files}
    if len(kinds) != 1:
        raise FormatError(
            f"a folder must hold PNG or TIFF images and not both, found {len(files)} images "
            f"{sorted(kinds)}: {folder}\nGive the folder that holds the planes alone."
        )
    files.sort(key=lambda file: (natural(file.name), file.name))
    shape, dtype = _header(files[0])
    for file in files[1:]:
        header = _header(file)
        if header != (shape, dtype):
            raise ShapeError(
                f"images of a folder must be alike: {files[0].name} has {shape} {dtype}, "
                f"{file.name} has {header[0]} {header[1]}: {folder}\nRemove or correct it."
            )

    def place() -> Place:
        if files[0].suffix.lower() == ".png":
            return Place()
        with tiff.opened(files[0]) as first:
            return tiff.tiff_place(first, files[0])

    yield Source(
        where=str(folder),
        file=folder.resolve().name,
        shape=(len(files), *shape),
        dtype=dtype,
        load=lambda begin, end: np.stack([_plane(file) for file in files[begin:end]]),
        place=place,
        warnings=gaps([file.name for file in files], folder),
    )


def natural(name: str) -> list[str | int]:
    """Key that sorts numbers in a name by their value."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", name))]


def gaps(names: list[str], folder: Path) -> tuple[str, ...]:
    """A warning if the names count with gaps; none if they do not differ in one number alone."""
    keys = [natural(name) for name in names]
    columns = [set(column) for column in zip(*keys, strict=False)]
    varying = [column for column in columns if len(column) > 1]
    if len({len(key) for key in keys}) != 1 or len(varying) != 1:
        return ()
    numbers = sorted(number for number in varying[0] if isinstance(number, int))
    if not numbers or numbers[-1] - numbers[0] + 1 == len(numbers):
        return ()
    breaks = [f"{a} to {b}" for a, b in itertools.pairwise(numbers) if b - a > 1]
    shown = ", ".join(breaks[:MAX_SHOWN]) + (", ..." if len(breaks) > MAX_SHOWN else "")
    return (
        f"the images of {folder} skip numbers: {shown}; planes are stacked as if none were missing",
    )


def _header(file: Path) -> tiff.Header:
    if file.suffix.lower() == ".png":
        return _png_header(file)
    with tiff.opened(file) as pages:
        if len(pages.pages) != 1:
            raise ShapeError(
                f"a TIFF file in a folder must have one page, found {len(pages.pages)}: {file}\n"
                "Ingest a stack by itself: give the file, not its folder."
            )
        return tiff.page_header(pages, 0, file)


def _png_header(file: Path) -> tiff.Header:
    try:
        with reading(file), Image.open(file, formats=["PNG"]) as image:
            mode, shape = image.mode, (image.height, image.width)
    except FormatError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise FormatError(
                f"{file} must not have more pixels than Pillow decodes: {error.__cause__}\n"
                "Save planes as large as this in TIFF."
            ) from error
        raise
    if mode not in PNG_TYPES:
        raise FormatError(
            f"an image must be grey with 8 or 16 bits, found mode {mode}: {file}\n"
            "Convert it without colour, palette or transparency."
        )
    return shape, PNG_TYPES[mode]


def _plane(file: Path) -> np.ndarray:
    with reading(file):
        if file.suffix.lower() == ".png":
            with Image.open(file, formats=["PNG"]) as image:
                return np.asarray(image)
        with tiff.opened(file) as pages:
            return np.asarray(pages.pages.first.asarray())

"""Which reader a place needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, FormatError, NotFoundError, PipelineError, ShapeError
from pipeline.extensions import Extensions
from pipeline.ingest.chunked import is_n5, is_precomputed, n5_source, precomputed_source
from pipeline.ingest.hdf5 import hdf5_source
from pipeline.ingest.images import folder_source
from pipeline.ingest.sources import Source
from pipeline.ingest.tiff import tiff_source
from pipeline.ingest.zarr_source import is_zarr, zarr_source
from pipeline.location import Location, Url

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Format:
    """A kind of file or folder that ``pea ingest`` reads."""

    matches: Callable[[Location], bool]
    """Whether a place is one; called with paths and URLs, of what may not be there."""
    open: Callable[[Any, str | None], AbstractContextManager[Source]]
    """Of a place that matches, and of ``--dataset``: the array there, as long as the context
    lasts."""
    has_datasets: bool = False
    """It holds arrays that ``--dataset`` can name."""


def is_file(place: Location, suffixes: tuple[str, ...]) -> bool:
    """Whether there is a file with one of these suffixes, on a disk."""
    return isinstance(place, Path) and place.suffix.lower() in suffixes and place.is_file()


def is_folder(place: Location) -> bool:
    return isinstance(place, Path) and place.is_dir()


CONTAINERS = {
    "HDF5": Format(lambda place: is_file(place, HDF5_SUFFIXES), hdf5_source, has_datasets=True),
    "Zarr": Format(is_zarr, zarr_source, has_datasets=True),
    "N5": Format(is_n5, n5_source, has_datasets=True),
    "precomputed": Format(is_precomputed, precomputed_source, has_datasets=True),
}
IMAGES = {
    "TIFF": Format(
        lambda place: is_file(place, TIFF_SUFFIXES), lambda place, _: tiff_source(place)
    ),
    "a folder of TIFF or PNG images": Format(is_folder, lambda place, _: folder_source(place)),
}
FORMATS = Extensions("format", Format, (*CONTAINERS, *IMAGES))


def formats() -> Iterator[Format]:
    """All of them, in the order in which they are asked whether they match.

    Those of other distributions come before images, as any folder may be one of images.
    """
    yield from CONTAINERS.values()
    yield from FORMATS.installed().values()
    yield from IMAGES.values()


def open_source(place: Location, dataset: str | None = None) -> AbstractContextManager[Source]:
    """The array in a file or folder, or on a server; open as long as the context lasts.

    Args:
        place: its format is told by its suffix, else by what lies there.
        dataset: path inside an HDF5 file, a Zarr group or an N5 container; key of a scale of a
            precomputed volume.

    Raises:
        NotFoundError: nothing there. FormatError: of no known format.
        ConfigError: a data set named in a format that has none.
    """
    if isinstance(place, Path) and not place.exists() and not is_zarr(place):
        raise NotFoundError(f"there is nothing to ingest at {place}")
    found = next((each for each in formats() if each.matches(place)), None)
    if found is None:
        raise _unknown(place)
    if dataset is not None and not found.has_datasets:
        raise ConfigError(
            f"--dataset names an array inside HDF5, Zarr, N5 or precomputed, {place} has none\n"
            "Leave it out."
        )
    return found.open(place, dataset)


def _unknown(place: Location) -> PipelineError:
    if isinstance(place, Url):
        return NotFoundError(
            f"there is no Zarr, N5 or precomputed volume at {place}, or it may not be read\n"
            "Other formats are read from a disk: download the file first."
        )
    if place.suffix.lower() == ".png":
        return ShapeError(f"a single image has no z: {place}\nGive the folder of all planes.")
    known = ", ".join([*CONTAINERS, *IMAGES, *FORMATS.installed()])
    return FormatError(
        f"a source must be one of {known}; HDF5 is told by {HDF5_SUFFIXES}, TIFF by "
        f"{TIFF_SUFFIXES}; found {place}\n"
        "Export it as one of these, correct its suffix, or install a distribution that adds its "
        f"format: its entry points list it in {FORMATS.group}."
    )

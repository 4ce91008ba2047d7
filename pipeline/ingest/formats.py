"""Which reader a place needs."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipeline.errors import ConfigError, FormatError, NotFoundError, ShapeError
from pipeline.ingest.chunked import is_n5, is_precomputed, n5_source, precomputed_source
from pipeline.ingest.hdf5 import hdf5_source
from pipeline.ingest.images import folder_source
from pipeline.ingest.sources import Source
from pipeline.ingest.tiff import tiff_source
from pipeline.ingest.zarr_source import is_zarr, zarr_source
from pipeline.location import Location, Url

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
TIFF_SUFFIXES = (".tif", ".tiff")


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
    if isinstance(place, Url):
        if is_zarr(place):
            return zarr_source(place, dataset)
        if is_n5(place):
            return n5_source(place, dataset)
        if is_precomputed(place):
            return precomputed_source(place, dataset)
        raise NotFoundError(
            f"there is no Zarr, N5 or precomputed volume at {place}, or it may not be read\n"
            "Other formats are read from a disk: download the file first."
        )
    suffix = place.suffix.lower()
    if suffix in HDF5_SUFFIXES and place.is_file():
        return hdf5_source(place, dataset)
    if is_zarr(place):
        return zarr_source(place, dataset)
    if not place.exists():
        raise NotFoundError(f"there is nothing to ingest at {place}")
    if is_n5(place):
        return n5_source(place, dataset)
    if is_precomputed(place):
        return precomputed_source(place, dataset)
    if dataset is not None:
        raise ConfigError(
            f"--dataset names an array inside HDF5, Zarr, N5 or precomputed, {place} has none\n"
            "Leave it out."
        )
    if place.is_dir():
        return folder_source(place)
    if suffix in TIFF_SUFFIXES:
        return tiff_source(place)
    if suffix == ".png":
        raise ShapeError(f"a single image has no z: {place}\nGive the folder of all planes.")
    raise FormatError(
        f"a source must be HDF5 {HDF5_SUFFIXES}, TIFF {TIFF_SUFFIXES}, Zarr, N5, precomputed, or a "
        f"folder of TIFF or PNG images; found {place}\n"
        "Export it as one of these, or correct its suffix."
    )

"""Which reader a path needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.errors import ConfigError, FormatError, NotFoundError, ShapeError
from pipeline.ingest.hdf5 import hdf5_source
from pipeline.ingest.images import folder_source
from pipeline.ingest.sources import Source
from pipeline.ingest.tiff import tiff_source
from pipeline.ingest.zarr_source import is_zarr, zarr_source

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
TIFF_SUFFIXES = (".tif", ".tiff")


def open_source(path: Path, dataset: str | None = None) -> AbstractContextManager[Source]:
    """The array in a file or folder, told by its suffix; open as long as the context lasts.

    Args:
        dataset: path inside an HDF5 file or a Zarr group.

    Raises:
        NotFoundError: nothing at ``path``. FormatError: of no known format.
        ConfigError: a data set named in a format that has none.
    """
    suffix = path.suffix.lower()
    if suffix in HDF5_SUFFIXES and path.is_file():
        return hdf5_source(path, dataset)
    if is_zarr(path):
        return zarr_source(path, dataset)
    if not path.exists():
        raise NotFoundError(f"there is nothing to ingest at {path}")
    if dataset is not None:
        raise ConfigError(
            f"--dataset names an array inside HDF5 or Zarr, {path} has none\nLeave it out."
        )
    if path.is_dir():
        return folder_source(path)
    if suffix in TIFF_SUFFIXES:
        return tiff_source(path)
    if suffix == ".png":
        raise ShapeError(f"a single image has no z: {path}\nGive the folder of all planes.")
    raise FormatError(
        f"a source must be HDF5 {HDF5_SUFFIXES}, TIFF {TIFF_SUFFIXES}, Zarr, or a folder of TIFF "
        f"or PNG images; found {path}\nExport it as one of these, or correct its suffix."
    )

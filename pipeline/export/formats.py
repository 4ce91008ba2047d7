"""What can be written, and what its files are called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipeline.errors import ConfigError


class Format(StrEnum):
    CREMI = "cremi"
    """HDF5, as the CREMI challenge: ``volumes/labels/neuron_ids``, ``resolution``, ``offset``."""
    SNEMI3D = "snemi3d"
    """HDF5, as the SNEMI3D challenge: one array ``main``."""
    TIFF = "tiff"
    """A stack in one file."""
    SECTIONS = "sections"
    """A folder with a TIFF file for each section."""
    PRECOMPUTED = "precomputed"
    """Neuroglancer's, multiscale and sharded."""
    N5 = "n5"


HDF5_SUFFIXES = (".h5", ".hdf", ".hdf5")
SUFFIXES = {
    Format.CREMI: HDF5_SUFFIXES,
    Format.SNEMI3D: HDF5_SUFFIXES,
    Format.TIFF: (".tif", ".tiff"),
    Format.SECTIONS: ("",),
    Format.PRECOMPUTED: (".precomputed", ""),
    Format.N5: (".n5",),
}


def format_of(path: Path, named: str | None) -> Format:
    """The format that is named, else that of a suffix; HDF5 is CREMI's.

    Raises:
        ConfigError: no format of this name or suffix, or a suffix of another format.
    """
    suffix = path.suffix.lower()
    if named is None:
        told = [each for each, suffixes in SUFFIXES.items() if suffix and suffix in suffixes]
        if not told:
            raise ConfigError(
                f"the format must be told by a suffix or --format, found {path}\n"
                f"--format is one of {', '.join(Format)}"
            )
        return told[0]
    if named not in list(Format):
        raise ConfigError(f"--format must be one of {', '.join(Format)}; found {named!r}")
    chosen = Format(named)
    if suffix not in SUFFIXES[chosen]:
        allowed = " or ".join(each or "no suffix" for each in SUFFIXES[chosen])
        raise ConfigError(f"{chosen} must be written to a path with {allowed}, found {path}")
    return chosen

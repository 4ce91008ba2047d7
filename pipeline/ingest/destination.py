"""Where a volume goes: ``DEST.zarr/NAME``, checked before a byte is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from pipeline.errors import ConfigError, ExistsError, FormatError, PipelineError
from pipeline.location import Location
from pipeline.publish import clear_unfinished, published

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
METADATA_FILE = "zarr.json"
ELSEWHERE = "Choose another destination."


@dataclass(frozen=True)
class Destination:
    """``DEST.zarr/NAME``; the name may have several parts.

    Raises:
        ConfigError: no part ends in ``.zarr``, or a name that is not plain.
    """

    path: Path

    def __post_init__(self) -> None:
        names = self.path.relative_to(self.root).parts if self._roots else ()
        plain = all(PLAIN_NAME.fullmatch(name) and name != METADATA_FILE for name in names)
        if not names or not plain:
            raise ConfigError(
                f"a destination must be DEST.zarr/NAME, the name of letters, digits, _ . + -; "
                f"found {self.path}"
            )

    @property
    def _roots(self) -> list[Path]:
        return [path for path in (self.path, *self.path.parents) if path.suffix == ".zarr"]

    @property
    def root(self) -> Path:
        """``DEST.zarr``; the outermost, should there be several."""
        return self._roots[-1]

    @property
    def name(self) -> str:
        """``NAME``."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def groups(self) -> list[Path]:
        """The root and the groups between it and the volume, outermost first."""
        return [path for path in reversed(self.path.parents) if path.is_relative_to(self.root)]


def check_destination(destination: Destination, source: Location, overwrite: bool) -> None:
    """Refuse to write over a source, over what is there, or inside another volume.

    What a crash left is cleared first, so that a volume it was about to replace is there again.

    Raises:
        ExistsError: one of these. FormatError: ``DEST.zarr`` is not a Zarr v3 group.
    """
    here = destination.path.resolve()
    there = source.resolve() if isinstance(source, Path) else None
    if there is not None and (here.is_relative_to(there) or there.is_relative_to(here)):
        raise ExistsError(
            "source and destination must be apart, one lies in the other:\n"
            f"{source}\n{destination.path}\n{ELSEWHERE}"
        )
    for folder in destination.groups:
        _check_group(folder)
    path = destination.path
    if path.is_symlink() or any(folder.is_symlink() for folder in destination.groups[1:]):
        raise ExistsError(f"a destination must lie in its own group, this is a link: {path}")
    clear_unfinished(destination.path)
    if not path.exists():
        return
    if not overwrite:
        raise ExistsError(
            f"there is already something at {path}\nChoose another name, or --overwrite it."
        )
    node = _node(path)
    if node.get("node_type") != "array" and "ome" not in node.get("attributes", {}):
        raise ExistsError(
            f"--overwrite replaces a volume, this is not one: {path}\nRemove it yourself."
        )


def _check_group(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FormatError(f"{folder} must be a folder, it is a file\n{ELSEWHERE}")
    if (folder / ".zgroup").exists() or (folder / ".zarray").exists():
        raise FormatError(f"{folder} must be a Zarr v3 group, it is Zarr v2\n{ELSEWHERE}")
    node = _node(folder)
    if node.get("node_type", "group") != "group" or "ome" in node.get("attributes", {}):
        raise ExistsError(f"a volume cannot lie inside another: {folder}\n{ELSEWHERE}")


def _node(folder: Path) -> dict[str, Any]:
    """Zarr v3 metadata of a folder; empty if it has none."""
    file = folder / METADATA_FILE
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{file} must hold Zarr metadata: {error}\nRemove {folder}.") from error


def check_space(destination: Destination, num_bytes: int, basis: str) -> None:
    """Refuse a volume for which the disk has no room.

    Args:
        basis: how ``num_bytes`` was estimated, for the message.

    Raises:
        PipelineError: naming what is needed and what is free.
    """
    folder = next(path for path in (destination.path, *destination.path.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise PipelineError(
            f"the volume needs about {num_bytes / 1e9:.3g} GB ({basis}), {free / 1e9:.3g} GB are "
            f"free: {destination.path}\nMake room, or choose a destination on another disk."
        )


@contextmanager
def published_volume(destination: Destination) -> Iterator[Path]:
    """A path to write the volume to; it becomes the destination when the block ends well."""
    with published(destination.path) as path:
        yield path
        for folder in destination.groups:
            zarr.open_group(folder, mode="a", zarr_format=3)

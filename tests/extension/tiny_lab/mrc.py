"""``pea ingest tomogram.mrc ...``: MRC files, as electron tomography writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np

from pipeline.errors import FormatError
from pipeline.ingest.formats import Format
from pipeline.ingest.lengths import in_nm
from pipeline.ingest.sources import Place, Source, reading
from pipeline.location import Location

HEADER_BYTES = 1024
TYPES = {1: "<i2", 2: "<f4", 6: "<u2"}
"""By mode; bytes (mode 0) have a sign in some files only."""


def is_mrc(place: Location) -> bool:
    return isinstance(place, Path) and place.suffix in (".mrc", ".rec") and place.is_file()


@contextmanager
def mrc_source(path: Path, dataset: str | None) -> Iterator[Source]:
    """The volume of a file.

    Raises:
        FormatError: cut short, or of a type that is not read.
    """
    with reading(path):
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        words, lengths = np.frombuffer(header, "<i4"), np.frombuffer(header, "<f4")
        shape, mode, extended = words[2::-1].tolist(), int(words[3]), int(words[23])
        cells, cell_lengths = words[9:6:-1].tolist(), list(lengths[12:9:-1])
    if mode not in TYPES:
        raise FormatError(f"an MRC file must have mode 1, 2 or 6, found {mode}: {path}")
    with reading(path):
        voxels = np.memmap(path, TYPES[mode], "r", HEADER_BYTES + extended, tuple(shape))

    def place() -> Place:
        if min(cell_lengths) <= 0 or min(cells) <= 0:
            return Place()
        # Lengths are 32-bit floats: the shortest decimals that print the same are meant.
        exact = (Decimal(str(length)) for length in cell_lengths)
        sides = [length / count for length, count in zip(exact, cells, strict=True)]
        return Place(in_nm(sides, "angstrom", f"cell of {path}"))

    yield Source(
        where=str(path),
        file=path.name,
        shape=voxels.shape,
        dtype=voxels.dtype,
        load=lambda begin, end: voxels[begin:end],
        place=place,
    )


MRC = Format(is_mrc, mrc_source)

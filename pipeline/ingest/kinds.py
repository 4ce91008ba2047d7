"""What an array means, if nobody says: told by its axes, its names and its type, in that order."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePath

from pipeline.errors import ConfigError
from pipeline.ingest.sources import Source


class Kind(StrEnum):
    """What the source holds; ``meaning`` is what is stored."""

    RAW = "raw"
    LABELS = "labels"
    MASK = "mask"
    AFFINITIES = "affinities"
    BOUNDARY = "boundary"
    INTERIOR = "interior"

    @property
    def meaning(self) -> str:
        """Boundary and interior maps are stored as the affinities that follow from them."""
        return "affinities" if self in (Kind.BOUNDARY, Kind.INTERIOR) else str(self)


TELLING = (
    (Kind.MASK, re.compile(r"\bmasks?\b")),
    (Kind.BOUNDARY, re.compile(r"bound|membrane")),
    (Kind.INTERIOR, re.compile(r"interior|foreground")),
    (Kind.LABELS, re.compile(r"label|neuron ids|segmentation|supervoxel|\b(seg|gt|truth|ids)\b")),
    (Kind.RAW, re.compile(r"\b(raw|images?|em)\b")),
)
"""First match wins: ``labels_mask`` is a mask, ``raw_labels`` are labels."""


def told_by(name: str) -> Kind | None:
    """The kind that a name tells; of a path, its last telling part."""
    for part in reversed(PurePath(name.lower()).parts):
        words = re.sub(r"[^a-z0-9]+", " ", part)
        for kind, pattern in TELLING:
            if pattern.search(words):
                return kind
    return None


def inferred_kind(source: Source, destination: str) -> tuple[Kind, str]:
    """The kind of a source, and the reason for it, for the user to check.

    Four axes are affinities, a precomputed segmentation labels. Then names tell, the data set's
    before the file's before the destination's. Then the type: bool is a mask, integers wider than
    16 bits are labels, others raw.

    Raises:
        ConfigError: floats without a telling name.
    """
    if len(source.shape) == 4:
        return Kind.AFFINITIES, "it has four axes"
    if source.attributes.get("type") == "segmentation":
        return Kind.LABELS, "its info says segmentation"
    names = {"data set": source.dataset or "", "file": source.file, "destination": destination}
    for what, name in names.items():
        if kind := told_by(name):
            return kind, f"its {what} is named {name}"
    if source.dtype.kind == "f":
        raise ConfigError(
            f"{source.dtype} could be raw, boundary or interior: {source.where}\n"
            f"Say which: --as {'|'.join(Kind)}"
        )
    if source.dtype.kind == "b":
        return Kind.MASK, "it is bool"
    if source.dtype.itemsize > 2:
        return Kind.LABELS, f"{source.dtype} is wider than an image"
    return Kind.RAW, f"it is {source.dtype} and no name tells"

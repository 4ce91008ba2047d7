"""One array of any supported format into one volume, slab by slab."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import ZYX, Nm, Offsets, Roi
from pipeline.ingest.convert import Converter, checked_background
from pipeline.ingest.destination import (
    Destination,
    check_destination,
    check_space,
    published_volume,
)
from pipeline.ingest.digest import ContentDigest
from pipeline.ingest.formats import open_source
from pipeline.ingest.kinds import Kind, inferred_kind, told_by
from pipeline.ingest.planes import ALL_PLANES, Planes, chosen_planes
from pipeline.ingest.sources import Source
from pipeline.ingest.spec import volume_spec
from pipeline.location import Location, local
from pipeline.spec import DEFAULT_SHARD_VX, VolumeSpec
from pipeline.volume import Volume

LABEL_PACKING = 8
"""Zstd packs uint64 labels at least this well: gala 11-fold, pinky40 41-fold, FIB-25 70-fold."""


@dataclass(frozen=True)
class IngestReport:
    """What was read, what it was taken for, and what was written."""

    source: str
    destination: Path
    kind: Kind
    reason: str
    """Why this kind."""
    spec: VolumeSpec
    content_digest: str
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for a reader."""
        spec = self.spec
        return [
            f"read {self.source}, as {self.kind}: {self.reason}",
            f"wrote {self.destination}: {spec.meaning}, shape {spec.shape}, {spec.dtype}, "
            f"voxel size {spec.voxel_size_nm} nm, offset {spec.offset_nm} nm",
            f"content {self.content_digest}",
            *(f"warning: {warning}" for warning in self.warnings),
        ]


def ingest(
    source: Location,
    destination: Path,
    *,
    dataset: str | None = None,
    kind: str | None = None,
    voxel_size: Nm | None = None,
    offset: Nm | None = None,
    background: Sequence[int] = (),
    offsets: Offsets | None = None,
    planes: Planes = ALL_PLANES,
    shard_vx: ZYX = DEFAULT_SHARD_VX,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Make ``DEST.zarr/NAME`` from a file or folder, or from an array on a server.

    One slab of ``shard_vx.z`` whole planes is in memory at a time, as it is read and as it is
    stored. The volume appears under its name when it is whole; after an error nothing is there.

    Args:
        source: HDF5, TIFF, Zarr, N5 or precomputed, or a folder of TIFF or PNG planes.
        destination: ``DEST.zarr/NAME``.
        dataset: path inside HDF5, Zarr or N5; scale of a precomputed volume.
        kind: a ``Kind``; inferred if omitted, see ``inferred_kind``; the report says why.
        voxel_size: in nm, of all planes of the file; what it states if omitted. There is no
            default.
        offset: of the first voxel taken, in nm; what follows from the file if omitted, else 0.
        background: ids of labels that become 0.
        offsets: of affinities; the attribute ``neighborhood`` if omitted, else the direct
            neighbours of three channels.
        planes: what to take along z; a step makes the voxels that much thicker.
        overwrite: replace a volume of this name.
        progress: called after each slab with the planes written and the planes there are.

    Raises:
        PipelineError: the source, its metadata or its values are not what they must be; each rule
            is stated where it is checked.
    """
    target = Destination(local(destination))
    with open_source(source, dataset) as opened:
        found = opened if planes == ALL_PLANES else chosen_planes(opened, planes)
        chosen, reason = _chosen_kind(found, kind, target.name)
        background = checked_background(background, chosen)
        spec, warnings = volume_spec(found, chosen, voxel_size, offset, offsets, shard_vx, planes)
        if told_by(target.name) not in (None, chosen):
            warnings.append(f"the name {target.name} tells of other data than {chosen}")
        check_destination(target, source, overwrite)
        num_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        if chosen is Kind.LABELS:
            check_space(target, num_bytes // LABEL_PACKING, f"labels, packed {LABEL_PACKING}-fold")
        else:
            check_space(target, num_bytes, "uncompressed")
        converter = Converter(chosen, found, spec.offsets or Offsets(), background)
        provenance = {
            "source": found.file,
            "dataset": found.dataset,
            "source_kind": str(chosen),
            "background": list(background),
            "planes": str(planes),
        }
        with published_volume(target) as path:
            volume = Volume.create(path, spec, provenance)
            digest = _copy(found, converter, volume, progress)
            volume.set_attributes(content_digest=digest)
        warnings += [*found.warnings, *converter.warnings()]
        return IngestReport(
            found.description, target.path, chosen, reason, spec, digest, tuple(warnings)
        )


def _chosen_kind(source: Source, kind: str | None, destination: str) -> tuple[Kind, str]:
    if kind is None:
        return inferred_kind(source, destination)
    if kind not in list(Kind):
        raise ConfigError(f"--as must be one of {', '.join(Kind)}; found {kind!r}")
    return Kind(kind), "as asked"


def _copy(
    source: Source,
    converter: Converter,
    volume: Volume,
    progress: Callable[[int, int], None] | None,
) -> str:
    """Write all planes of a source; returns the content digest."""
    spec, digest, total = volume.spec, ContentDigest(volume.spec), source.num_planes
    for begin in range(0, total, spec.shard_vx.z):
        end = min(total, begin + spec.shard_vx.z)
        planes = converter(source.read(begin, end)).astype(spec.dtype, copy=False)
        digest.update(planes)
        first = ZYX(spec.offset_vx.z + begin, spec.offset_vx.y, spec.offset_vx.x)
        volume.write(Roi(first, (end - begin, *spec.shape[-2:])), planes)
        if progress is not None:
            progress(end, total)
    return digest.hexdigest()

"""One array of any supported format into one volume, slab by slab."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, MetadataError, ShapeError
from pipeline.geometry import ZYX, Nm, Offsets, Roi, checked_voxel_size, voxels
from pipeline.ingest.convert import Converter, checked_background, stored_dtype
from pipeline.ingest.destination import Destination, check_destination, check_space, published
from pipeline.ingest.formats import open_source
from pipeline.ingest.kinds import Kind, inferred_kind, told_by
from pipeline.ingest.sources import Place, Source
from pipeline.volume import Volume, VolumeSpec

SHARD_VX = ZYX(64, 256, 256)
LABEL_PACKING = 8
"""Zstd packs uint64 labels at least this well: 11-fold to 70-fold on gala, pinky40 and FIB-25."""


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


def ingest(
    source: Path,
    destination: Path,
    *,
    dataset: str | None = None,
    kind: Kind | None = None,
    voxel_size: Nm | None = None,
    offset: Nm | None = None,
    background: Sequence[int] = (),
    offsets: Offsets | None = None,
    shard_vx: ZYX = SHARD_VX,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Make ``DEST.zarr/NAME`` from a file or folder.

    One slab of ``shard_vx.z`` planes is in memory at a time, as it is read and as it is stored. The
    volume appears under its name when it is whole; on any error nothing does.

    Args:
        source: HDF5, TIFF or Zarr, or a folder of TIFF or PNG planes.
        destination: ``DEST.zarr/NAME``.
        dataset: path inside HDF5 or Zarr.
        kind: inferred if omitted, see ``inferred_kind``; the report says why.
        voxel_size: in nm; that of the file if omitted. There is no default.
        offset: of the first voxel, in nm; that of the file if omitted, else 0.
        background: ids of labels that become 0.
        offsets: of affinities; the attribute ``neighborhood`` if omitted, else the direct neighbours
            of three channels.
        overwrite: replace a volume of this name.
        progress: called after each slab with the planes written and the planes there are.

    Raises:
        PipelineError: the source, its metadata or its values are not what they must be; each rule is
            stated where it is checked.
    """
    target = Destination(Path(destination))
    with open_source(Path(source), dataset) as found:
        kind, reason = (kind, "so it was asked") if kind else inferred_kind(found, target.name)
        background = checked_background(background, kind)
        spec, warnings = _spec(found, kind, voxel_size, offset, offsets, shard_vx)
        if told_by(target.name) not in (None, kind, Kind(kind.meaning)):
            warnings.append(f"the name {target.name} tells of other data than {kind}: {found.where}")
        check_destination(target, Path(source), overwrite)
        num_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        if kind is Kind.LABELS:
            check_space(target, num_bytes // LABEL_PACKING, f"labels, packed {LABEL_PACKING}-fold")
        else:
            check_space(target, num_bytes, "uncompressed")
        converter = Converter(kind, found, spec.offsets or Offsets(), background)
        provenance = {
            "source": found.file,
            "dataset": found.dataset,
            "source_kind": str(kind),
            "background": list(background),
        }
        with published(target) as path:
            volume = Volume.create(path, spec, provenance)
            digest = _copy(found, converter, volume, progress)
            volume.set_attributes(content_digest=digest)
        warnings += [*found.warnings, *converter.warnings()]
        return IngestReport(
            found.description, target.path, kind, reason, spec, digest, tuple(warnings)
        )


class ContentDigest:
    """SHA-256 of what a volume holds: meaning, type, shape and voxels, each channel in order of z, y, x.

    It depends on neither the source's format nor the slabs, so equal voxels have equal digests.
    """

    def __init__(self, spec: VolumeSpec) -> None:
        self._dtype = np.dtype(spec.dtype).newbyteorder("<")
        self._header = f"{spec.meaning} {np.dtype(spec.dtype).name} {spec.shape}"
        self._channels = [hashlib.sha256() for _ in range(spec.channels or 1)]

    def update(self, planes: np.ndarray) -> None:
        """Take the next planes, ``(z, y, x)`` or ``(channel, z, y, x)``."""
        channels = planes.reshape(len(self._channels), *planes.shape[-3:])
        for digest, channel in zip(self._channels, channels, strict=True):
            digest.update(np.ascontiguousarray(channel, self._dtype))

    def hexdigest(self) -> str:
        """Hash of the header and of the channels' hashes."""
        parts = [self._header, *(digest.hexdigest() for digest in self._channels)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _copy(
    source: Source,
    converter: Converter,
    volume: Volume,
    progress: Callable[[int, int], None] | None,
) -> str:
    """Write all planes of a source; returns the content digest."""
    spec, digest = volume.spec, ContentDigest(volume.spec)
    total = source.num_planes
    for begin in range(0, total, spec.shard_vx.z):
        end = min(total, begin + spec.shard_vx.z)
        planes = converter(source.read(begin, end)).astype(spec.dtype, copy=False)
        digest.update(planes)
        first = ZYX(spec.offset_vx.z + begin, *spec.offset_vx[1:])
        volume.write(Roi(first, (end - begin, *spec.shape[-2:])), planes)
        if progress is not None:
            progress(end, total)
    return digest.hexdigest()


def _spec(
    source: Source,
    kind: Kind,
    voxel_size: Nm | None,
    offset: Nm | None,
    offsets: Offsets | None,
    shard_vx: ZYX,
) -> tuple[VolumeSpec, list[str]]:
    """The volume to make, and warnings about the metadata it is made from."""
    num_axes = 4 if kind is Kind.AFFINITIES else 3
    if len(source.shape) != num_axes:
        raise ShapeError(
            f"{kind} must have {num_axes} axes, found shape {source.shape}: {source.where}\n"
            "Choose another data set, or say what it is: --as KIND."
        )
    dtype = stored_dtype(kind, source.dtype, source.where)
    size, offset_vx, warnings = _placed(source, voxel_size, offset)
    channels = _offsets(source, kind, offsets)
    shape = (len(channels), *source.shape[-3:]) if channels else source.shape
    return VolumeSpec(shape, dtype.name, size, offset_vx, kind.meaning, shard_vx, channels), warnings


def _placed(source: Source, voxel_size: Nm | None, offset: Nm | None) -> tuple[Nm, ZYX, list[str]]:
    """Voxel size and offset, from the user before the file; the file's other view is a warning."""
    warnings = []
    try:
        place = source.place()
    except MetadataError as error:
        if voxel_size is None:
            raise
        place = Place()
        warnings.append(f"the voxel size given is used, the file's is not: {error}")
    for what, given, stated in zip(("voxel size", "offset"), (voxel_size, offset), place, strict=True):
        if given is not None and stated is not None and given != stated:
            warnings.append(f"the {what} given, {given} nm, replaces {stated} nm of {source.where}")
    size = voxel_size or place.voxel_size_nm
    if size is None:
        raise MetadataError(
            f"voxel size is not known, the file does not state it: {source.where}\n"
            "Give it in nm: --voxel-size Z,Y,X"
        )
    size = checked_voxel_size(size, source.where)
    start = offset or place.offset_nm or Nm.of([0, 0, 0])
    return size, voxels(start, size, f"--offset or the offset of {source.where}"), warnings


def _offsets(source: Source, kind: Kind, offsets: Offsets | None) -> Offsets | None:
    """Offsets of the channels to be stored; none if the kind has no channels."""
    if kind.meaning != "affinities" or kind is not Kind.AFFINITIES:
        if offsets is not None:
            raise ConfigError(f"offsets belong to affinities, this is {kind}: {source.where}")
        return Offsets() if kind.meaning == "affinities" else None
    stated: Any = source.attributes.get("neighborhood")
    anchor = source.attributes.get("neighborhood_anchor", "source")
    anchor = anchor.decode() if isinstance(anchor, bytes) else anchor
    if anchor != "source":
        raise MetadataError(
            f"an affinity must be stored at voxel v of its pair (v, v + offset), neighborhood_anchor is "
            f"{anchor!r}: {source.where}\nShift each channel by its offset and negate the offsets."
        )
    num_channels = source.shape[0]
    if offsets is None and stated is None and num_channels != Offsets.NUM_DIRECT:
        raise MetadataError(
            f"{num_channels} channels need an offset each, there is no attribute neighborhood: "
            f"{source.where}\nSet it on the array: a list of z, y, x offsets."
        )
    try:
        found = offsets or (Offsets() if stated is None else Offsets.of(stated))
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"attribute neighborhood of {source.where}: {error}") from error
    if len(found) != num_channels:
        raise ShapeError(
            f"affinities need one offset for each channel: {num_channels} channels, {len(found)} offsets: "
            f"{source.where}\nCorrect the attribute neighborhood."
        )
    return found

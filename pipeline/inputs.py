"""What a run starts from: the arrays its file names, opened and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import Data, RoiNm
from pipeline.content import content_fingerprint
from pipeline.errors import (
    ConfigError,
    DtypeError,
    ExistsError,
    MetadataError,
    RoiError,
    ShapeError,
)
from pipeline.geometry import Nm, Offsets, Roi, describe, voxels
from pipeline.location import Location
from pipeline.volume import Volume


@dataclass(frozen=True)
class Inputs:
    """Arrays on one voxel grid."""

    source: Volume
    """Affinities; or raw, of which a network has to make them."""
    offsets: Offsets | None
    """Of the affinities; None of raw."""
    mask: Volume | None
    truth: Volume | None
    roi: Roi
    """What is segmented, in world voxels."""
    contents: Mapping[str, str]
    """Fingerprint of each array, by its key in ``run.data``."""

    @property
    def voxel_size_nm(self) -> Nm:
        return self.source.spec.voxel_size_nm


def open_inputs(data: Data, root: Path) -> Inputs:
    """Open what a run file names; only metadata is read.

    A run starts from affinities where it has them. Raw beside them is for pictures, and not opened.

    Args:
        data: the paths.
        root: the run directory, which must lie apart from them.

    Raises:
        PipelineError: of the kind that fits, naming the array or key.
    """
    name = "raw" if data.affinities is None else "affinities"
    path = data.raw if data.affinities is None else data.affinities
    if path is None:
        raise ConfigError(
            "run.data must name an array to start from: run.data.affinities, or run.data.raw\n"
            "Make an array of images, affinities, or a boundary map: pea ingest SOURCE DEST"
        )
    refuse_nested(root, (path, data.labels, data.mask))
    source = Volume.open(path)
    offsets = checked_affinities(source, data.offsets) if name == "affinities" else None
    if offsets is None:
        checked_raw(source)
    roi = region(source, data.roi, name)
    size = source.spec.voxel_size_nm
    mask = None if data.mask is None else checked_mask(Volume.open(data.mask), size, roi, name)
    truth = (
        None
        if data.labels is None
        else checked_labels(Volume.open(data.labels), size, roi, other=name)
    )
    opened = {name: source, "mask": mask, "labels": truth}
    contents = {
        name: content_fingerprint(volume, root) for name, volume in opened.items() if volume
    }
    return Inputs(source, offsets, mask, truth, roi, contents)


def refuse_nested(root: Path, inputs: Sequence[Location | None]) -> None:
    """Raise if a run would write into its inputs, or read what it writes.

    Raises:
        ExistsError: naming both paths.
    """
    place = root.resolve()
    if root.exists() and not root.is_dir():
        raise ExistsError(
            f"a run directory must be a directory, found a file: {root}\n"
            "Choose another run.name, or another place with --runs."
        )
    for path in inputs:
        if not isinstance(path, Path):
            continue
        source = path.resolve()
        if place.is_relative_to(source) or source.is_relative_to(place):
            raise ExistsError(
                f"a run directory and its inputs must lie apart: {root}\nfound the input {path}\n"
                "Choose another run.name, or another place with --runs."
            )


def checked_raw(volume: Volume) -> None:
    """Raise unless an array has the axes of raw.

    Raises:
        ShapeError: it has channels.
    """
    if volume.spec.channels is not None:
        raise ShapeError(
            f"raw must have axes (z, y, x), found shape {volume.spec.shape}: {volume.path}"
        )


def checked_affinities(volume: Volume, given: Offsets | None) -> Offsets:
    """The offsets of an array of affinities.

    Raises:
        ShapeError, DtypeError, MetadataError, ConfigError: it cannot be one.
    """
    spec, path = volume.spec, volume.path
    if spec.channels is None:
        raise ShapeError(
            f"affinities have axes (channel, z, y, x), found shape {spec.shape}: {path}\n"
            "A boundary or interior map becomes affinities by pea ingest --as boundary|interior."
        )
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise DtypeError(
            f"affinities must be uint8, or floats in [0, 1]; found {volume.dtype}: {path}"
        )
    if given and spec.offsets and given != spec.offsets:
        raise MetadataError(
            f"offsets contradict each other: {path}\nits attribute neighborhood is "
            f"{spec.offsets.numbers()}\nrun.data.offsets is {given.numbers()}"
        )
    offsets = spec.offsets or given
    if offsets is None:
        raise MetadataError(
            f"offsets of the channels are not known: {path} has no attribute neighborhood\n"
            "Give run.data.offsets: channel c at voxel v relates v and v + offset."
        )
    if spec.channels != len(offsets):
        raise ShapeError(
            f"affinities need one channel for each offset: {path}\n"
            f"found {spec.channels} channels, {len(offsets)} offsets {offsets.numbers()}"
        )
    # A section has no pairs along z, and is a volume all the same; a long offset is a mistake.
    for vector in offsets.vectors[Offsets.NUM_DIRECT :]:
        if any(abs(n) >= side for n, side in zip(vector, spec.shape[1:], strict=True)):
            raise ConfigError(
                f"offsets must be shorter than the volume, found {list(vector)}: "
                f"{path} has sides {spec.shape[1:]}"
            )
    return offsets


def checked_partner(
    volume: Volume, voxel_size_nm: Nm, roi: Roi, what: str, other: str = "affinities"
) -> Volume:
    """A volume on the grid of another.

    Raises:
        MetadataError: other voxels; RoiError: no voxel in common; ShapeError: channels.
    """
    spec, path = volume.spec, volume.path
    if spec.channels is not None:
        raise ShapeError(f"{what} must have axes (z, y, x), found shape {spec.shape}: {path}")
    if spec.voxel_size_nm != voxel_size_nm:
        raise MetadataError(
            f"{what} and {other} must have one voxel size: {path}\n"
            f"{what} {spec.voxel_size_nm} nm, {other} {voxel_size_nm} nm"
        )
    if volume.roi.intersect(roi).empty:
        raise RoiError(
            f"{what} and the region must overlap: {path}\n{what} cover "
            f"{describe(volume.roi, voxel_size_nm)}\nthe region is {describe(roi, voxel_size_nm)}"
        )
    return volume


def checked_mask(volume: Volume, voxel_size_nm: Nm, roi: Roi, other: str = "affinities") -> Volume:
    """A mask of a region.

    Raises:
        DtypeError: floats; RoiError: it does not cover the region; as ``checked_partner``.
    """
    checked_partner(volume, voxel_size_nm, roi, "mask", other)
    if volume.dtype.kind not in "bui":
        raise DtypeError(
            f"a mask must hold integers or bool, found {volume.dtype}: {volume.path}\n"
            "Voxels to segment are those that are not 0."
        )
    if not volume.roi.contains(roi):
        raise RoiError(
            f"a mask must cover the region: {volume.path}\nthe mask has "
            f"{describe(volume.roi, voxel_size_nm)}\nthe region is {describe(roi, voxel_size_nm)}"
        )
    return volume


def checked_labels(
    volume: Volume, voxel_size_nm: Nm, roi: Roi, what: str = "labels", other: str = "affinities"
) -> Volume:
    """Labels on the grid of another volume.

    Raises:
        DtypeError: not unsigned integers; as ``checked_partner``.
    """
    checked_partner(volume, voxel_size_nm, roi, what, other)
    if volume.dtype.kind != "u":
        raise DtypeError(
            f"{what} must be unsigned integers, found {volume.dtype}: {volume.path}\n"
            "Ingest them: pea ingest SOURCE DEST --as labels"
        )
    return volume


def region(volume: Volume, given: RoiNm | None, name: str = "affinities") -> Roi:
    """The region of a run, in world voxels; all of a volume if none is given.

    Raises:
        RoiError: not whole voxels, empty, or not inside the volume.
    """
    if given is None:
        return volume.roi
    return named_region(
        given, volume.spec.voxel_size_nm, "run.data.roi", volume.roi, f"the {name}: {volume.path}"
    )


def named_region(given: RoiNm, voxel_size_nm: Nm, key: str, inside: Roi, what: str) -> Roi:
    """A region of a run file, in world voxels.

    Args:
        key: of the region in the run file.
        inside: where it must lie.
        what: lies there.

    Raises:
        RoiError: not whole voxels, empty, or not inside.
    """
    begin = voxels(given.offset, voxel_size_nm, f"{key}.offset")
    shape = voxels(given.shape, voxel_size_nm, f"{key}.shape")
    roi = Roi(begin, shape)
    if min(shape) < 1 or not inside.contains(roi):
        raise RoiError(
            f"{key} must lie inside {what}\nthe region is {describe(roi, voxel_size_nm)}\n"
            f"it covers {describe(inside, voxel_size_nm)}"
        )
    return roi


def refuse_overlaps(rois: Mapping[str, Roi], voxel_size_nm: Nm) -> None:
    """Raise if a voxel is in two of the regions for training, validation, tuning and testing.

    Raises:
        RoiError: naming both.
    """
    names = list(rois)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            if not rois[one].intersect(rois[other]).empty:
                raise RoiError(
                    f"{one} and {other} must not overlap: scores would flatter\n"
                    f"{one} is {describe(rois[one], voxel_size_nm)}\n"
                    f"{other} is {describe(rois[other], voxel_size_nm)}"
                )

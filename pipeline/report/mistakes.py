"""The worst splits and merges of a run as pictures, each in the plane that shows it best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.geometry import ZYX, Nm, Roi, nanometres
from pipeline.report.sections import Section, middle, plane, read_section, window
from pipeline.volume import Volume

Kind = Literal["splits", "merges"]
SIDE_VX = 160
"""Of the cube that is read around a mistake, in voxels of the finest axis."""
SIDES = {"splits": ("truth", "segment"), "merges": ("segment", "truth")}
"""What is broken, and what it is broken into or made of."""
VOLUME_OF = {"truth": "truth", "segment": "segmentation"}


@dataclass(frozen=True)
class Mistake:
    """An entry of ``objects.json``, and a section through it."""

    kind: Kind
    object_id: int
    """Of the true object that is split, or of the segment that merges."""
    parts: tuple[int, ...]
    """The segments it is split into, or the true objects it merges, the largest overlaps first."""
    num_parts: int
    voi: float
    """Its part of VOI split or merge, in bits."""
    voxels: int
    section: Section

    @property
    def shown(self) -> dict[str, set[int]]:
        """Labels that matter, by the name of their volume."""
        whole, part = (VOLUME_OF[side] for side in SIDES[self.kind])
        return {whole: {self.object_id}, part: set(self.parts)}

    @property
    def centre(self) -> tuple[ZYX, Nm]:
        """Of the section, in world voxels and in nm."""
        place = middle(self.section.roi)
        return place, nanometres(place, self.section.voxel_size_nm)


def mistakes(
    kind: Kind, entries: Sequence[Mapping[str, Any]], volumes: Mapping[str, Volume], inside: Roi
) -> Iterator[Mistake]:
    """Read a section through each mistake.

    Args:
        entries: of ``objects.json``.
        volumes: by name; segmentation and truth must be among them.
        inside: the region that all of them cover.

    Raises:
        DataError: a chunk is missing or damaged.
    """
    whole, part = SIDES[kind]
    for entry in entries:
        object_id = int(entry[whole])
        largest = entry["largest"]
        parts = tuple(int(each[part]) for each in largest)
        box = window(_where(largest, inside), inside, volumes["truth"].spec.voxel_size_nm, SIDE_VX)
        labels = {side: volumes[VOLUME_OF[side]].read(box) for side in SIDES[kind]}
        broken = labels[whole] == object_id
        axis, index = telling_plane(
            broken & (labels[part] == parts[0]),
            broken & (labels[part] == parts[min(1, len(parts) - 1)]),
            volumes["truth"].spec.voxel_size_nm,
        )
        place = [int(n) for n in box.begin]
        place[axis] += index
        yield Mistake(
            kind=kind,
            object_id=object_id,
            parts=parts,
            num_parts=int(entry[f"num_{part}"]),
            voi=float(entry["voi"]),
            voxels=int(entry["voxels"]),
            section=read_section(volumes, plane(box, place, axis), axis),
        )


def telling_plane(first: np.ndarray, second: np.ndarray, voxel_size_nm: Nm) -> tuple[int, int]:
    """The plane that shows most of the smaller of two parts, and of what is around them.

    Args:
        first, second: where the parts are, bool ``(z, y, x)``.

    Returns:
        The axis it is across, and its index.
    """
    best, found = (-1.0, -1.0), (0, first.shape[0] // 2)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        pixel_nm2 = float(math.prod(voxel_size_nm[other] for other in others))
        plane_nm2 = pixel_nm2 * math.prod(first.shape[other] for other in others)
        # Thin volumes have planes that are hardly more than a line.
        areas = np.stack([part.sum(axis=others) for part in (first, second)]) * pixel_nm2
        areas *= plane_nm2
        index = int(np.lexsort((areas.sum(axis=0), areas.min(axis=0)))[-1])
        score = float(areas[:, index].min()), float(areas[:, index].sum())
        if score > best:
            best, found = score, (axis, index)
    return found


def _where(largest: Sequence[Mapping[str, Any]], inside: Roi) -> ZYX:
    """Where the two largest parts of an object come together, as far as their boxes tell."""
    boxes = [_box(part) for part in largest[:2]]
    both = boxes[0].intersect(boxes[-1]).intersect(inside)
    return middle(boxes[-1] if both.empty else both)


def _box(part: Mapping[str, Any]) -> Roi:
    begin, end = part["box_vx"]
    return Roi(ZYX.of(begin), ZYX.of(np.subtract(end, begin)))

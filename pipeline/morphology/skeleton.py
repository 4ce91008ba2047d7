"""The centre lines of a segment, by TEASAR (Sato et al., 2000).

A skeleton is traced through the whole segment at once, so it must fit in memory; of a large segment
take a coarser level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
from bioimage_cpp.skeleton import teasar

from pipeline.errors import LayoutError
from pipeline.geometry import Roi, slices
from pipeline.morphology.segments import Segments

MAX_BYTES = 8 << 30
BYTES_OF_VOXEL = 50
"""TEASAR's for each voxel of the segment; for each of its box there is one."""
INVALIDATION = {"scale": 1.5, "constant": 300.0}
"""A path clears what lies within 1.5 radii and 300 nm of it, as kimimaro's defaults for neurons."""


@dataclass(frozen=True)
class Skeleton:
    """A forest of nodes.

    Attributes:
        vertices: float32 ``(n, 3)``, x, y, z in nm, at centres of voxels.
        edges: uint32 ``(m, 2)``, indices of vertices.
        radii_nm: float32 ``(n,)``, distance to the surface.
    """

    vertices: np.ndarray
    edges: np.ndarray
    radii_nm: np.ndarray

    @property
    def length_nm(self) -> float:
        """Of all edges."""
        begin, end = self.vertices.astype(np.float64)[self.edges.T]
        return float(np.linalg.norm(end - begin, axis=1).sum())


def skeleton(segments: Segments, segment: int) -> Skeleton:
    """The skeleton of one segment.

    Args:
        segment: one that is there.

    Raises:
        LayoutError: it needs more than 8 GiB.
    """
    boxes = [box for _, box in segments.extents.boxes(segment)]
    box = reduce(Roi.union, boxes)
    needed = math.prod(box.shape) + BYTES_OF_VOXEL * segments.extents.size(segment)
    if needed > MAX_BYTES:
        raise LayoutError(
            f"the skeleton of segment {segment} needs {needed / 1e9:.1f} GB, and may have "
            f"{MAX_BYTES / 1e9:.1f}: its box has {tuple(box.shape)} voxels\n"
            "Take a coarser level: --level N"
        )
    mask = np.zeros(tuple(box.shape), bool)
    for part in boxes:
        mask[slices(part, box.begin)] = segments.mask(segment, part)
    size = segments.voxel_size_nm
    places, edges, radii = teasar(mask, spacing=size, **INVALIDATION)
    centres = places / size + np.array(box.begin) + 0.5
    return Skeleton(segments.world(centres), edges.astype(np.uint32), radii)

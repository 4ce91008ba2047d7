"""The surface of a segment as a mesh.

Marching cubes (Lewiner et al., 2003) puts a vertex half way between a voxel of the segment and a
neighbour that is none, so all vertices lie on a lattice of half voxels. A cube of eight voxels
belongs to the block that owns its lowest one. Blocks are joined on that lattice, in integers, and
sorted: the mesh has the same bits for any blocks. Outside the volume there is nothing, so every
surface is closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from bioimage_cpp.mesh import marching_cubes

from pipeline.geometry import Block, Roi
from pipeline.location import needed
from pipeline.morphology.segments import Segments

KEPT = 0.1
"""Share of the triangles that ``simplified`` keeps."""
ALL_KEPT = 1000
"""Triangles that a mesh may have and is kept as it is."""


@dataclass(frozen=True)
class Mesh:
    """Triangles, anticlockwise seen from outside.

    Attributes:
        vertices: float32 ``(n, 3)``, x, y, z in nm.
        faces: uint32 ``(m, 3)``, indices of vertices.
    """

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def volume_nm3(self) -> float:
        """What the surface encloses."""
        a, b, c = np.moveaxis(self.vertices.astype(np.float64)[self.faces], 1, 0)
        return float((a * np.cross(b, c)).sum() / 6)


def surface(segments: Segments, segment: int) -> Mesh:
    """The mesh of one segment, read block by block: in memory are one box and the surface.

    Args:
        segment: one that is there.
    """
    parts = []
    for index, box in segments.extents.boxes(segment):
        # A cube reaches one voxel beyond the segment, and never into a cube of another block.
        block = segments.grid[index]
        crop = box.grow((1, 1, 1), (1, 1, 1)).intersect(block.read)
        part = block_surface(segments.mask(segment, crop), crop, block, segments.grid.total)
        if part is not None:
            parts.append(part)
    halves, faces = joined(parts)
    return Mesh(segments.world(halves / 2), faces.astype(np.uint32))


def block_surface(
    mask: np.ndarray, crop: Roi, block: Block, total: Roi
) -> tuple[np.ndarray, np.ndarray] | None:
    """Triangles in the cubes of a block, closed where the volume ends.

    Args:
        mask: bool, the voxels of ``crop``.
        crop: what the segment touches of the voxels that the block reads.

    Returns:
        Vertices ``(n, 3)``, z, y, x in half voxels, and faces ``(m, 3)``, both int64; None if all
        voxels are alike.
    """
    below = [int(c == t) for c, t in zip(crop.begin, total.begin, strict=True)]
    # The block before the last one reads the last voxels too, and does not own their cubes.
    above = [int(c == w == t) for c, w, t in zip(crop.end, block.write.end, total.end, strict=True)]
    cubes = np.pad(mask, list(zip(below, above, strict=True)))
    if cubes.all() or not cubes.any():
        return None
    vertices, faces, *_ = marching_cubes(cubes, 0.5, allow_degenerate=False)
    # Vertices are counted from the centre of the first voxel.
    begin = np.array(crop.begin) - below
    return np.rint(2 * vertices).astype(np.int64) + 2 * begin + 1, faces.astype(np.int64)


def joined(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """One mesh of several that meet in equal vertices; sorted, so in one order for any parts."""
    pieces = list(parts)
    shifts = np.cumsum([0, *(len(vertices) for vertices, _ in pieces[:-1])])
    vertices, index = np.unique(
        np.concatenate([vertices for vertices, _ in pieces]), axis=0, return_inverse=True
    )
    faces = np.concatenate([faces + n for (_, faces), n in zip(pieces, shifts, strict=True)])
    faces = index.reshape(-1)[faces]
    # The smallest corner first, without turning the triangle over.
    first = faces.argmin(axis=1)
    faces = faces[np.arange(len(faces))[:, None], (first[:, None] + np.arange(3)) % 3]
    return vertices, faces[np.lexsort(faces.T[::-1])]


def simplified(mesh: Mesh) -> Mesh:
    """A mesh of a tenth of the triangles, by quadric edge collapses (Garland & Heckbert, 1997).

    Raises:
        ConfigError: fast-simplification is not installed.
    """
    library = needed("fast_simplification", "meshes", "view")
    if len(mesh.faces) <= ALL_KEPT:
        return mesh
    # Nearer to 0, where float32 resolves more.
    origin = mesh.vertices.min(axis=0)
    vertices, faces = library.simplify(
        np.ascontiguousarray(mesh.vertices - origin),
        mesh.faces.astype(np.int32),
        target_count=max(ALL_KEPT, round(KEPT * len(mesh.faces))),
    )
    return Mesh((vertices + origin).astype(np.float32), faces.astype(np.uint32))

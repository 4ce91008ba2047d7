"""Meshes and skeletons in Neuroglancer's precomputed formats, one folder for each kind.

https://github.com/google/neuroglancer/tree/master/src/datasource/precomputed: a mesh is a manifest
``ID:0`` and the file that it names, a skeleton is a file ``ID``. The ``info`` of a folder also says
of which segmentation its shapes are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.morphology.skeleton import Skeleton
from pipeline.morphology.surface import Mesh
from pipeline.rundir import write_json
from pipeline.tables import replacing

MESHES = {"@type": "neuroglancer_legacy_mesh"}
SKELETONS = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}
MANIFEST = ":0"


def begin(folder: Path, info: Mapping[str, object], segmentation: str | None) -> None:
    """Make a folder for the shapes of a segmentation; those of another one are deleted.

    Args:
        segmentation: its fingerprint.
    """
    if not is_of(folder, segmentation):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / "info", {**info, "segmentation": segmentation})


def is_of(folder: Path, segmentation: str | None) -> bool:
    """Whether a folder holds shapes of this very segmentation."""
    try:
        return bool(json.loads((folder / "info").read_text())["segmentation"] == segmentation)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def segments_in(folder: Path) -> list[int]:
    """Ids of the meshes or skeletons of a folder, ascending."""
    names = (path.name.removesuffix(MANIFEST) for path in folder.iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


def write_mesh(folder: Path, segment: int, mesh: Mesh) -> None:
    """Write a mesh; the manifest last, so that a mesh which is listed is whole."""
    with replacing(folder / f"{segment}.mesh") as partial, partial.open("wb") as file:
        file.write(np.array([len(mesh.vertices)], "<u4").tobytes())
        file.write(mesh.vertices.astype("<f4").tobytes())
        file.write(mesh.faces.astype("<u4").tobytes())
    write_json(folder / f"{segment}{MANIFEST}", {"fragments": [f"{segment}.mesh"]})


def read_mesh(folder: Path, segment: int) -> Mesh:
    """A mesh as ``write_mesh`` wrote it."""
    data = (folder / f"{segment}.mesh").read_bytes()
    count = int.from_bytes(data[:4], "little")
    split = 4 + 12 * count
    return Mesh(
        np.frombuffer(data[4:split], "<f4").reshape(-1, 3),
        np.frombuffer(data[split:], "<u4").reshape(-1, 3),
    )


def write_skeleton(folder: Path, segment: int, skeleton: Skeleton) -> None:
    """Write a skeleton with its radii."""
    with replacing(folder / str(segment)) as partial, partial.open("wb") as file:
        file.write(np.array([len(skeleton.vertices), len(skeleton.edges)], "<u4").tobytes())
        file.write(skeleton.vertices.astype("<f4").tobytes())
        file.write(skeleton.edges.astype("<u4").tobytes())
        file.write(skeleton.radii_nm.astype("<f4").tobytes())


def read_skeleton(folder: Path, segment: int) -> Skeleton:
    """A skeleton as ``write_skeleton`` wrote it."""
    data = (folder / str(segment)).read_bytes()
    nodes, edges = (int(count) for count in np.frombuffer(data[:8], "<u4"))
    ends = np.cumsum([8, 12 * nodes, 8 * edges])
    return Skeleton(
        np.frombuffer(data[ends[0] : ends[1]], "<f4").reshape(-1, 3),
        np.frombuffer(data[ends[1] : ends[2]], "<u4").reshape(-1, 2),
        np.frombuffer(data[ends[2] :], "<f4"),
    )

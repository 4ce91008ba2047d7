"""Meshes and skeletons for other programs: PLY, and SWC as neuroscience tools read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from pipeline.morphology.skeleton import Skeleton
from pipeline.morphology.surface import Mesh
from pipeline.tables import replacing

UNDEFINED, ROOT = 0, -1
"""Codes of SWC: the kind of a node, and the parent of one that has none."""


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write a mesh as binary PLY, x, y, z in nm."""
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment lengths in nm",
        f"element vertex {len(mesh.vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        f"element face {len(mesh.faces)}",
        "property list uchar uint vertex_indices",
        "end_header",
    ]
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<u4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(mesh.vertices.astype("<f4").tobytes())
        file.write(faces.tobytes())


def write_swc(path: Path, skeleton: Skeleton) -> None:
    """Write a skeleton as SWC, lengths in nm; parents come before their children."""
    lines = ["# lengths in nm", "# node kind x y z radius parent"]
    order, parents = rooted(skeleton)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(1, len(order) + 1)
    for node in order:
        x, y, z = skeleton.vertices[node]
        parent = ROOT if parents[node] < 0 else number[parents[node]]
        radius = skeleton.radii_nm[node]
        lines.append(f"{number[node]} {UNDEFINED} {x:.9g} {y:.9g} {z:.9g} {radius:.9g} {parent}")
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def rooted(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in an order from roots to leaves, and the parent of each node; -1 of roots."""
    count = len(skeleton.vertices)
    begin, end = skeleton.edges.T.astype(np.int64)
    graph = coo_array((np.ones(len(begin)), (begin, end)), shape=(count, count)).tocsr()
    _, tree = connected_components(graph, directed=False)
    _, roots = np.unique(tree, return_index=True)
    parents = np.full(count, -1, np.int64)
    order = []
    for root in roots:
        reached, before = breadth_first_order(graph, root, directed=False)
        parents[reached[1:]] = before[reached[1:]]
        order.append(reached)
    return np.concatenate(order), parents

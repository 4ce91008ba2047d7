"""Meshes and skeletons: their shape and place in nm, the same for any blocks, and their files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import marching_cubes

from pipeline.errors import LayoutError
from pipeline.geometry import ZYX, Nm
from pipeline.morphology import precomputed
from pipeline.morphology import skeleton as skeleton_module
from pipeline.morphology.exchange import write_ply, write_swc
from pipeline.morphology.segments import Segments
from pipeline.morphology.skeleton import Skeleton, skeleton
from pipeline.morphology.surface import ALL_KEPT, Mesh, simplified, surface
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume
from tests.drawn import OFFSET_NM, SHAPE, SIZE_NM, drawn_labels, write_volume

BLOCKS = [ZYX(64, 64, 64), ZYX(5, 17, 19), ZYX(1, 40, 22), ZYX(12, 3, 44)]
SIZE, OFFSET = np.array(SIZE_NM, float), np.array(OFFSET_NM, float)


def segments_in(folder: Path, labels: np.ndarray, block_vx: ZYX = BLOCKS[0]) -> Segments:
    path = folder / "data.zarr" / "labels"
    volume = Volume.open(path) if path.exists() else write_volume(path, labels, "segmentation")
    return Segments.of(volume, block_vx)


def box(begin: tuple[int, int, int], end: tuple[int, int, int], segment: int = 7) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint64)
    labels[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))] = segment
    return labels


def ball(radius: int = 18) -> np.ndarray:
    """A ball in nm, in a volume of its own."""
    places = np.stack(np.meshgrid(*(np.arange(n) for n in (12, 48, 50)), indexing="ij"), -1)
    distance = np.linalg.norm((places - (5.5, 23.5, 24.5)) * SIZE, axis=-1)
    return np.where(distance < radius * 8, np.uint64(3), np.uint64(0))


@pytest.mark.parametrize(
    ("begin", "end"),
    [((3, 5, 7), (9, 20, 31)), ((0, 0, 0), (12, 40, 44)), ((0, 12, 30), (4, 40, 44))],
    ids=["inside", "everything", "at the corner"],
)
def test_the_mesh_of_a_box_has_its_bounds_and_its_volume(
    tmp_path: Path, begin: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    mesh = surface(segments_in(tmp_path, box(begin, end), ZYX(4, 16, 9)), 7)
    assert np.array_equal(mesh.vertices.min(axis=0), (OFFSET + SIZE * begin)[::-1])
    assert np.array_equal(mesh.vertices.max(axis=0), (OFFSET + SIZE * end)[::-1])
    # Edges and corners are cut, half a voxel deep.
    exact = np.prod((np.array(end) - begin) * SIZE)
    assert 0.9 * exact < mesh.volume_nm3 < exact


@pytest.mark.parametrize("block_vx", BLOCKS[1:], ids=str)
def test_meshes_do_not_depend_on_blocks(tmp_path: Path, block_vx: ZYX) -> None:
    labels = drawn_labels()
    labels[drawn_labels(seed=6) % 3 == 0] = 0
    whole, blocks = (segments_in(tmp_path, labels, each) for each in (BLOCKS[0], block_vx))
    for segment in whole.extents.largest(6):
        one, other = surface(whole, segment), surface(blocks, segment)
        assert np.array_equal(one.vertices, other.vertices)
        assert np.array_equal(one.faces, other.faces)


@pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
def test_a_mesh_has_the_triangles_of_scikit_image(tmp_path: Path) -> None:
    labels = drawn_labels()
    segments = segments_in(tmp_path, labels, ZYX(5, 16, 16))
    for segment in segments.extents.largest(3):
        vertices, faces, *_ = marching_cubes(
            np.pad(labels == segment, 1).astype(np.float32), 0.5, allow_degenerate=False
        )
        places = ((vertices - 0.5) * SIZE + OFFSET)[:, ::-1].astype(np.float32)
        assert triangles(surface(segments, segment)) == triangles(Mesh(places, faces))


def triangles(mesh: Mesh) -> Counter[tuple[tuple[float, ...], ...]]:
    """Corners of each triangle, in one order."""
    return Counter(
        tuple(sorted(map(tuple, corners.tolist()))) for corners in mesh.vertices[mesh.faces]
    )


def test_surfaces_are_closed_and_face_outwards(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    segments = segments_in(
        tmp_path, (rng.random((9, 10, 11)) < 0.4).astype(np.uint64), ZYX(4, 3, 5)
    )
    mesh = surface(segments, 1)
    edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    there, back = (Counter(map(tuple, each.tolist())) for each in (edges, edges[:, ::-1]))
    assert there == back
    assert mesh.volume_nm3 > 0


def test_a_mesh_of_a_tenth_of_the_triangles_has_the_same_volume(tmp_path: Path) -> None:
    labels = np.kron(ball(), np.ones((3, 3, 3), np.uint64))
    full = surface(segments_in(tmp_path, labels), 3)
    fewer = simplified(full)
    assert len(fewer.faces) == pytest.approx(len(full.faces) / 10, rel=0.01)
    assert fewer.volume_nm3 == pytest.approx(full.volume_nm3, rel=0.01)
    assert np.abs(fewer.vertices.max(axis=0) - full.vertices.max(axis=0)).max() < 40


def test_small_meshes_are_not_simplified(tmp_path: Path) -> None:
    full = surface(segments_in(tmp_path, box((3, 5, 7), (5, 9, 11))), 7)
    assert len(full.faces) < ALL_KEPT
    assert simplified(full) is full


def test_sizes_are_those_of_a_count(tmp_path: Path) -> None:
    labels = drawn_labels()
    labels[labels == 4] = 2**64 - 1
    ids, voxels = np.unique(labels, return_counts=True)
    for block_vx in BLOCKS:
        extents = segments_in(tmp_path, labels, block_vx).extents
        assert np.array_equal(extents.sizes(), (ids, voxels))
    order = sorted(zip(-voxels, ids.tolist(), strict=True))
    assert extents.largest(6) == [segment for _, segment in order[:6]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_skeleton_of_a_tube_is_a_line_along_its_axis(tmp_path: Path, axis: int) -> None:
    size = np.array([20.0, 10.0, 10.0])
    shape = np.where(np.arange(3) == axis, 2400 / size, 260 / size).astype(int)
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), -1) * size
    across = np.delete(places - shape * size / 2, axis, axis=-1)
    labels = (np.linalg.norm(across, axis=-1) < 100).astype(np.uint64)
    spec = VolumeSpec(
        shape=labels.shape,
        dtype="uint64",
        voxel_size_nm=Nm.of([20, 10, 10]),
        offset_nm=Nm.of([1000, 500, 250]),
        meaning="segmentation",
    )
    volume = Volume.create(tmp_path / "tube", spec)
    volume.write(volume.roi, labels)
    traced = skeleton(Segments.of(volume, ZYX(40, 50, 60)), 1)
    nodes = traced.vertices[:, ::-1] - (1000, 500, 250)
    middle = np.delete(nodes - shape * size / 2, axis, axis=1)
    along = nodes[:, axis]
    inside = (along > 200) & (along < 2200)
    assert np.linalg.norm(middle[inside], axis=1).max() < 25
    assert along.min() < 150
    assert along.max() > 2250
    assert len(traced.edges) == len(nodes) - 1
    assert np.bincount(traced.edges.ravel()).max() == 2, "no branches"
    assert traced.length_nm == pytest.approx(2400, rel=0.1)
    assert traced.radii_nm[inside] == pytest.approx(100, abs=20)


def test_skeletons_do_not_depend_on_blocks(tmp_path: Path) -> None:
    labels = drawn_labels()
    segments = [segments_in(tmp_path, labels, block_vx) for block_vx in BLOCKS[:2]]
    for segment in segments[0].extents.largest(2):
        first, *others = (skeleton(each, segment) for each in segments)
        for other in others:
            assert np.array_equal(first.vertices, other.vertices)
            assert np.array_equal(first.edges, other.edges)


def test_a_skeleton_that_does_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skeleton_module, "MAX_BYTES", 51 * 6 * 15 * 24 - 1)
    segments = segments_in(tmp_path, box((3, 5, 7), (9, 20, 31)))
    with pytest.raises(
        LayoutError, match=r"segment 7 needs .*: its box has \(6, 15, 24\) voxels\n.*--level N"
    ):
        skeleton(segments, 7)


def test_a_coarse_level_lies_where_the_fine_one_does(tmp_path: Path) -> None:
    path = tmp_path / "data.zarr" / "labels"
    write_volume(path, box((4, 6, 8), (8, 20, 32)), "segmentation")
    spec = VolumeSpec(
        shape=(6, 20, 22),
        dtype="uint64",
        voxel_size_nm=Nm.of(SIZE * 2),
        offset_nm=Nm.of(OFFSET_NM),
        meaning="segmentation",
    )
    coarse = Volume.create(path, spec, level="s1")
    coarse.at_origin().write(coarse.at_origin().roi, box((4, 6, 8), (8, 20, 32))[::2, ::2, ::2])
    fine, coarser = (surface(Segments.of(Volume.open(path, level)), 7) for level in (0, 1))
    for bound in (np.min, np.max):
        assert np.array_equal(bound(fine.vertices, axis=0), bound(coarser.vertices, axis=0))


FOREST = Skeleton(
    np.arange(18, dtype=np.float32).reshape(6, 3) + np.float32(1234567.5),
    np.array([[1, 0], [2, 1], [1, 3], [5, 4]], np.uint32),
    np.arange(6, dtype=np.float32),
)


def test_what_is_written_for_neuroglancer_is_read_back(tmp_path: Path) -> None:
    mesh = surface(segments_in(tmp_path, box((3, 5, 7), (9, 20, 31))), 7)
    for folder, info in (("meshes", precomputed.MESHES), ("skeletons", precomputed.SKELETONS)):
        precomputed.begin(tmp_path / folder, info, "a")
    precomputed.write_mesh(tmp_path / "meshes", 2**64 - 1, mesh)
    precomputed.write_skeleton(tmp_path / "skeletons", 5, FOREST)
    assert precomputed.segments_in(tmp_path / "meshes") == [2**64 - 1]
    assert precomputed.segments_in(tmp_path / "skeletons") == [5]
    read = precomputed.read_mesh(tmp_path / "meshes", 2**64 - 1)
    assert np.array_equal(read.vertices, mesh.vertices)
    assert np.array_equal(read.faces, mesh.faces)
    again = precomputed.read_skeleton(tmp_path / "skeletons", 5)
    for name in Skeleton.__dataclass_fields__:
        assert np.array_equal(getattr(again, name), getattr(FOREST, name))
    manifest = json.loads((tmp_path / "meshes" / f"{2**64 - 1}:0").read_text())
    assert all((tmp_path / "meshes" / name).exists() for name in manifest["fragments"])


def test_shapes_of_another_segmentation_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "skeletons"
    precomputed.begin(folder, precomputed.SKELETONS, "a")
    precomputed.write_skeleton(folder, 5, FOREST)
    precomputed.begin(folder, precomputed.SKELETONS, "a")
    assert precomputed.segments_in(folder) == [5]
    precomputed.begin(folder, precomputed.SKELETONS, "b")
    assert precomputed.segments_in(folder) == []
    assert precomputed.is_of(folder, "b")
    assert not precomputed.is_of(folder, "a")
    assert not precomputed.is_of(tmp_path / "nowhere", "a")


def test_a_ply_file_holds_the_mesh(tmp_path: Path) -> None:
    mesh = surface(segments_in(tmp_path, box((3, 5, 7), (9, 20, 31))), 7)
    write_ply(tmp_path / "7.ply", mesh)
    header, _, data = (tmp_path / "7.ply").read_bytes().partition(b"end_header\n")
    words = [line.split() for line in header.decode().splitlines()]
    assert ["element", "vertex", str(len(mesh.vertices))] in words
    assert ["element", "face", str(len(mesh.faces))] in words
    split = mesh.vertices.nbytes
    assert np.array_equal(np.frombuffer(data[:split], "<f4").reshape(-1, 3), mesh.vertices)
    faces = np.frombuffer(data[split:], np.dtype([("count", "u1"), ("corners", "<u4", 3)]))
    assert set(faces["count"]) == {3}
    assert np.array_equal(faces["corners"], mesh.faces)


def test_an_swc_file_holds_the_skeleton_with_parents_first(tmp_path: Path) -> None:
    write_swc(tmp_path / "5.swc", FOREST)
    lines = (tmp_path / "5.swc").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    numbers, parents = ([int(row[column]) for row in rows] for column in (0, 6))
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert all(parent < number for number, parent in zip(numbers, parents, strict=True))
    assert parents.count(-1) == 2
    # Which node of the forest a row is, by its radius.
    node = {int(row[0]): int(float(row[5])) for row in rows}
    found = {frozenset((node[n], node[p])) for n, p in zip(numbers, parents, strict=True) if p > 0}
    assert found == {frozenset(edge) for edge in FOREST.edges.tolist()}
    for row in rows:
        place = [float(value) for value in row[2:5]]
        assert place == FOREST.vertices[node[int(row[0])]].tolist()

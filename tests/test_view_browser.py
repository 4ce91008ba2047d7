"""`pea view` in a browser: what Neuroglancer reads and draws is what lies on disk, in its place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import neuroglancer
import numpy as np
import pytest
import zarr
from PIL import Image

from pipeline.geometry import ZYX, Nm, Roi
from pipeline.morphology import precomputed
from pipeline.morphology.segments import Segments
from pipeline.morphology.surface import surface
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume
from tests.drawn import DIRECT, OFFSET_NM, SIZE_NM, drawn_affinities, drawn_labels, write_volume
from workers.scene import Layer, Scene
from workers.view import served

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = (
    "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT_S = 120
SIDE, RIM = 400, 8
"""Pixels of the screenshot, high, and between its three panels."""
PANEL = SIDE - 2 * RIM / 3
FACTOR = 2**50 + 1
"""Ids of the segmentation are those of the truth times this: more than 53 bits."""
ZOOM = 4
"""Pixels of a voxel of the labels."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"needs a browser with WebGL: {BROWSERS}"),
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Volumes of each kind that can be shown, and the mesh of a segment."""
    folder = tmp_path_factory.mktemp("scene")
    root = folder / "data.zarr"
    labels = drawn_labels()
    affinities = drawn_affinities(labels)
    write_volume(root / "affinities", affinities, "affinities", DIRECT)
    segmentation = write_volume(root / "segmentation", labels * np.uint64(FACTOR), "segmentation")
    coarse = Volume.create(root / "segmentation", halved(segmentation.spec), level="s1").at_origin()
    coarse.write(coarse.roi, segmentation.read(segmentation.roi)[:, ::2, ::2])
    # Of half the voxel size in x and y.
    fine = VolumeSpec(
        shape=(12, 80, 88),
        dtype="uint16",
        voxel_size_nm=Nm.of([40, 4, 4]),
        offset_nm=Nm.of(OFFSET_NM),
        meaning="raw",
        shard_vx=ZYX(12, 40, 88),
    )
    raw = Volume.create(root / "raw", fine)
    raw.write(raw.roi, np.repeat(np.repeat(affinities[0], 2, 1), 2, 2).astype(np.uint16) * 4)
    # Another program's, without OME-NGFF, of Zarr v2.
    bare = zarr.create_array(
        folder / "bare.zarr", shape=labels.shape, chunks=(6, 20, 22), dtype="u4", zarr_format=2
    )
    bare[:] = labels.astype(np.uint32)
    bare.attrs.update(resolution=SIZE_NM, offset=OFFSET_NM)
    segments = Segments.of(Volume.open(root / "segmentation"))
    precomputed.begin(folder / "meshes", precomputed.MESHES, "a")
    (largest,) = segments.extents.largest(1)
    precomputed.write_mesh(folder / "meshes", largest, surface(segments, largest))
    places = {name: root / name for name in ("raw", "affinities", "segmentation")}
    places["truth"] = folder / "bare.zarr"
    layers = tuple(Layer.of(name, Volume.open(place)) for name, place in places.items())
    return Scene("scene", layers, {"meshes": folder / "meshes"}, (), None)


def halved(spec: VolumeSpec) -> VolumeSpec:
    return VolumeSpec(
        shape=(12, 20, 22),
        dtype=spec.dtype,
        voxel_size_nm=Nm.of([40, 16, 16]),
        offset_nm=spec.offset_nm,
        meaning=spec.meaning,
    )


@contextmanager
def shown(scene: Scene, profile: Path) -> Iterator[Any]:
    """A viewer, open in a browser."""
    assert BROWSER is not None
    with served(scene, 0) as viewer, (profile.parent / "browser.log").open("w") as log:
        words = [BROWSER, *FLAGS, f"--user-data-dir={profile}", str(viewer)]
        browser = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            yield viewer
        finally:
            browser.terminate()
            browser.wait(WAIT_S)


def test_the_client_reads_every_voxel_where_it_lies(scene: Scene, tmp_path: Path) -> None:
    with shown(scene, tmp_path / "profile") as viewer:
        with viewer.txn() as state:
            for layer in state.layers:
                # Chunks of labels are handed out compressed, those of images as they are.
                layer.layer = neuroglancer.ImageLayer(source=layer.source[0])
                layer.visible = True
        for layer in scene.layers[:3]:  # where bare arrays lie it cannot tell, it draws them right
            volume = layer.volume
            name = "affinities z" if layer.name == "affinities" else layer.name
            with viewer.txn() as state:  # volumes are handed out in the voxels of the viewer only
                sizes = volume.spec.voxel_size_nm.numbers()
                state.dimensions = neuroglancer.CoordinateSpace(
                    names=["z", "y", "x"], units="nm", scales=sizes
                )
            axes = layer.source("").transform.output_dimensions
            read = viewer.volume(name, dimensions=axes).result(WAIT_S)
            assert tuple(read.domain.origin[-3:]) == tuple(volume.roi.begin), name
            values = np.asarray(read.read().result(WAIT_S))
            assert np.array_equal(values, volume.read(volume.roi)), name


def test_labels_and_their_mesh_are_drawn_in_one_place(scene: Scene, tmp_path: Path) -> None:
    (segment,) = precomputed.segments_in(scene.shapes["meshes"])
    with shown(scene, tmp_path / "profile") as viewer:
        with viewer.txn() as state:
            state.show_axis_lines = state.show_scale_bar = state.show_default_annotations = False
            state.show_slices = False
            state.cross_section_scale = 1 / ZOOM
            state.projection_scale = SIDE / ZOOM
            state.layers["truth"].layer.segments = [segment // FACTOR]
            for name in ("segmentation", "truth"):
                labels = state.layers[name].layer
                labels.selected_alpha, labels.not_selected_alpha = 1, 0
                labels.segment_default_color = "#0000ff"
                state.layers[name].visible = True
            solid = neuroglancer.DataPanelLayout(type="3d", orthographic_projection=True)
            panels = (("segmentation", "xy"), ("truth", "xy"), ("segmentation", solid))
            state.layout = neuroglancer.row_layout(
                [neuroglancer.LayerGroupViewer(layers=[n], layout=layout) for n, layout in panels]
            )
            position = np.array(state.position)
        image = screenshot(viewer, tmp_path / "screenshot.png")
    volume = scene.layers[2].volume
    inside = volume.read(volume.roi) == segment
    section = int(np.floor(position[2])) - volume.roi.begin[0]
    assert not np.array_equal(inside[section - 1], inside[section])
    blue = (image[..., 2] > 20) & (image[..., :2] < 10).all(axis=-1)
    drawn = {"labels": inside[section], "truth": inside[section], "mesh": inside.any(axis=0)}
    for number, name in enumerate(drawn):
        across = PANEL / 2 + number * (PANEL + RIM)
        panel = blue.copy()
        panel[:, np.abs(np.arange(3 * SIDE) + 0.5 - across) > PANEL / 2] = False
        for axis, middle in ((0, SIDE / 2), (1, across)):
            # x is the first axis of the viewer, and the last of the array.
            begin, centre = volume.roi.begin[1 + axis], position[1 - axis]
            expected = bounds(drawn[name], axis) + begin - centre
            found = (bounds(panel, axis) - middle) / ZOOM
            assert np.abs(found - expected).max() < 0.3, (name, axis)
        if name != "mesh":
            middles = (SIDE / 2, across)
            assert np.array_equal(sampled(panel, volume.roi, position, middles), inside[section])


def sampled(
    panel: np.ndarray, roi: Roi, position: np.ndarray, middles: tuple[float, float]
) -> np.ndarray:
    """A pixel near the middle of every voxel of a section, ``(y, x)``."""
    rows, columns = (
        np.round(middle + (np.arange(side) + begin + 0.4 - centre) * ZOOM).astype(int)
        for middle, side, begin, centre in zip(
            middles, roi.shape[1:], roi.begin[1:], position[1::-1], strict=True
        )
    )
    return np.asarray(panel[np.ix_(rows, columns)])


def bounds(mask: np.ndarray, axis: int) -> np.ndarray:
    """Where the true pixels of an image begin and end."""
    (places,) = np.nonzero(mask.any(axis=1 - axis))
    return np.array([places[0], places[-1] + 1], float)


def screenshot(viewer: Any, path: Path) -> np.ndarray:
    """Three panels as RGB, once all has been loaded and drawn."""
    with viewer.config_state.txn() as config:
        config.show_ui_controls = config.show_panel_borders = False
        config.viewer_size = [3 * SIDE, SIDE]
    taken: Queue[Any] = Queue()
    viewer.async_screenshot(taken.put)
    path.write_bytes(taken.get(timeout=WAIT_S).screenshot.image)
    return np.asarray(Image.open(path).convert("RGB"))

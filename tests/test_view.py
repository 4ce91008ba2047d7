"""Shapes of a run by the command line, and what `pea view` serves and links to."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import neuroglancer
import numpy as np
import pytest
import zarr

from pipeline.config import load_settings
from pipeline.errors import ConfigError
from pipeline.morphology import precomputed
from pipeline.plan import Plan, make_plan
from pipeline.rundir import RunDirectory
from pipeline.volume import Volume
from tests.drawn import DIRECT, OFFSET_NM, SIZE_NM, write_volume
from tests.tried import Tried
from workers import cli
from workers.scene import Layer, Scene
from workers.view import link, served


def plan_of(finished: Tried) -> Plan:
    return make_plan(load_settings(finished.folder / "run.yaml"), finished.folder / "runs")


def segmentation(finished: Tried) -> np.ndarray:
    volume = Volume.open(finished.root / "volumes.zarr/segmentation")
    return volume.read(volume.roi)


def test_the_largest_segments_get_meshes_and_ply_files(finished: Tried) -> None:
    ply = finished.folder / "ply"
    assert finished("mesh", None, "--largest", "1", "--ply", str(ply)) == 0, finished.err
    folder = RunDirectory(finished.root).meshes
    assert finished.out == f"meshes: 1, in {folder}\n"
    labels = segmentation(finished)
    ids, voxels = np.unique(labels[labels > 0], return_counts=True)
    largest = int(ids[voxels.argmax()])
    made = precomputed.segments_in(folder)
    assert made == [largest]
    assert len(ids) > 1
    assert sorted(path.stem for path in ply.iterdir()) == sorted(map(str, made))
    for segment in made:
        mesh = precomputed.read_mesh(folder, segment)
        places = np.argwhere(labels == segment)
        begin, end = places.min(axis=0), places.max(axis=0) + 1
        for bound, found in ((begin, mesh.vertices.min(axis=0)), (end, mesh.vertices.max(axis=0))):
            assert np.abs(found[::-1] - bound * SIZE_NM - OFFSET_NM).max() <= max(SIZE_NM)


def test_named_segments_get_skeletons_and_swc_files(finished: Tried) -> None:
    wanted = np.unique(segmentation(finished)[segmentation(finished) > 0]).tolist()
    swc = finished.folder / "swc"
    words = ["skeleton", str(finished.root), *map(str, wanted), "--swc", str(swc)]
    assert cli.main(words) == 0
    assert precomputed.segments_in(RunDirectory(finished.root).skeletons) == wanted
    assert {path.name for path in swc.iterdir()} == {f"{segment}.swc" for segment in wanted}


@pytest.mark.parametrize("command", ["mesh", "skeleton"])
def test_shapes_of_what_is_not_there_are_refused(finished: Tried, command: str) -> None:
    assert finished(command, None, "--level", "1") == 1
    assert "--level must be 0 to 0 in this run, found 1" in finished.err
    assert cli.main([command, str(finished.root), "123456789"]) == 1
    assert finished.capsys is not None
    said = finished.capsys.readouterr().err
    assert f"no such segments in {finished.root}/volumes.zarr/segmentation/s0: 123456789" in said
    assert not (finished.root / "meshes").exists()
    assert not (finished.root / "skeletons").exists()


@pytest.mark.parametrize("command", ["mesh", "skeleton"])
def test_shapes_need_a_finished_segmentation(tried: Tried, command: str) -> None:
    assert tried(command, None) == 1
    assert "relabel_blockwise is not finished" in tried.err
    assert not tried.root.exists()


def test_without_the_extra_it_is_named(finished: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, words in (
        ("neuroglancer", ["view", "--link", "https://x.org"]),
        ("fast_simplification", ["mesh"]),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        assert finished(words[0], None, *words[1:]) == 1
        assert f"need {library}, which is not installed" in finished.err
        assert "pip install 'pea-connectomics[view]'" in finished.err


def test_volumes_lie_where_they_do_in_the_world(tmp_path: Path) -> None:
    data = np.zeros((4, 6, 8), np.uint8)
    ours = write_volume(tmp_path / "data.zarr" / "raw", data, "raw")
    layer = Layer.of("raw", ours)
    assert layer.place == tmp_path / "data.zarr" / "raw"
    # The client takes the offset for the centre of the first voxel.
    assert layer.shift_vx.tolist() == [0.5, 0.5, 0.5]
    bare = zarr.create_array(tmp_path / "bare.zarr", shape=(4, 6, 8), chunks=(4, 6, 8), dtype="u1")
    bare.attrs.update(resolution=[40, 8, 8], offset=[80, 16, 8])
    layer = Layer.of("raw", Volume.open(tmp_path / "bare.zarr"))
    assert layer.place == tmp_path / "bare.zarr"
    assert layer.shift_vx.tolist() == [2, 2, 1]


def test_a_link_shows_all_that_a_run_has(finished: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finished("mesh", None, "--largest", "2") == 0
    monkeypatch.chdir(finished.folder)
    assert finished("view", None, "--link", "https://host/a b/") == 0, finished.err
    state = neuroglancer.parse_url(finished.out.strip())
    layers = {layer.name: layer for layer in state.layers}
    assert list(layers) == [
        *(f"affinities {axis}" for axis in "zyx"), "fragments", "segmentation", "truth",
    ]  # fmt: skip
    assert [name for name, layer in layers.items() if layer.visible] == ["segmentation"]
    urls = [source.url for source in layers["segmentation"].source]
    base = "https://host/a b/runs/small"
    assert urls == [f"zarr://{base}/volumes.zarr/segmentation", f"precomputed://{base}/meshes"]
    assert layers["truth"].source[0].url == "zarr://https://host/a b/data.zarr/labels"
    assert len(layers["segmentation"].segments) == 2
    labels = Volume.open(finished.root / "volumes.zarr/segmentation")
    middle = (labels.roi.begin + labels.roi.shape / 2)[::-1]
    assert np.abs(state.position - middle).max() <= 0.5
    assert state.dimensions.names == ("x", "y", "z")
    assert np.allclose(state.dimensions.scales, np.array(SIZE_NM[::-1]) * 1e-9)


def test_a_link_to_what_cannot_be_served_is_refused(
    finished: Tried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene.of_run(plan_of(finished))
    with pytest.raises(ConfigError, match="--link must be a URL"):
        link(scene, "host/path")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ConfigError, match="below the current folder"):
        link(scene, "https://host/path")


def test_shapes_of_another_segmentation_are_not_shown(finished: Tried) -> None:
    assert finished("mesh", None, "--largest", "1") == 0
    assert set(Scene.of_run(plan_of(finished)).shapes) == {"meshes"}
    finished.tree["run"]["agglomerate"] = {"threshold": 0.2}
    assert finished("run", "all", "--rerun") == 0
    assert not Scene.of_run(plan_of(finished)).shapes
    assert finished("mesh", None, "--largest", "1") == 0
    assert set(Scene.of_run(plan_of(finished)).shapes) == {"meshes"}


def test_what_is_out_of_date_is_shown_and_said_to_be(finished: Tried) -> None:
    assert Scene.of_run(plan_of(finished)).remarks == ()
    finished.tree["run"]["agglomerate"] = {"threshold": 0.2}
    assert finished("view", None, "--link", "https://host") == 1
    assert "segmentation as it is: relabel_blockwise is out of date" in finished.err


def test_what_the_client_cannot_read_is_left_out_and_said_to_be(finished: Tried) -> None:
    given = Volume.open(finished.data / "affinities")
    wide = given.read(given.roi) / 255
    write_volume(finished.data / "wide", wide, "affinities", DIRECT)
    finished.tree["run"]["data"]["affinities"] = str(finished.data / "wide")
    finished.words()
    scene = Scene.of_run(plan_of(finished))
    assert "affinities" not in [layer.name for layer in scene.layers]
    assert "affinities is left out: Neuroglancer reads no float64" in scene.remarks


def test_a_scene_is_served_to_this_computer_and_to_who_knows_the_secret(
    finished: Tried,
) -> None:
    scene = Scene.of_run(plan_of(finished))
    with served(scene, 0) as viewer:
        address = str(viewer)
        assert address.startswith("http://127.0.0.1:")
        assert b"neuroglancer" in urlopen(address).read()  # noqa: S310
        root = address.replace("/v/", "/files/")
        url = viewer.state.layers["truth"].source[0].url.removeprefix("zarr://")
        assert url == f"{root}truth"
        assert json.loads(get(f"{url}/zarr.json"))["node_type"] == "group"
        (shard,) = [p for p in sorted((finished.data / "labels/s0/c").rglob("*")) if p.is_file()][
            :1
        ]
        whole = shard.read_bytes()
        part = f"{url}/s0/c/{shard.relative_to(finished.data / 'labels/s0/c')}"
        assert get(part) == whole
        assert get(part, "bytes=3-17") == whole[3:18]
        assert get(part, "bytes=-20") == whole[-20:]
        for outside in (
            f"{root}truth/../mask/zarr.json",
            f"{root}truth/%2e%2e/mask/zarr.json",
            f"{root}other/zarr.json",
            f"{root.replace(viewer.token, 'guess')}truth/zarr.json",
            f"{root}truth/s0/c/9/9/9",
        ):
            with pytest.raises(HTTPError) as refused:
                get(outside)
            assert refused.value.code in (403, 404)
            refused.value.close()
    with pytest.raises(OSError, match="refused"):
        get(address)


def get(url: str, part: str | None = None) -> bytes:
    request = Request(url, headers={} if part is None else {"Range": part})  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310
        return bytes(answer.read())


def test_a_port_that_is_taken_is_refused(finished: Tried) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert finished("view", None, "--port", str(port), "--no-browser") == 1
    assert f"--port {port} cannot be listened at" in finished.err

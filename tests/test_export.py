"""What is exported and ingested again is the same volume: voxels, voxel size, offset, offsets."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr

from pipeline.errors import ConfigError, DataError, DtypeError, ExistsError, RoiError, ShapeError
from pipeline.export import Format, export, format_of
from pipeline.geometry import ZYX, Nm, Offsets, Roi, nanometres
from pipeline.ingest import ingest
from pipeline.location import location
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume
from tests.drawn import LONG, files_state
from tests.served import served
from tests.tried import Tried
from workers import cli
from workers.export import region_of

SIZE = Nm.of(["40.5", 4, "4.04"])
OFFSET = Nm.of(["-121.5", 20, "28.28"])
SHAPE = (37, 70, 133)
NAMES = {
    Format.CREMI: "out.h5",
    Format.SNEMI3D: "out.hdf",
    Format.TIFF: "out.tif",
    Format.SECTIONS: "out",
    Format.PRECOMPUTED: "out.precomputed",
    Format.N5: "out.n5",
}
PLACED = (Format.CREMI, Format.SNEMI3D, Format.PRECOMPUTED, Format.N5)


def volume_of(folder: Path, data: np.ndarray, meaning: str, channels: bool = False) -> Volume:
    spec = VolumeSpec(
        shape=data.shape, dtype=str(data.dtype), voxel_size_nm=SIZE, offset_nm=OFFSET,
        meaning=meaning, shard_vx=ZYX(32, 64, 64), offsets=Offsets.of(LONG) if channels else None,
    )  # fmt: skip
    volume = Volume.create(folder / "in.zarr" / meaning, spec)
    volume.write(volume.roi, data)
    return volume


def cells(high: int = 2**64 - 1) -> np.ndarray:
    """Labels of a few thousand ids up to the highest there is."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, high, (7, 10, 19), dtype=np.uint64, endpoint=True)
    coarse[0, 0, 0], coarse[1, 1, 1] = high, 0
    return np.kron(coarse, np.ones((6, 7, 7), np.uint64))[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


@pytest.fixture
def labels(tmp_path: Path) -> Volume:
    return volume_of(tmp_path, cells(), "segmentation")


@pytest.fixture
def raw(tmp_path: Path) -> Volume:
    rng = np.random.default_rng(4)
    return volume_of(tmp_path, rng.integers(0, 256, SHAPE, dtype=np.uint8), "raw")


def again(path: Path, kind: str, **options: object) -> Volume:
    report = ingest(path, path.parent / "again.zarr" / path.name, kind=kind, **options)  # type: ignore[arg-type]
    assert report.warnings == ()
    return Volume.open(report.destination)


def same(found: Volume, expected: Volume, roi: Roi | None = None) -> None:
    roi = roi or expected.roi
    assert found.roi == roi
    assert found.spec.voxel_size_nm == expected.spec.voxel_size_nm
    assert found.spec.offset_nm == nanometres(roi.begin, SIZE)
    assert found.dtype == expected.dtype
    assert np.array_equal(found.read(found.roi), expected.read(roi))


@pytest.mark.parametrize("form", PLACED)
def test_labels_up_to_the_highest_id_come_back(
    tmp_path: Path, labels: Volume, form: Format
) -> None:
    path = tmp_path / NAMES[form]
    export(labels, path, form)
    same(again(path, "labels"), labels)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        ["again.zarr", "in.zarr", path.name]
    )


@pytest.mark.parametrize("form", PLACED)
def test_raw_comes_back(tmp_path: Path, raw: Volume, form: Format) -> None:
    path = tmp_path / NAMES[form]
    export(raw, path, form)
    same(again(path, "raw"), raw)


@pytest.mark.parametrize("form", [Format.TIFF, Format.SECTIONS])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_raw_comes_back_from_tiff_in_its_voxel_size(
    tmp_path: Path, form: Format, dtype: str
) -> None:
    rng = np.random.default_rng(4)
    raw = volume_of(tmp_path, rng.integers(0, 256, SHAPE).astype(dtype), "raw")
    path = tmp_path / NAMES[form]
    export(raw, path, form)
    same(again(path, "raw", offset=OFFSET), raw)


@pytest.mark.parametrize("form", [Format.TIFF, Format.SECTIONS])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_labels_come_back_from_tiff_if_they_fit(tmp_path: Path, form: Format, dtype: str) -> None:
    labels = volume_of(tmp_path, cells(int(np.iinfo(dtype).max)), "labels")
    path = tmp_path / NAMES[form]
    export(labels, path, form, dtype=dtype)
    file = path if path.is_file() else path / "z00000.tif"
    assert tifffile.imread(file).dtype == dtype
    same(again(path, "labels", offset=OFFSET), labels)


@pytest.mark.parametrize("form", PLACED)
def test_affinities_come_back_with_their_offsets(tmp_path: Path, form: Format) -> None:
    rng = np.random.default_rng(4)
    data = rng.integers(0, 256, (len(LONG), *SHAPE), dtype=np.uint8)
    affinities = volume_of(tmp_path, data, "affinities", channels=True)
    path = tmp_path / NAMES[form]
    export(affinities, path, form)
    found = again(path, "affinities")
    same(found, affinities)
    assert found.spec.offsets == affinities.spec.offsets


@pytest.mark.parametrize("form", Format)
def test_a_region_is_that_region(tmp_path: Path, raw: Volume, form: Format) -> None:
    roi = Roi((2, 12, 8), (31, 17, 101))
    path = tmp_path / NAMES[form]
    export(raw, path, form, roi=roi)
    placed = {} if form in PLACED else {"offset": nanometres(roi.begin, SIZE)}
    same(again(path, "raw", **placed), raw, roi)


def test_dense_ids_are_the_places_of_the_old_ones(tmp_path: Path, labels: Volume) -> None:
    path = tmp_path / "out.tif"
    export(labels, path, Format.TIFF, dtype="uint16", dense=True)
    values, places = np.unique(labels.read(labels.roi), return_inverse=True)
    assert values[0] == 0
    assert np.array_equal(tifffile.imread(path), places.reshape(SHAPE))


def test_ids_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, labels: Volume
) -> None:
    for form, options, message in (
        (Format.TIFF, {}, "ids of up to 32 bits"),
        (Format.TIFF, {"dtype": "uint32"}, f"the highest is {2**64 - 1}.*\n.*--dense"),
        (Format.CREMI, {"dtype": "uint16"}, "ids must fit uint16, up to 65535"),
    ):
        with pytest.raises(DataError, match=message):
            export(labels, tmp_path / NAMES[form], form, **options)  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.zarr"]


def test_cremi_and_snemi3d_are_laid_out_as_in_their_challenges(
    tmp_path: Path, labels: Volume, raw: Volume
) -> None:
    export(labels, tmp_path / "cremi.hdf", Format.CREMI)
    export(raw, tmp_path / "raw.hdf", Format.CREMI)
    export(labels, tmp_path / "snemi.h5", Format.SNEMI3D, dtype="uint32", dense=True)
    with h5py.File(tmp_path / "cremi.hdf") as file:
        found = file["volumes/labels/neuron_ids"]
        assert found.dtype == np.uint64
        assert list(found.attrs["resolution"]) == [40.5, 4, 4.04]
        assert list(found.attrs["offset"]) == [-121.5, 20, 28.28]
        assert file.attrs["file_format"] == "0.2"
    with h5py.File(tmp_path / "raw.hdf") as file:
        assert file["volumes/raw"].shape == SHAPE
    with h5py.File(tmp_path / "snemi.h5") as file:
        assert list(file) == ["main"]
        assert file["main"].dtype == np.uint32


def test_scales_of_precomputed_are_the_most_frequent_label_and_the_mean(
    tmp_path: Path, labels: Volume, raw: Volume
) -> None:
    """As Neuroglancer reads them, whose world has its windows at even voxels."""
    for volume, kind in ((labels, "segmentation"), (raw, "image")):
        path = tmp_path / kind
        export(volume, path, Format.PRECOMPUTED)
        info = json.loads((path / "info").read_text())
        assert info["type"] == kind
        assert [scale["resolution"] for scale in info["scales"]] == [
            [4.04, 4, 40.5], [8.08, 8, 40.5], [16.16, 16, 40.5],
        ]  # fmt: skip
        levels = [
            tensorstore.open(
                {"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/",
                 "scale_index": number}
            ).result()[..., 0]
            for number in range(3)
        ]  # fmt: skip
        assert levels[0].domain.inclusive_min == (7, 5, -3)
        for finer, coarser in itertools.pairwise(levels):
            ends = [-(-end // 2) for end in finer.domain.exclusive_max[:2]]
            assert coarser.domain.exclusive_max[:2] == tuple(ends)
            x, y, z = 9, 4, 11
            window = finer[2 * x : 2 * x + 2, 2 * y : 2 * y + 2, z].read().result().ravel()
            if kind == "image":
                assert abs(int(coarser[x, y, z].read().result()) - window.mean()) <= 0.5
            else:
                values, counts = np.unique(window, return_counts=True)
                assert coarser[x, y, z].read().result() in values[counts == counts.max()]


def test_precomputed_and_n5_are_read_from_a_server(tmp_path: Path, raw: Volume) -> None:
    for form in (Format.PRECOMPUTED, Format.N5):
        export(raw, tmp_path / NAMES[form], form)
    with served(tmp_path) as address:
        for form in (Format.PRECOMPUTED, Format.N5):
            report = ingest(
                location(f"{address}/{NAMES[form]}"), tmp_path / "again.zarr" / form.value
            )
            same(Volume.open(report.destination), raw)


def test_a_failure_leaves_what_was_there(tmp_path: Path, labels: Volume, raw: Volume) -> None:
    """A chunk of the source is lost; the output of before is there still, and nothing else."""
    shard = next(p for p in sorted((labels.path / "c").rglob("*")) if p.is_file())  # type: ignore[operator]
    for form in PLACED:
        path = tmp_path / form.value / NAMES[form]
        export(raw, path, form)
        before = files_state(path) if path.is_dir() else path.read_bytes()
        kept = shard.rename(tmp_path / "kept")
        with pytest.raises(DataError, match="damaged or missing chunk"):
            export(labels, path, form, overwrite=True)
        kept.rename(shard)
        assert before == (files_state(path) if path.is_dir() else path.read_bytes())
        export(labels, path, form, overwrite=True)
        assert list(path.parent.iterdir()) == [path]
        same(again(path, "labels"), labels)


def test_what_a_crash_left_is_cleared(tmp_path: Path, raw: Volume) -> None:
    """Killed between two renames: the old output is back before anything else happens."""
    path = tmp_path / "out.h5"
    export(raw, path, Format.CREMI)
    (tmp_path / ".out.h5.partial").mkdir()
    path.rename(tmp_path / ".out.h5.partial" / ".replaced")
    with pytest.raises(ExistsError, match="--overwrite"):
        export(raw, path, Format.CREMI)
    assert path.is_file()
    assert not (tmp_path / ".out.h5.partial").exists()


def test_only_an_output_of_the_same_format_is_replaced(tmp_path: Path, raw: Volume) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    for form in (Format.SECTIONS, Format.PRECOMPUTED):
        with pytest.raises(ExistsError, match="already something"):
            export(raw, tmp_path / "out", form)
        with pytest.raises(ExistsError, match="something else"):
            export(raw, tmp_path / "out", form, overwrite=True)
    for inside in (tmp_path / "in.zarr", tmp_path / "in.zarr" / "raw" / "s0" / "x.h5"):
        with pytest.raises(ExistsError):
            export(raw, inside, Format.CREMI, overwrite=True)


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    halves = volume_of(tmp_path, np.zeros((4, 5, 6, 7), np.float16), "embeddings")
    for form in (Format.N5, Format.PRECOMPUTED):
        with pytest.raises(DtypeError, match="no voxels of float16"):
            export(halves, tmp_path / NAMES[form], form)
    with pytest.raises(ShapeError, match=r"a TIFF stack has axes \(z, y, x\)"):
        export(halves, tmp_path / "out.tif", Format.TIFF)
    with pytest.raises(ConfigError, match="for labels only"):
        export(halves, tmp_path / "out.h5", Format.CREMI, dense=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.zarr"]


def test_the_format_is_told_by_the_suffix_or_by_name(tmp_path: Path) -> None:
    told = {"a.h5": "cremi", "a.TIF": "tiff", "a.n5": "n5", "a.precomputed": "precomputed"}
    assert {name: str(format_of(Path(name), None)) for name in told} == told
    assert format_of(Path("a.h5"), "snemi3d") is Format.SNEMI3D
    for name, form in (("a", None), ("a.xyz", None), ("a.tif", "cremi"), ("a.h5", "sections")):
        with pytest.raises(ConfigError):
            format_of(Path(name), form)


def test_a_region_is_written_in_nm(raw: Volume) -> None:
    assert region_of(raw, None) == raw.roi
    assert region_of(raw, "0:81,:,28.28:32.32") == Roi((0, 5, 7), (2, 70, 1))
    for text, error in (
        ("0:81", ConfigError), ("a:b,:,:", Exception), ("0:80,:,:", RoiError),
        ("0:0,:,:", RoiError), ("0:40500,:,:", RoiError),
    ):  # fmt: skip
        with pytest.raises(error):
            region_of(raw, text)


N5_PLACES: dict[str, dict[str, object]] = {
    "cellmap": {"transform": {
        "axes": ["z", "y", "x"], "units": ["um", "nm", "nm"],
        "scale": [0.0405, 4, 4.04], "translate": [-0.1215, 20, 28.28]}},
    "tensorstore": {"axes": ["x", "y", "z"], "units": ["nm", "nm", "um"],
                    "resolution": [4.04, 4, 0.0405], "offset": [28.28, 20, -0.1215]},
    "funlib": {"axis_names": ["z", "y", "x"], "resolution": [40.5, 4, 4.04],
               "offset": [-121.5, 20, 28.28]},
    "fiji": {"pixelResolution": {"dimensions": [0.00404, 0.004, 0.0405], "unit": "um"}},
}  # fmt: skip


@pytest.mark.parametrize("convention", N5_PLACES)
def test_n5_of_every_convention_finds_its_place(
    tmp_path: Path, raw: Volume, convention: str
) -> None:
    """Arrays as other programs leave them, without anything that this pipeline would add."""
    path = bare_n5(tmp_path, raw, **N5_PLACES[convention])
    offset = OFFSET if convention == "fiji" else None
    report = ingest(path, tmp_path / "again.zarr" / "raw", dataset="volumes/em", offset=offset)
    same(Volume.open(report.destination), raw)


def test_lengths_of_unknown_order_are_refused(tmp_path: Path, raw: Volume) -> None:
    path = bare_n5(tmp_path, raw, resolution=[4.04, 4, 40.5])
    with pytest.raises(ValueError, match=r"z, y, x or x, y, z.*\n.*--voxel-size"):
        again(path, "raw", dataset="volumes/em")
    report = ingest(
        path, tmp_path / "out.zarr" / "raw", dataset="volumes/em", voxel_size=SIZE, offset=OFFSET
    )
    same(Volume.open(report.destination), raw)


def bare_n5(folder: Path, volume: Volume, **attributes: object) -> Path:
    path = folder / "other.n5"
    array = tensorstore.open(
        {"driver": "n5", "kvstore": f"file://{path}/volumes/em/",
         "metadata": {"dimensions": list(SHAPE[::-1]), "blockSize": [50, 40, 30],
                      "dataType": "uint8", "compression": {"type": "raw"}}},
        create=True,
    ).result()  # fmt: skip
    array.write(volume.read(volume.roi).T).result()
    file = path / "volumes" / "em" / "attributes.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | attributes))
    return path


def test_a_scale_of_precomputed_is_named_by_its_key(tmp_path: Path, raw: Volume) -> None:
    path = tmp_path / "out.precomputed"
    export(raw, path, Format.PRECOMPUTED)
    coarse = again(path, "raw", dataset="8.08_8_40.5")
    assert coarse.spec.voxel_size_nm == Nm.of(["40.5", 8, "8.08"])
    with pytest.raises(FileNotFoundError, match=r"It has: 4.04_4_40.5, 8.08_8_40.5"):
        again(path, "raw", dataset="1_1_1")


def test_volumes_of_a_run_are_exported_when_they_are_finished(
    finished: Tried, capsys: pytest.CaptureFixture[str]
) -> None:
    out = finished.folder / "out.h5"
    run = str(finished.root)
    assert cli.main(["export", run, str(out)]) == 0
    said = capsys.readouterr()
    assert f"wrote {out}, as cremi: segmentation, shape (12, 40, 44), uint64" in said.out
    made = Volume.open(finished.root / "volumes.zarr" / "segmentation")
    with h5py.File(out) as file:
        assert np.array_equal(file["volumes/labels/neuron_ids"], made.read(made.roi))
    for name, dataset in (("fragments", "volumes/labels/fragments"), ("labels", None)):
        path = out.with_name(f"{name}.h5")
        assert cli.main(["export", run, str(path), "--volume", name]) == 0
        with h5py.File(path) as file:
            assert (dataset or "volumes/labels/neuron_ids") in file
    assert cli.main(["export", run, str(out)]) == 1
    assert "already something" in capsys.readouterr().err
    assert cli.main(["export", run, str(out), "--volume", "none", "--overwrite"]) == 1
    assert "one of basins, fragments, segmentation, labels, affinities" in capsys.readouterr().err
    next(iter((finished.root / "done").glob("relabel*/complete.json"))).unlink()
    assert cli.main(["export", run, str(out), "--overwrite"]) == 1
    assert "segmentation is not finished" in capsys.readouterr().err


def test_foreign_zarr_is_exported_too(tmp_path: Path) -> None:
    data = np.arange(60, dtype=np.uint32).reshape(3, 4, 5)
    zarr.create_array(
        tmp_path / "a.zarr", data=data, attributes={"voxel_size": [40, 4, 4], "offset": [0, 8, 4]}
    )
    out = tmp_path / "a.n5"
    assert cli.main(["export", str(tmp_path / "a.zarr"), str(out)]) == 0
    assert np.array_equal(again(out, "labels").read(Roi((0, 2, 1), data.shape)), data)

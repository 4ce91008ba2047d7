"""What lies at the destination is spared by refusals, interrupts and kills; memory holds slabs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from pipeline import errors
from pipeline.geometry import ZYX
from pipeline.ingest import ingest
from pipeline.volume import Volume
from tests.files_to_ingest import RAW, SIZE, bring, hdf5, pngs, spoiled, voxels_of, written, zarr2


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hdf5(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 791, 209))
    with pytest.raises(errors.PipelineError, match=r"(?s)uncompressed.*free.*Make room"):
        bring(path)
    assert not (tmp_path / "out.zarr").exists()
    with pytest.raises(errors.PipelineError, match="packed 8-fold"):
        bring(path, "labels", kind="labels")


def test_a_name_of_parts_makes_groups(tmp_path: Path) -> None:
    path = hdf5(tmp_path)
    for name in ("volumes/raw", "volumes/labels/ids"):
        assert np.array_equal(voxels_of(bring(path, name)), RAW)
    for group in ("", "volumes", "volumes/labels"):
        zarr.open_group(tmp_path / "out.zarr" / group, mode="r")


def test_what_is_there_stays_unless_overwritten(tmp_path: Path) -> None:
    path = hdf5(tmp_path)
    hdf5(tmp_path, RAW + 1, "other")
    bring(path, dataset="raw")
    with pytest.raises(errors.ExistsError, match="--overwrite"):
        bring(path, dataset="other")
    assert np.array_equal(voxels_of(bring(path, dataset="other", overwrite=True)), RAW + 1)
    with pytest.raises(errors.NotFoundError):
        bring(path, dataset="x", overwrite=True)
    assert np.array_equal(read_volume(tmp_path), RAW + 1)


def read_volume(folder: Path) -> np.ndarray:
    volume = Volume.open(folder / "out.zarr" / "raw")
    return volume.read(volume.roi)


PROTECTED: dict[str, tuple[Callable[[Path], tuple[Path, Path]], str]] = {
    "the source": (lambda d: (bring(hdf5(d)).destination,) * 2, "apart"),
    "inside the source": (lambda d: (bring(hdf5(d)).destination.parent, d / "out.zarr/x"), "apart"),
    "around the source": (
        lambda d: (bring(hdf5(d), "a/raw").destination, d / "out.zarr/a"),
        "apart",
    ),
    "inside a folder of planes": (lambda d: (pngs(d), d / "planes" / "out.zarr" / "raw"), "apart"),
    "a group": (
        lambda d: (hdf5(d), bring(hdf5(d, name="b"), "a/raw", dataset="b").destination.parent),
        "not one",
    ),
    "inside a volume": (
        lambda d: (hdf5(d), bring(hdf5(d, name="b"), dataset="b").destination / "x"),
        "inside another",
    ),
    "a plain folder": (lambda d: (hdf5(d), plain_folder(d)), "not one"),
    "a link": (lambda d: (hdf5(d), link_to_a_volume(d)), "link"),
    "zarr 2": (lambda d: (hdf5(d), zarr2(d) / "raw"), "Zarr v2"),
    "a file": (lambda d: (hdf5(d), written("out.zarr")(d) / "raw"), "folder"),
}


def plain_folder(folder: Path) -> Path:
    return written("out.zarr/raw/thesis.tex")(folder).parent


def link_to_a_volume(folder: Path) -> Path:
    bring(hdf5(folder, name="b"), dataset="b")
    link = folder / "out.zarr" / "link"
    link.symlink_to(folder / "out.zarr" / "raw")
    return link


@pytest.mark.parametrize(("make", "text"), PROTECTED.values(), ids=PROTECTED)
def test_even_overwrite_spares_what_is_not_a_volume_of_its_own(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], text: str
) -> None:
    source, target = make(tmp_path)
    before = contents(tmp_path)
    options: dict[str, Any] = {"voxel_size": SIZE, "overwrite": True}
    dataset = "raw" if source.suffix in (".h5", ".zarr") else None
    with pytest.raises((errors.ExistsError, errors.FormatError), match=text):
        ingest(source, target, dataset=dataset, kind="raw", **options)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("planes", [2, 4, 5])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupt_leaves_what_was_there(tmp_path: Path, planes: int, overwrite: bool) -> None:
    path = hdf5(tmp_path)
    hdf5(tmp_path, RAW + 1, "other")
    if overwrite:
        bring(path, dataset="other")
    before = contents(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done == planes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(path, dataset="raw", overwrite=overwrite, progress=interrupt)
    assert contents(tmp_path) == before
    assert overwrite == (tmp_path / "out.zarr").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.geometry import ZYX, Nm
from pipeline.ingest import ingest
where, when = Path(sys.argv[1]), sys.argv[2]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if when == "swap":
    rename, seen = Path.rename, []
    def counted(self, target):
        seen.append(self)
        kill() if len(seen) == 2 else None
        return rename(self, target)
    Path.rename = counted
ingest(where / "a.h5", where / "out.zarr" / "raw", dataset="other", voxel_size=Nm.of([40, 4, 4]),
       shard_vx=ZYX(2, 4, 8), overwrite=True, progress=kill if when == "slab" else None)
"""


@pytest.mark.parametrize("when", ["slab", "swap"])
def test_a_kill_at_any_time_is_mended_by_the_next_run(tmp_path: Path, when: str) -> None:
    path = hdf5(tmp_path)
    hdf5(tmp_path, RAW + 1, "other")
    bring(path, dataset="raw")
    command = [sys.executable, "-c", KILLED, str(tmp_path), when]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "out.zarr" / ".raw.partial").exists()
    assert (tmp_path / "out.zarr" / "raw").exists() == (when == "slab")
    if when == "swap":
        with pytest.raises(errors.ExistsError):
            bring(path, dataset="other")
        assert np.array_equal(read_volume(tmp_path), RAW)
    with pytest.raises(errors.DataError):  # fails, and yet puts back the volume between its renames
        bring(hdf5(tmp_path, spoiled(2), "bad"), dataset="bad", kind="raw", overwrite=True)
    assert np.array_equal(read_volume(tmp_path), RAW)
    assert np.array_equal(voxels_of(bring(path, dataset="other", overwrite=True)), RAW + 1)
    assert sorted(p.name for p in (tmp_path / "out.zarr").iterdir()) == ["raw", "zarr.json"]


def test_memory_holds_slabs_and_not_the_volume(tmp_path: Path) -> None:
    shape, plane = (256, 256, 256), 256 * 256
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", shape, "u1", chunks=(8, 64, 64), fillvalue=3)
    bring(hdf5(tmp_path, name="warm"), "warm", dataset="warm")
    tracemalloc.start()
    try:
        bring(tmp_path / "a.h5", dataset="raw", shard_vx=ZYX(8, 128, 128))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 8 * plane < 256 * plane

"""Files that other programs may leave, sound and unsound, and how they are brought in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import zarr
from PIL import Image

from pipeline.geometry import ZYX, Nm
from pipeline.ingest import IngestReport, ingest
from pipeline.volume import Volume

SHAPE = (5, 6, 7)
RAW = np.arange(210, dtype=np.uint8).reshape(SHAPE)
SIZE = Nm.of([40, 4, "4.04"])
SHARD = ZYX(2, 4, 8)
Make = Callable[[Path], Path]


def bring(source: Path, name: str = "raw", **options: Any) -> IngestReport:
    """Ingest beside the source, in slabs of two planes."""
    options = {"voxel_size": SIZE, "shard_vx": SHARD, **options}
    return ingest(source, source.parent / "out.zarr" / name, **options)


def voxels_of(report: IngestReport) -> np.ndarray:
    volume = Volume.open(report.destination)
    return volume.read(volume.roi)


def hdf5(folder: Path, data: Any = RAW, name: str = "raw", **attributes: Any) -> Path:
    path = folder / "a.h5"
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=data).attrs.update(attributes)
    return path


def tiff(folder: Path, data: np.ndarray = RAW, **options: Any) -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, data, **options)
    return path


def pngs(folder: Path, data: np.ndarray = RAW, names: str = "z{}.png") -> Path:
    (folder / "planes").mkdir()
    for index, plane in enumerate(data):
        Image.fromarray(plane).save(folder / "planes" / names.format(index + 8))
    return folder / "planes"


def tiffs(folder: Path, data: np.ndarray = RAW) -> Path:
    (folder / "planes").mkdir()
    for index, plane in enumerate(data):
        tifffile.imwrite(folder / "planes" / f"z{index + 8}.tif", plane)
    return folder / "planes"


def zarr2(folder: Path, data: np.ndarray = RAW, **metadata: Any) -> Path:
    path = folder / "a.zarr"
    chunks = (2,) * data.ndim
    array = zarr.create_array(
        path, shape=data.shape, dtype=data.dtype, chunks=chunks, zarr_format=2
    )
    array[...] = data
    text = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**text, **metadata}))
    return path


def zarr3(folder: Path, data: np.ndarray = RAW, **attributes: Any) -> Path:
    path = folder / "a.zarr"
    zarr.create_array(path, data=data, chunks=(2,) * data.ndim, attributes=attributes)
    return path


def group_of_arrays(folder: Path) -> Path:
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    for name in ("one", "two"):
        group.create_array(name, data=RAW)
    return folder / "a.zarr"


def ome_zarr(folder: Path, unit: str | None = "micrometer", **changes: Any) -> Path:
    path = folder / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=RAW)
    axes = [{"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis in "zyx"]
    transforms = [
        {"type": "scale", "scale": [0.04, 0.004, 0.00404]},
        {"type": "translation", "translation": [0.08, 0, 0.0404]},
    ]
    level = {"path": "0", "coordinateTransformations": transforms}
    multiscale = {"axes": axes, "datasets": [level], **changes}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


def truncated(make: Callable[..., Path], keep: float, **options: Any) -> Make:
    """A file that was copied only in part."""

    def cut(folder: Path) -> Path:
        path = make(folder, **options)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        return path

    return cut


def with_link(kind: str) -> Make:
    """HDF5 whose data set ``raw`` lies in another file of the machine."""

    def make(folder: Path) -> Path:
        path = folder / "a.h5"
        with h5py.File(folder / "secret.h5", "w") as secret:
            secret["raw"] = RAW
        with h5py.File(path, "w") as file:
            if kind == "external":
                file["raw"] = h5py.ExternalLink("secret.h5", "/raw")
            elif kind == "soft":
                file["other"] = h5py.ExternalLink("secret.h5", "/")
                file["raw"] = h5py.SoftLink("/other/raw")
            elif kind == "virtual":
                layout = h5py.VirtualLayout(SHAPE, "u1")
                layout[:] = h5py.VirtualSource("secret.h5", "raw", SHAPE)
                file.create_virtual_dataset("raw", layout)
            else:
                secret = str(folder / "secret.h5")
                file.create_dataset("raw", SHAPE, "u1", external=[(secret, 0, h5py.h5f.UNLIMITED)])
        return path

    return make


def written(name: str, content: bytes = b"", base: Make | None = None) -> Make:
    """A file of given bytes, inside what ``base`` makes."""

    def make(folder: Path) -> Path:
        root = base(folder) if base else folder
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        return root if base else root / name

    return make


def image(name: str, mode: str, size: tuple[int, int] = (7, 6)) -> Make:
    """A folder of sound planes and one other."""

    def make(folder: Path) -> Path:
        path = pngs(folder)
        Image.new(mode, size).save(path / name)
        return path

    return make


def two(folder: Path) -> Path:
    hdf5(folder, name="volumes/raw")
    return hdf5(folder, name="volumes/labels/neuron_ids")


def spoiled(value: float, dtype: str = "f4", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    data = np.full(shape, 0.5, dtype)
    data[..., 3, 2, 1] = value
    return data


def huge_page(folder: Path) -> Path:
    """A TIFF header that declares a page of 2^62 bytes."""
    path = tiff(folder, RAW[:1], metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[tag].overwrite(2**31 - 1, dtype="I")
    return path

"""The users' files that run files and pages are about: of the layout they have, and small."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image

from pipeline.config import Settings, dump_settings, load_settings
from pipeline.geometry import ZYX
from pipeline.phantom import Phantom

ROOT = Path(__file__).parents[1]
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
MACHINES = sorted((ROOT / "configs" / "machines").glob("*.yaml"))
SIZES_NM = {
    "ac4": (29, 6, 6),
    "ac3": (29, 6, 6),
    "snemi3d": (30, 6, 6),
    "fib25": (10, 10, 10),
    "fib25-aniso": (30, 10, 10),
}
"""Voxel size of the real data, by the name of their Zarr."""
SMALL = ZYX(24, 96, 96)
"""Sections, rows and columns of a stand-in."""
ISOTROPIC = ZYX(SMALL.z * 3 - 1, SMALL.y, SMALL.x)
"""Those of the one of FIB-25, every third plane of which are sections."""


def write_files(folder: Path) -> None:
    """AC3, AC4, SNEMI3D and FIB-25, as they are downloaded."""
    thick, thin = Phantom(3, (30.0, 6.0, 6.0)), Phantom(3, (10.0, 10.0, 10.0))
    for start, name in ((0, "AC4"), (40, "AC3")):
        with h5py.File(folder / f"{name}_inputs.h5", "w") as file:
            file["main"] = thick.raw((start, 0, 0), SMALL)
        with h5py.File(folder / f"{name}_labels.h5", "w") as file:
            file["main"] = numbered(thick.labels((start, 0, 0), SMALL), np.uint16)
    for start, name in ((0, "train"), (40, "test")):
        tifffile.imwrite(folder / f"{name}-input.tif", thick.raw((start, 0, 0), SMALL))
    labels = numbered(thick.labels((0, 0, 0), SMALL), np.uint32)
    tifffile.imwrite(folder / "train-labels.tif", labels)
    write_cremi(folder / "fib25_train.h5", thin, ISOTROPIC, "volumes/raw", LABELS)


LABELS = "volumes/labels/neuron_ids"


def write_cremi(path: Path, tissue: Phantom, shape: ZYX, *names: str) -> None:
    """HDF5 in the layout of CREMI, with the data sets that are named."""
    arrays = {"volumes/raw": tissue.raw, LABELS: tissue.labels, "volumes/boundary": tissue.boundary}
    with h5py.File(path, "w") as file:
        for name in names:
            file[name] = arrays[name]((0, 0, 0), shape)
            place = {"resolution": [10, 10, 10], "offset": [0, 0, 0]}
            file[name].attrs.update(place)


def write_own(folder: Path) -> None:
    """What somebody has who follows the pages of the documentation."""
    tissue = Phantom(3, (10.0, 10.0, 10.0))
    raw = tissue.raw((0, 0, 0), SMALL)
    tifffile.imwrite(folder / "em.tif", raw)
    write_cremi(folder / "truth.h5", tissue, SMALL, LABELS)
    write_cremi(folder / "boundaries.h5", tissue, SMALL, "volumes/boundary")
    with h5py.File(folder / "boundaries.h5", "a") as file:
        file["volumes/boundary"].attrs["resolution"] = [40, 4, 4]
    tifffile.imwrite(folder / "truth.tif", numbered(tissue.labels((0, 0, 0), SMALL), np.uint32))
    (folder / "sections").mkdir()
    for index, plane in enumerate(raw):
        Image.fromarray(plane).save(folder / "sections" / f"z{index}.png")


def write_run_files(folder: Path) -> None:
    """The run files of ``configs``, changed so that they fit stand-ins and take seconds."""
    (folder / "machines").mkdir(parents=True)
    for path in MACHINES:
        (folder / "machines" / path.name).write_text(path.read_text())
    for name, path in CONFIGS.items():
        stem = data_of(load_settings(path))
        if stem in SIZES_NM:
            settings = load_settings(path, [*small(name), *quick(name)])
            (folder / path.name).write_text(dump_settings(settings))


def numbered(labels: np.ndarray, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Ids from 1 on, of another type."""
    _, index = np.unique(labels, return_inverse=True)
    return (index.reshape(labels.shape) + 1).astype(dtype)


def data_of(settings: Settings) -> str:
    """The name of a run's Zarr."""
    raw = settings.run.data.raw
    return "" if raw is None else raw.parent.name.removesuffix(".zarr")


def region(settings: Settings, begin: int, end: int) -> str:
    """Planes of a stand-in, as a change of a run file takes it."""
    size = SIZES_NM[data_of(settings)]
    sides = [length * n for length, n in zip(size, (end - begin, *SMALL[1:]), strict=True)]
    return json.dumps({"offset": [begin * size[0], 0, 0], "shape": sides})


def small(name: str) -> list[str]:
    """Changes that make a run of a stand-in."""
    settings = load_settings(CONFIGS[name])
    planes = ISOTROPIC.z if data_of(settings) == "fib25" else SMALL.z
    if settings.run.train is None:
        return [f"run.data.roi={region(settings, 0, planes)}"]
    trained = planes * 2 // 3
    held_out = region(settings, trained, planes)
    changes = [
        f"run.train.roi={region(settings, 0, trained)}",
        f"run.train.validation={{roi: {held_out}, every: 2}}",
        f"run.data.roi={held_out}",
    ]
    if settings.run.evaluate.roi is not None:
        changes.append(f"run.evaluate.roi={held_out}")
    return changes


def quick(name: str) -> list[str]:
    """Changes that make it take seconds."""
    run = load_settings(CONFIGS[name]).run
    deep = run.network.factor.z > 1
    # A crop is as long as the longest offset predicted; three voxels are enough for direct ones.
    patch, crop = [16, 96, 96], [4, 28, 28] if run.predict.offsets is None else [3, 4, 4]
    shared = [
        f"run.predict.patch_vx={[32, 96, 96] if deep else patch}", f"run.predict.crop_vx={crop}",
        "run.predict.device=cpu", "run.predict.precision=fp32", "run.evaluate.thresholds=[0.5]",
        "machine.runner=serial",
    ]  # fmt: skip
    if run.train is None:
        return shared
    longest = max(-vector.z for vector in run.train.offsets.vectors)
    crop = [16 if deep else longest + 2, 32, 32]
    if run.predict.released is None:  # released weights are of the network as it is
        shared += [
            f"run.network.features={[2] * len(run.network.features)}", "run.network.embedding=4",
        ]  # fmt: skip
    return [
        *shared, f"run.train.crop_vx={crop}", "run.train.batch=1", "run.train.steps=2",
        "run.train.precision=fp32", "run.train.device=cpu",
        "run.train.view.cutout_min_vx=[2, 4, 4]", "run.train.view.cutout_max_vx=[3, 6, 6]",
        "machine.train_workers=0",
        "run.tune.thresholds=[0.1, 0.3, 0.5, 0.7, 0.9]", "run.tune.betas=[0.1, 0.3, 0.5, 0.7, 0.9]",
    ]  # fmt: skip

"""Synthetic neuropil as volumes on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.errors import ExistsError
from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, Roi
from pipeline.phantom import Phantom
from pipeline.segment.affinities import affinities_from_interior
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume
from workers.progress import progress_line

VOXEL_SIZE_NM = Nm.of([10, 10, 10])
SHARD_VX = ZYX(32, 128, 128)


def write_phantom(
    folder: Path, shape: ZYX, seed: int, console: Console, names: Sequence[str] = ("raw", "labels")
) -> None:
    """Write volumes of a phantom, block by block, unless they are there.

    Args:
        names: of raw, labels, and affinities, which are those of an imperfect boundary map.

    Raises:
        ExistsError: another phantom is there.
    """
    made_of = f"phantom {seed} {list(shape)} {VOXEL_SIZE_NM}"
    for name in names:
        if (folder / name).exists():
            found = Volume.open(folder / name).attributes.get("content_digest")
            if found != f"{made_of} {name}":
                raise ExistsError(
                    f"{folder} holds another volume ({found})\nChoose another folder."
                )
    z, y, x = (float(size) for size in VOXEL_SIZE_NM)
    phantom = Phantom(seed, (z, y, x))

    def affinities(roi: Roi) -> np.ndarray:
        """Of a box: its boundary map, and one voxel below it for the pairs that reach out."""
        wide = roi.grow((1, 1, 1), (0, 0, 0)).intersect(Roi((0, 0, 0), shape))
        interior = 1 - phantom.boundary(tuple(wide.begin), tuple(wide.shape))
        cut = tuple(slice(-n, None) for n in roi.shape)
        return affinities_from_interior(interior, Offsets())[(slice(None), *cut)]

    kinds: dict[str, tuple[Callable[[Roi], np.ndarray], str]] = {
        "raw": (lambda roi: phantom.raw(tuple(roi.begin), tuple(roi.shape)), "uint8"),
        "labels": (lambda roi: phantom.labels(tuple(roi.begin), tuple(roi.shape)), "uint64"),
        "affinities": (affinities, "uint8"),
    }
    grid = BlockGrid(Roi((0, 0, 0), shape), SHARD_VX)
    for name in names:
        if (folder / name).exists():
            continue
        make, dtype = kinds[name]
        channels = (len(Offsets()),) if name == "affinities" else ()
        spec = VolumeSpec(
            shape=(*channels, *shape),
            dtype=dtype,
            voxel_size_nm=VOXEL_SIZE_NM,
            offset_nm=Nm.of([0, 0, 0]),
            meaning=name,
            shard_vx=SHARD_VX,
            offsets=Offsets() if channels else None,
        )
        partial = folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        volume = Volume.create(partial, spec, {"content_digest": f"{made_of} {name}"})
        with progress_line(console, f"phantom {name}", 0, len(grid)) as progress:
            for block in grid:
                volume.write(block.write, make(block.write))
                progress(block.index + 1, 0)
        partial.rename(folder / name)

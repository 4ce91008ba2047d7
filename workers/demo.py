"""The whole chain on synthetic neuropil: make it, segment it, score it, draw it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.config import checked_settings, dump_settings
from pipeline.errors import ExistsError
from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, Roi
from pipeline.phantom import Phantom
from pipeline.plan import make_plan
from pipeline.segment.affinities import affinities_from_interior
from pipeline.spec import VolumeSpec
from pipeline.tables import replacing
from pipeline.volume import Volume
from workers.drive import drive, runner_named
from workers.picture import picture_of
from workers.progress import progress_line

VOXEL_SIZE_NM = Nm.of([10, 10, 10])
SHARD_VX = ZYX(32, 128, 128)
BLOCK_VX = [64, 128, 128]


def demo(folder: Path, shape: ZYX, seed: int, console: Console) -> None:
    """Segment a piece of synthetic neuropil from an imperfect boundary map.

    Args:
        folder: gets ``phantom.zarr``, ``run.yaml``, ``runs/`` and ``demo.png``; what an earlier
            demo of the same seed and shape left there is used again.
    """
    volumes = folder / "phantom.zarr"
    write_phantom(volumes, shape, seed, console)
    settings = checked_settings(
        {
            "run": {
                "name": f"phantom-{seed}",
                "data": {name: str(volumes / name) for name in ("raw", "affinities", "labels")},
                "agglomerate": {"method": "mean_affinity", "threshold": 0.6},
            },
            "machine": {
                stage: {"workers": 2, "block_vx": BLOCK_VX}
                for stage in ("fragments", "edges", "relabel")
            },
        },
        "the demo",
    )
    with replacing(folder / "run.yaml") as partial:
        partial.write_text(dump_settings(settings))
    plan = make_plan(settings, folder / "runs")
    drive(plan, plan.steps, runner_named("daisy"), (), console)
    scores = json.loads(plan.run.scores.read_text())
    console.print(
        f"VOI {scores['voi']:.3f} bits (split {scores['voi_split']:.3f}, merge "
        f"{scores['voi_merge']:.3f}), ARAND {scores['arand']:.3f}: "
        f"{scores['num_segments']} segments of {scores['num_objects']} neurites"
    )
    picture = folder / "demo.png"
    picture_of(plan, picture)
    console.print(f"picture: {picture}\nscores of every threshold: {plan.run.scores}")
    console.print(f"next: pea status {plan.run.root}")


def write_phantom(folder: Path, shape: ZYX, seed: int, console: Console) -> None:
    """Write raw, labels and affinities of a phantom, block by block.

    Raises:
        ExistsError: another phantom is there.
    """
    made_of = f"phantom {seed} {list(shape)} {VOXEL_SIZE_NM}"
    if (folder / "affinities").exists():
        found = Volume.open(folder / "affinities").attributes.get("content_digest")
        if found != f"{made_of} affinities":
            raise ExistsError(f"{folder} holds another volume ({found})\nChoose another folder.")
        return
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
    for name, (make, dtype) in kinds.items():
        shutil.rmtree(folder / name, ignore_errors=True)
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

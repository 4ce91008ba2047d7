"""What a run stores for each voxel, and how fast affinities are written beside bare Zarr.

    python -m tests.bench.storage fib25_train.h5

The affinities are those that the released network predicts of raw that it was trained on, the
labels what `configs/fib25.yaml` makes of them. Both writers use the same chunks, shards and codec
in the same folder, in turn. The last row is what a worker does: it forces the file to disk as well,
and notes its checksum.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from pipeline.config import load_settings
from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, slices
from pipeline.ingest import ingest
from pipeline.plan import make_plan
from pipeline.rundir import RunDirectory
from pipeline.spec import VolumeSpec, chunk_of
from pipeline.volume import Volume
from workers import cli

DIRECT, PAIRS = 3, 12
OFFSETS = [
    [-length if axis == n else 0 for n in range(3)] for length in (1, 3, 6, 9) for axis in range(3)
]
CHANGES = (
    "run.name=stored",
    "run.data.raw=data.zarr/raw",
    "run.data.labels=null",
    "run.data.roi={offset: [0, 0, 0], shape: [640, 2500, 2500]}",
    f"run.predict.offsets={OFFSETS}",
    "run.predict.crop_vx=[9, 9, 9]",
    "machine.predict.block_vx=[64, 128, 128]",
)
SHARD = ZYX(64, 128, 128)
ROUNDS = 24


def predicted(source: Path, folder: Path) -> RunDirectory:
    """A run of the released network."""
    ingest(source, folder / "data.zarr/raw", dataset="volumes/raw")
    config = Path(__file__).parents[2] / "configs" / "fib25.yaml"
    changes = [each.replace("data.zarr", str(folder / "data.zarr")) for each in CHANGES]
    runs = folder / "runs"
    if cli.main(["run", "all", str(config), *changes, "--runs", str(runs)]) != 0:
        raise SystemExit(1)
    return make_plan(load_settings(config, changes), runs).run


def stored_bytes(array: Path) -> int:
    return sum(path.stat().st_size for path in array.rglob("*") if path.is_file())


def bare(path: Path, spec: VolumeSpec) -> zarr.Array:
    return zarr.create_array(
        path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=(1, *chunk_of(spec.shard_vx)),
        shards=(spec.shape[0], *spec.shard_vx),
        compressors=[ZstdCodec(level=1, checksum=True)],
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def written(volume: Volume, data: np.ndarray, folder: Path) -> None:
    """Time three ways to write a volume block by block; prints a row for each."""
    count, grid = data.shape[0], BlockGrid(volume.roi, SHARD)
    spec = VolumeSpec(
        shape=data.shape,
        dtype="uint8",
        voxel_size_nm=volume.spec.voxel_size_nm,
        offset_nm=Nm.of([0, 0, 0]),
        meaning="affinities",
        shard_vx=SHARD,
        offsets=Offsets.of(OFFSETS[:count]),
    )
    ours = Volume.create(folder / f"ours-{count}", spec)
    theirs, run = bare(folder / f"bare-{count}", spec), RunDirectory(folder)
    times: dict[str, list[float]] = {"bare Zarr": [], "ours": [], "ours, on disk": []}
    for number in range(ROUNDS):
        # Each is first in turn: what comes after a write to disk is slower.
        for name in [*list(times)[number % 3 :], *list(times)[: number % 3]]:
            started = time.perf_counter()
            for block in grid:
                index = (slice(None), *slices(block.write))
                part = data[index]
                if name == "bare Zarr":
                    theirs[index] = part
                else:
                    ours.write(block.write, part)
                if name == "ours, on disk":
                    run.recorded(ours.shards(block.write))
            times[name].append(time.perf_counter() - started)
    fast = times["bare Zarr"]
    for name, each in times.items():
        ratio = statistics.median(a / b for a, b in zip(fast, each, strict=True))
        speed = data.nbytes / statistics.median(each) / 1e6
        print(f"P13 {count:>2} channels, {name:<14}{speed:>8.0f} MB/s{ratio:>8.2f} of bare Zarr")
    size = stored_bytes(folder / f"ours-{count}") / volume.roi.size
    print(f"P14 {count:>2} channels of affinities {size:>8.2f} bytes per voxel")


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = predicted(source, folder)
        for label in ("fragments", "segmentation"):
            array = run.volume(f"{label}/s0")
            size = stored_bytes(array) / Volume.open(array).roi.size
            print(f"P14 {label:<24} {size:>8.3f} bytes per voxel")
        found = Volume.open(run.volume("affinities")).at_origin()
        data = found.read(found.roi)
        for count in (DIRECT, PAIRS):
            written(found, np.ascontiguousarray(data[:count]), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

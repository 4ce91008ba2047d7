"""All that reads labels, on 537 Mvoxel of them: speed, and the memory of one worker.

    python -m tests.bench.pinky40 ../shared/data [FOLDER]

Every step runs in a process of its own, in blocks of the default size, and is measured as a whole
with its reading and writing: CPU seconds, and the largest resident memory that the process ever
had. The steps:

- ingest: the HDF5 file to a volume.
- perturb: fragments. Labels shifted by three voxels and cut into cells of 16 x 32 x 32 voxels.
- count: overlaps of fragments and labels with their boxes, summed over blocks.
- score: the fragments assigned to segments, which are labels, some merged and some split; all
  conventions and the worst objects, from the table alone.
- relabel: the segmentation as a volume, fragment by fragment.
- downsample: its next level.
- check: the segmentation counted afresh; the scores must be those from the table.

FOLDER takes about 1 GB, and is kept; a temporary one is removed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.config.machine import Workers
from pipeline.evaluate.conventions import all_scores
from pipeline.evaluate.objects import worst_objects
from pipeline.evaluate.overlaps import Overlaps
from pipeline.evaluate.scores import Scores
from pipeline.geometry import NO_HALO, ZYX, Block, BlockGrid, Coordinate, nanometres
from pipeline.graph import Assignment
from pipeline.ingest import ingest
from pipeline.segment.downsample import halved_axes, most_frequent
from pipeline.spec import VolumeSpec
from pipeline.tables import read_table, write_table
from pipeline.volume import Volume

SHIFT_VX = 3
CELL_VX = (16, 32, 32)
NUM_CELLS = 2**40
"""More than there are: a fragment is its label times this, and its cell."""
LIMIT_BYTES = 2 << 30


def blocks(volume: Volume, below: ZYX = NO_HALO) -> Iterator[Block]:
    return iter(BlockGrid(volume.roi, Workers().block_vx, below))


def step_ingest(data: Path, folder: Path) -> None:
    ingest(data / "pinky40_labels.h5", folder / "pinky40.zarr/labels", overwrite=True)


def step_perturb(data: Path, folder: Path) -> None:
    truth = Volume.open(folder / "pinky40.zarr/labels")
    made = created(folder, "fragments", truth.spec)
    cells = [-(-side // cell) for side, cell in zip(truth.roi.shape, CELL_VX, strict=True)]
    for block in blocks(truth, ZYX(0, 0, SHIFT_VX)):
        read = truth.read(block.read)
        columns = np.arange(block.write.begin[2], block.write.end[2]) - SHIFT_VX
        shifted = read[..., np.maximum(columns, 0) - int(block.read.begin[2])]
        places = [
            np.arange(low, high) // cell
            for low, high, cell in zip(block.write.begin, block.write.end, CELL_VX, strict=True)
        ]
        cell = np.ravel_multi_index(np.ix_(*places), cells).astype(np.uint64)
        ids = shifted * np.uint64(NUM_CELLS) + cell + np.uint64(1)
        made.write(block.write, np.where(shifted == 0, np.uint64(0), ids))


def step_count(data: Path, folder: Path) -> None:
    write_table(folder / "overlaps.npz", counted(folder, "fragments").columns())


def step_score(data: Path, folder: Path) -> str:
    overlaps = Overlaps.of(read_table(folder / "overlaps.npz"))
    assignment = assigned(overlaps)
    made = overlaps.relabel(assignment)
    scores = all_scores(made.contingency)
    (folder / "scores.json").write_text(json.dumps(scores))
    worst_objects(made, Volume.open(folder / "pinky40.zarr/labels").spec.voxel_size_nm, 100, 5)
    return (
        f"{len(assignment)} fragments, {len(overlaps)} overlaps; VOI {scores['voi']:.4f}, "
        f"ARAND {scores['arand']:.4f}"
    )


def step_relabel(data: Path, folder: Path) -> None:
    fragments = Volume.open(folder / "pinky40.zarr/fragments")
    made = created(folder, "segmentation", fragments.spec)
    assignment = assigned(Overlaps.of(read_table(folder / "overlaps.npz")))
    for block in blocks(fragments):
        made.write(block.write, assignment.apply(fragments.read(block.write)))


def step_downsample(data: Path, folder: Path) -> None:
    finer = Volume.open(folder / "pinky40.zarr/segmentation").at_origin()
    factors = halved_axes(finer.spec.voxel_size_nm)
    shape = tuple(-(-side // f) for side, f in zip(finer.spec.shape, factors, strict=True))
    size = nanometres(factors, finer.spec.voxel_size_nm)
    made = created(folder, "coarse", replace(finer.spec, shape=shape, voxel_size_nm=size))
    for block in blocks(made):
        fine = (block.write * Coordinate(factors)).intersect(finer.roi)
        made.write(block.write, most_frequent(finer.read(fine), factors))


def step_check(data: Path, folder: Path) -> str:
    afresh = Scores.of(counted(folder, "segmentation").contingency).as_dict()
    noted = json.loads((folder / "scores.json").read_text())
    assert {name: noted[name] for name in afresh} == afresh
    return "the same scores, bit for bit"


STEPS: dict[str, Callable[[Path, Path], str | None]] = {
    "ingest": step_ingest,
    "perturb": step_perturb,
    "count": step_count,
    "score": step_score,
    "relabel": step_relabel,
    "downsample": step_downsample,
    "check": step_check,
}


def created(folder: Path, name: str, spec: VolumeSpec) -> Volume:
    """An empty volume of labels, whose shards are blocks."""
    Volume.remove(folder / "pinky40.zarr" / name / "s0")
    spec = replace(spec, shard_vx=Workers().block_vx)
    return Volume.create(folder / "pinky40.zarr" / name, spec)


def counted(folder: Path, name: str) -> Overlaps:
    """As ``Evaluate``, in one process."""
    segments, truth = (Volume.open(folder / "pinky40.zarr" / n) for n in (name, "labels"))
    return Overlaps.sum_of(
        Overlaps.count(segments.read(block.write), truth.read(block.write), block.write.begin)
        for block in blocks(segments)
    )


def assigned(overlaps: Overlaps) -> Assignment:
    """Fragments to segments: every seventh label merged into the next, every fifth in two parts."""
    fragments = np.unique(overlaps.segment)
    fragments = fragments[fragments > 0]
    label, cell = np.divmod(fragments - np.uint64(1), np.uint64(NUM_CELLS))
    label = np.where(label % 7 == 3, label + np.uint64(1), label)
    part = np.where(label % 5 == 1, cell >= np.median(cell), 0).astype(np.uint64)
    return Assignment(fragments, label * np.uint64(2) + part)


def main(data: Path, folder: Path) -> None:
    print(f"{'':<12}{'Mvoxel/s':>9}{'CPU s':>8}{'GiB':>7}")
    for name in STEPS:
        words = [sys.executable, "-m", "tests.bench.pinky40", str(data), str(folder), name]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        seconds, peak, said = json.loads(done.stdout.splitlines()[-1])
        rate = "" if name == "score" else f"{512 * 1024 * 1024 / seconds / 1e6:.1f}"
        over = "" if peak < LIMIT_BYTES else "  MORE THAN 2 GiB"
        print(f"{name:<12}{rate:>9}{seconds:>8.1f}{peak / 2**30:>7.2f}  {said}{over}", flush=True)


def one_step(data: Path, folder: Path, name: str) -> None:
    """Run a step, and print what it took."""
    started = time.process_time()
    said = STEPS[name](data, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([time.process_time() - started, peak, said or ""]))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one_step(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    elif len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(sys.argv[1]), Path(scratch))

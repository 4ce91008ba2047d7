"""A whole run from affinities to the segmentation: time, parallel efficiency, memory, bytes.

    python -m tests.bench.chain [Z,Y,X]

Synthetic neuropil; the same volume is segmented by one and by two daisy workers, and at once by
waterz with its own watershed. CPU seconds are those of this process and its workers.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.config import checked_settings
from pipeline.geometry import ZYX, Roi
from pipeline.plan import Plan, make_plan
from pipeline.segment.whole import standard_output_silenced
from pipeline.volume import Volume
from workers.daisy_runner import DaisyRunner
from workers.drive import drive
from workers.phantom_volumes import write_phantom

BLOCK_VX = [64, 128, 256]
LAST = "relabel_blockwise"


def planned(folder: Path, workers: int) -> Plan:
    settings = {
        "run": {
            "name": f"workers-{workers}",
            "data": {"affinities": str(folder / "phantom.zarr" / "affinities")},
            "agglomerate": {"threshold": 0.6},
        },
        "machine": {
            stage: {"workers": workers, "block_vx": BLOCK_VX}
            for stage in ("fragments", "edges", "relabel")
        },
    }
    return make_plan(checked_settings(settings, "the benchmark"), folder / "runs")


def cpu_seconds() -> float:
    """Of this process and the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def whole_by_waterz(folder: Path, shape: ZYX) -> float:
    """CPU seconds of waterz alone, with its own watershed, everything in memory."""
    import waterz

    affinities = Volume.open(folder / "phantom.zarr" / "affinities").read(Roi((0, 0, 0), shape))
    values = affinities.astype(np.float32) / np.float32(255)
    started = cpu_seconds()
    with standard_output_silenced():
        for _ in waterz.agglomerate(values, thresholds=[0.6]):
            pass
    return cpu_seconds() - started


def main(shape: ZYX) -> None:
    console = Console(quiet=True)
    million = np.prod(shape) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantom(folder / "phantom.zarr", shape, 1, console, ["affinities"])
        wall, cpu = {}, {}
        for workers in (1, 2):
            plan = planned(folder, workers)
            steps = [s for s in plan.steps if not s.stage.name.startswith("downsample")]
            started, used = time.perf_counter(), cpu_seconds()
            reports = drive(plan, steps, DaisyRunner(), (), console)
            wall[workers], cpu[workers] = time.perf_counter() - started, cpu_seconds() - used
            assert reports[-1].name == LAST, reports
            if workers == 1:
                for report in reports:
                    print(f"  {report.name:<22}{report.total:>4} blocks{report.seconds:>8.1f} s")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        stored = {
            each: sum(f.stat().st_size for f in plan.run.volume(each).rglob("*") if f.is_file())
            for each in ("basins", "fragments", "segmentation")
        }
        waterz_cpu = whole_by_waterz(folder, shape)
    print(f"{tuple(shape)}, {million:.1f} Mvoxel, blocks of {BLOCK_VX}")
    for workers in wall:
        rate = million / wall[workers]
        print(f"  {workers} worker(s): {wall[workers]:.1f} s, {rate:.2f} Mvoxel/s end to end")
    print(f"  parallel efficiency {wall[1] / wall[2] / 2:.2f}; largest worker {peak:.2f} GB")
    print(f"  CPU seconds: {cpu[1]:.1f}; waterz on the whole volume at once: {waterz_cpu:.1f}")
    per_voxel = ", ".join(f"{k} {v / np.prod(shape):.2f}" for k, v in stored.items())
    print(f"  bytes on disk per voxel: {per_voxel}")


if __name__ == "__main__":
    text = sys.argv[1] if len(sys.argv) > 1 else "64,512,512"
    main(ZYX.of(int(side) for side in text.split(",")))

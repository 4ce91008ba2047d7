"""Counting on Dask: what the cluster costs, and the memory of its workers.

    python -m tests.bench.dask FOLDER [WORKERS]

FOLDER is that of ``tests.bench.pinky40``: fragments against labels, 537 Mvoxel. They are counted by
this process, then by a cluster of this machine. Its fixed cost is what an empty sum takes: start,
imports, end. The memory is the largest that a process ever had resident.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pipeline.config import Dask, Workers
from pipeline.evaluate.border import Border
from pipeline.evaluate.overlaps import Overlaps
from pipeline.geometry import BlockGrid
from pipeline.stages.stage import Sum, sum_here
from pipeline.volume import Volume
from workers.dask_cluster import DaskCluster
from workers.dask_sum import dask_sum
from workers.score import Pair


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def timed[Result](work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def main() -> None:
    folder = Path(sys.argv[1]) / "pinky40.zarr"
    workers = Workers(workers=int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    pair = Pair(Volume.open(folder / "fragments"), Volume.open(folder / "labels"), Border(()))
    blocks = list(BlockGrid(pair.truth.roi, workers.block_vx))

    def counted(total: Sum) -> Overlaps:
        return total(pair.overlaps, Overlaps.sum_of, blocks)

    with tempfile.TemporaryDirectory() as logs:

        def nothing() -> None:
            with closing(DaskCluster(Dask(), Path(logs))) as cluster:
                client = cluster.client(workers)
                client.submit(pair.overlaps, blocks[0]).result()

        _, first = timed(lambda: pair.overlaps(blocks[0]))
        _, fixed = timed(nothing)
        print(
            f"{workers.workers} workers, one block: {fixed:.1f} s; here {first:.1f} s", flush=True
        )
        with closing(DaskCluster(Dask(), Path(logs))) as cluster:
            there, on_dask = timed(lambda: counted(dask_sum(cluster, workers)))
            peaks = cluster.client(workers).run(peak_gib)
    here, alone = timed(lambda: counted(sum_here))
    assert all((here.columns()[name] == there.columns()[name]).all() for name in here.columns())
    voxels = pair.truth.spec.shape[0] * pair.truth.spec.shape[1] * pair.truth.spec.shape[2] / 1e6
    print(f"{voxels:.0f} Mvoxel, {len(here)} rows, the same")
    print(f"here: {alone:.1f} s; on Dask: {on_dask:.1f} s, {alone / on_dask:.2f} times")
    print(
        f"largest memory: {max(peaks.values()):.2f} GiB a worker, {peak_gib():.2f} GiB the driver"
    )


if __name__ == "__main__":
    main()

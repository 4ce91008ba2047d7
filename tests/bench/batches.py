"""Crops for training: how many a second one core makes with every augmentation, and where it goes.

    python -m tests.bench.batches

CPU seconds of one process, so that a busy machine does not show; all augmentations are possible, at
the shares below. A node's time is its own, without those above it in the pipeline.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Train
from pipeline.raw import RawScale
from pipeline.train.crops import Crops
from pipeline.train.data import TrainingData
from pipeline.train.engine import gunpowder as gp
from tests.drawn import write_volume

SHAPE = (128, 384, 384)
CROPS = ([64, 64, 64], [18, 160, 160])
BATCHES, WARM_UP = 25, 5
EVERYTHING = {
    "rotate": 0.5, "scale": 0.2, "elastic": 0.5, "intensity": 0.5, "missing_section": 0.02,
    "faint_section": 0.02, "shifted_section": 0.05, "blur": 0.5, "noise": 0.5,
}  # fmt: skip


def written(folder: Path) -> TrainingData:
    """Noise, and boxes for objects."""
    raw = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
    z, y, x = (np.arange(n) // 17 for n in SHAPE)
    labels = (z[:, None, None] * 100 + y[:, None]) * 100 + x + np.uint64(1)
    volumes = [
        write_volume(folder / "data.zarr" / name, array, name, shard_vx=(64, 128, 128))
        for name, array in (("raw", raw), ("labels", labels))
    ]
    return TrainingData(volumes[0].path, volumes[1].path, RawScale(0, 255), volumes[0].roi)


def timed_nodes(times: Counter[str]) -> None:
    """Let every node of gunpowder add up its CPU seconds by name, less those above it."""
    request_batch = gp.BatchProvider.request_batch

    def timed(node: Any, request: Any) -> Any:
        started = time.process_time()
        above = times.total()
        batch = request_batch(node, request)
        times[node.name()] += time.process_time() - started - (times.total() - above)
        return batch

    gp.BatchProvider.request_batch = timed


def main() -> None:
    times: Counter[str] = Counter()
    timed_nodes(times)
    with tempfile.TemporaryDirectory() as folder:
        data = written(Path(folder))
        for crop in CROPS:
            roi = {"offset": [0, 0, 0], "shape": [1, 1, 1]}
            tree = {"roi": roi, "crop_vx": crop, "augment": EVERYTHING, "batch": 2}
            train = Train.model_validate(tree)
            crops = Crops(data, train, view=True)
            for step in range(WARM_UP):
                crops.batch(step)
            times.clear()
            started = time.process_time()
            for step in range(WARM_UP, WARM_UP + BATCHES):
                crops.batch(step)
            spent = time.process_time() - started
            count = train.batch * BATCHES
            print(f"{crop}: {count / spent:.1f} crops/s/core, {1000 * spent / count:.1f} ms each")
            times["outside nodes"] = spent - times.total()
            for name, seconds in times.items():
                print(f"  {name:<14}{1000 * seconds / count:>6.1f} ms{seconds / spent:>7.1%}")


if __name__ == "__main__":
    main()

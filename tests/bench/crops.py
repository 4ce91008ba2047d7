"""How much of a patch to cut off: scores of the segmentation against what the overlap costs.

    python -m tests.bench.crops RAW.zarr LABELS.zarr [CHECKPOINT]

The validation region of `configs/fib25.yaml`, direct neighbours only, VOI at the best threshold.
Tiles begin anew at every crop, so that every voxel has been near the rim of some patch.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.config import load_settings
from pipeline.geometry import Offsets
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.predictor import Predictor
from pipeline.rundir import RunDirectory
from pipeline.train.task import open_task
from pipeline.train.validation import predicted, segmented

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "fib25.yaml"
WEIGHTS = ROOT / "pipeline" / "model" / "weights" / "fib25.safetensors"
PATCH = (64, 128, 128)
CROPS = (0, 2, 4, 8, 12, 16, 24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=WEIGHTS)
    options = parser.parse_args()
    checkpoint = Checkpoint.read(options.checkpoint)
    network = Predictor(checkpoint.module(), "embedding", checkpoint.header.offsets)
    torch.set_num_threads(1)
    print(f"patches of {list(PATCH)}, {options.checkpoint}")
    print(f"{'crop':>5}{'network voxels each':>21}{'s':>7}{'VOI':>8}{'ARAND':>8}{'change':>8}")
    best = None
    for crop in reversed(CROPS):
        settings = load_settings(
            CONFIG,
            [
                f"run.data.raw={options.raw}",
                f"run.data.labels={options.labels}",
                f"run.predict.offsets={Offsets().numbers()}",
                f"run.predict.patch_vx={list(PATCH)}",
                f"run.predict.crop_vx=[{crop}, {crop}, {crop}]",
            ],
        )
        task = open_task(settings.run, RunDirectory(Path("no-such-run")))
        assert task.validation_roi is not None
        started = time.perf_counter()
        _, affinities = predicted(network, task, task.validation_roi)
        seconds = time.perf_counter() - started
        best = affinities if best is None else best
        truth = task.labels.read(task.validation_roi).astype(np.uint64)
        found = segmented(affinities, Offsets(), truth, task.run, task.voxel_size_nm).scores
        change = float(np.abs(affinities.astype(np.int16) - best).mean()) / 255
        share = math.prod(PATCH) / math.prod(task.patches.tile_vx)
        print(
            f"{crop:>5}{share:>21.2f}{seconds:>7.1f}{found.voi:>8.3f}{found.arand:>8.3f}"
            f"{change:>8.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

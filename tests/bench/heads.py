"""Pixel-embedded against direct affinities: one backbone, one budget, one post-processing.

    python -m tests.bench.heads RAW.zarr LABELS.zarr [--steps N] [--seeds N] [--crop N]
        [--precision fp32|bf16]

Trains each head from each seed by `configs/fib25.yaml` with fewer and smaller crops, and scores the
last weights on the validation region, at the threshold that is best there. SCM alone and with EPM
and CCM are told apart.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import load_settings
from pipeline.rundir import RunDirectory
from pipeline.train.loop import Progress, train_network
from pipeline.train.task import open_task
from pipeline.train.validation import Validated
from workers.devices import device_named

CONFIG = Path(__file__).parents[2] / "configs" / "fib25.yaml"
DIRECT = ["run.network.head=affinity", "run.network.pyramid=false", "run.train.loss.pyramid=0.0"]
HEADS = {
    "direct affinities, cross-entropy": [*DIRECT, "run.train.loss.cross_correlation=0.0"],
    "embeddings, SCM": ["run.train.loss.pyramid=0.0", "run.train.loss.cross_correlation=0.0"],
    "embeddings, SCM + EPM": ["run.train.loss.cross_correlation=0.0"],
    "embeddings, SCM + EPM + CCM": ["run.train.loss.cross_correlation=1.0"],
}


def trained(options: argparse.Namespace, changes: list[str], seed: int, runs: Path) -> Validated:
    settings = load_settings(
        CONFIG,
        [
            f"run.name=seed-{seed}",
            f"run.data.raw={options.raw}",
            f"run.data.labels={options.labels}",
            f"run.train.seed={seed}",
            f"run.train.steps={options.steps}",
            f"run.train.precision={options.precision}",
            f"run.train.validation.every={options.steps}",
            f"run.train.crop_vx=[{options.crop}, {options.crop}, {options.crop}]",
            *changes,
        ],
    )
    task = open_task(settings.run, RunDirectory(runs / settings.run.name))
    torch.set_num_threads(task.train.threads)
    device = device_named(task.train.device, task.train.precision)
    results: list[Any] = []

    def on_step(progress: Progress) -> bool:
        results.append(progress.validated)
        return False

    train_network(task, device, 1, on_step)
    assert results[-1] is not None
    return results[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--crop", type=int, default=48)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    print(
        f"{options.steps} steps of crops of {options.crop}^3, {options.precision}, "
        f"{options.seeds} seeds"
    )
    print(f"{'head':<36}{'VOI of each seed':<28}{'mean':>7}{'ARAND':>8}", flush=True)
    for name, changes in HEADS.items():
        found = []
        for seed in range(1, options.seeds + 1):
            with tempfile.TemporaryDirectory() as runs:
                found.append(trained(options, changes, seed, Path(runs)).scores)
        each = ", ".join(f"{scores.voi:.3f}" for scores in found)
        means = [float(np.mean([getattr(s, key) for s in found])) for key in ("voi", "arand")]
        print(f"{name:<36}{each:<28}{means[0]:>7.3f}{means[1]:>8.3f}", flush=True)


if __name__ == "__main__":
    main()

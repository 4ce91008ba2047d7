"""The whole chain on synthetic neuropil: train, predict, segment, score, draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config import checked_settings, dump_settings
from pipeline.geometry import ZYX, nanometres
from pipeline.plan import make_plan
from pipeline.tables import replacing
from workers.drive import drive
from workers.phantom_volumes import VOXEL_SIZE_NM, write_phantom
from workers.picture import picture_of
from workers.report import report_or_warning
from workers.runners import runner_named
from workers.train import train

TRAINED_PLANES = 48
"""Before the planes that are segmented."""
OFFSETS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-4, 0, 0], [0, -4, 0], [0, 0, -4]]
BLOCK_VX = [64, 128, 128]


def demo(folder: Path, shape: ZYX, seed: int, console: Console) -> None:
    """Train a tiny network on one piece of synthetic neuropil, and segment the piece beside it.

    Args:
        folder: gets ``phantom.zarr``, ``run.yaml``, ``runs/`` and ``demo.png``; what an earlier
            demo of the same seed and shape left there is used again.
        shape: of the piece that is segmented.
    """
    whole = shape._replace(z=TRAINED_PLANES + shape.z)
    write_phantom(folder / "phantom.zarr", whole, seed, console)
    tree = {"run": run_of(folder, whole, seed), "machine": machine_of()}
    settings = checked_settings(tree, "the demo")
    with replacing(folder / "run.yaml") as partial:
        partial.write_text(dump_settings(settings))
    train(settings, folder / "runs", False, console)
    plan = make_plan(settings, folder / "runs")
    with runner_named(settings.machine.runner, settings.machine, plan.run) as runner:
        drive(plan, plan.steps, runner, (), console)
    scores = json.loads(plan.run.scores.read_text())
    console.print(
        f"VOI {scores['voi']:.3f} bits (split {scores['voi_split']:.3f}, merge "
        f"{scores['voi_merge']:.3f}), ARAND {scores['arand']:.3f}: "
        f"{scores['num_segments']} segments of {scores['num_objects']} neurites"
    )
    picture = folder / "demo.png"
    picture_of(plan, picture)
    console.print(f"picture: {picture}\nscores of every threshold: {plan.run.scores}")
    report_or_warning(plan, console)
    console.print(f"next: pea status {plan.run.root}")


def run_of(folder: Path, whole: ZYX, seed: int) -> dict[str, Any]:
    """Settings of a network that learns enough in a minute on one core."""

    def planes(begin: int, end: int) -> dict[str, Any]:
        sizes = [
            nanometres(place, VOXEL_SIZE_NM).numbers()
            for place in ((begin, 0, 0), whole._replace(z=end - begin))
        ]
        return dict(zip(("offset", "shape"), sizes, strict=True))

    volumes = folder / "phantom.zarr"
    return {
        "name": f"phantom-{seed}",
        "data": {
            "raw": str(volumes / "raw"),
            "labels": str(volumes / "labels"),
            "roi": planes(TRAINED_PLANES, whole.z),
        },
        "network": {
            "features": [8, 16, 24],
            "pools": [[2, 2, 2], [2, 2, 2]],
            "stem_vx": [3, 3, 3],
            "finest_block": False,
            "embedding": 8,
            "norm_momentum": 0.1,
        },
        "train": {
            "roi": planes(0, TRAINED_PLANES),
            "steps": 240,
            "batch": 2,
            "crop_vx": [32, 32, 32],
            "offsets": OFFSETS,
            "widen_per_section": False,
            "augment": {"transpose": "zyx"},
            "view": {"transpose": "zyx", "max_cutouts": 4, "cutout_min_vx": [4, 4, 4],
                     "cutout_max_vx": [8, 8, 8]},
            "optimizer": {"name": "adamw", "learning_rate": 0.005, "epsilon": 1e-8,
                          "weight_decay": 0.01, "amsgrad": False, "schedule": "cosine",
                          "warmup_steps": 10, "clip_norm": 5.0},
            "ema": 0.9,
            "threads": 1,
        },
        "predict": {"patch_vx": [80, 144, 144], "crop_vx": [8, 8, 8]},
        "agglomerate": {"method": "mean_affinity", "threshold": 0.35},
    }  # fmt: skip


def machine_of() -> dict[str, Any]:
    """Two workers for each stage."""
    stages = ("predict", "fragments", "edges", "relabel")
    return {stage: {"workers": 2, "block_vx": BLOCK_VX} for stage in stages}

"""Prediction on one core: how much is computed, how fast, and beside the way of PEA's own code.

    python -m tests.bench.predict [Z,Y,X]

The network is that of PEA with random weights; time does not depend on them. The other way is its
inference, written anew: patches of 18 x 160 x 160 every 10 x 80 x 80 voxels of the volume padded by
reflection, plain float32, twelve affinities in PyTorch, blended with a Gaussian. Times are CPU
seconds. On a busy machine only the ratios mean anything.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from pipeline.checkpoint import Header
from pipeline.config import Network, Predict, checked_settings
from pipeline.config.train import PAPER_OFFSETS
from pipeline.geometry import ZYX, BlockGrid, Nm, Roi
from pipeline.model.affinity import cosine_affinities, pair_slices
from pipeline.model.backbone import build
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.predictor import Predictor
from pipeline.model.quantised import cosine_bytes
from pipeline.model.resunet import ResUNet
from pipeline.patches import PatchGrid
from pipeline.plan import make_plan
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume
from workers.drive import drive
from workers.serial_runner import SerialRunner

SHAPE = ZYX(24, 192, 192)
"""One tile of the default patch."""
THEIR_PATCH, THEIR_STRIDE, THEIR_PAD = (18, 160, 160), (10, 80, 80), (4, 48, 48)
THEIR_LIMIT = math.prod(THEIR_PATCH) / math.prod(THEIR_STRIDE)
AC3 = ZYX(100, 1024, 1024)
KERNEL_SHAPE = (20, 160, 160)
ROUNDS = 5
NETWORK_ROUNDS = 2


def seconds(call: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def theirs_places(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """First voxels of the patches in the padded volume; the last ones end with it."""
    along = []
    for side, patch, stride, pad in zip(shape, THEIR_PATCH, THEIR_STRIDE, THEIR_PAD, strict=True):
        last = side + 2 * pad - patch
        along.append([*range(0, last, stride), last])
    return [(z, y, x) for z in along[0] for y in along[1] for x in along[2]]


def naive_affinities(embedding: Tensor) -> Tensor:
    """Cosines offset by offset, ``(e, z, y, x)`` to ``(offset, z, y, x)``."""
    unit = functional.normalize(embedding, dim=0)
    found = torch.zeros((len(PAPER_OFFSETS), *unit.shape[1:]))
    for channel, vector in zip(found, PAPER_OFFSETS.vectors, strict=True):
        here, there = pair_slices(vector, unit.shape[1:])
        channel[here] = (unit[(slice(None), *here)] * unit[(slice(None), *there)]).sum(0)
    return found.clamp_min(0)


def blend(shape: Sequence[int]) -> np.ndarray:
    along = [np.linspace(-1, 1, n) for n in shape]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*along, indexing="ij")))
    return (np.exp(-(distance**2) / (2 * 0.2**2)) + 1e-6).astype(np.float32)


def one_of_theirs(network: ResUNet, patch: np.ndarray) -> None:
    """A patch, from raw to its share of the blend."""
    with torch.inference_mode():
        embedding = network(torch.from_numpy(patch)[None, None]).full[0]
        values = naive_affinities(embedding).numpy()
    weight, total = blend(patch.shape), np.zeros_like(values)
    total += values * weight


def one_of_ours(network: Predictor, patch: np.ndarray, inner: tuple[slice, ...]) -> None:
    whole = tuple(slice(0, n) for n in patch.shape)
    network.affinities(network.output(patch), PAPER_OFFSETS, inner, whole)


def inference(network: Network) -> None:
    """P9 and P10: per output voxel of AC3, from a patch of each kind."""
    predict = Predict()
    grid = PatchGrid(Roi((0, 0, 0), AC3), predict.patch_vx, predict.crop_vx, network.factor)
    endless = PatchGrid(
        Roi((0, 0, 0), [100 * n for n in grid.tile_vx]), grid.patch_vx, grid.crop_vx, network.factor
    )
    ours_share = grid.network_voxels(BlockGrid(grid.total, AC3)) / math.prod(AC3)
    far = endless.network_voxels(BlockGrid(endless.total, ZYX.of(endless.total.shape)))
    theirs_share = len(theirs_places(AC3)) * math.prod(THEIR_PATCH) / math.prod(AC3)
    limit = far / endless.total.size
    print(f"P9  network voxels per voxel of {tuple(AC3)}, and in the limit:")
    print(f"    ours {ours_share:.2f}, {limit:.2f}; theirs {theirs_share:.2f}, {THEIR_LIMIT:.2f}")
    plain = build(network, 3).eval()
    predictor = Predictor(build(network, 3).eval(), "embedding", PAPER_OFFSETS)
    rng = np.random.default_rng(1)
    mine, his = rng.random(predict.patch_vx, np.float32), rng.random(THEIR_PATCH, np.float32)
    inner = tuple(slice(c, n - c) for c, n in zip(predict.crop_vx, predict.patch_vx, strict=True))
    ours, theirs = [], []
    for _ in range(NETWORK_ROUNDS):
        theirs.append(seconds(lambda: one_of_theirs(plain, his)))
        ours.append(seconds(lambda: one_of_ours(predictor, mine, inner)))
    fast, slow = mine.size / min(ours), his.size / min(theirs)
    ratio = fast / slow
    print("P10 raw to affinities, network Mvoxel/s:")
    print(f"    ours {fast / 1e6:.3f}, theirs {slow / 1e6:.3f}, ours {ratio:.2f} times as fast;")
    whole, far_off = ratio * theirs_share / ours_share, ratio * THEIR_LIMIT / limit
    print(f"    the whole of {tuple(AC3)} {whole:.1f} times, in the limit {far_off:.1f} times")


def kernel(length: int) -> None:
    """P11."""
    embedding = torch.randn(length, *KERNEL_SHAPE, generator=torch.Generator().manual_seed(1))
    whole = tuple(slice(0, n) for n in KERNEL_SHAPE)
    array = embedding.numpy()

    def ours() -> np.ndarray:
        return cosine_bytes(array, PAPER_OFFSETS.vectors, whole, whole)

    def theirs() -> np.ndarray:
        return naive_affinities(embedding).mul(255).round().to(torch.uint8).numpy()

    error = np.abs(ours() / 255 - naive_affinities(embedding).numpy()).max()
    rows = [
        [
            seconds(f)
            for f in (
                ours,
                theirs,
                lambda: cosine_affinities(embedding[None], PAPER_OFFSETS.vectors),
            )
        ]
        for _ in range(ROUNDS)
    ]
    best = [min(row[n] for row in rows) for n in range(3)]
    print(f"P11 {len(PAPER_OFFSETS)} affinities of embeddings of {length}:")
    print(f"    {math.prod(KERNEL_SHAPE) / best[0] / 1e6:.1f} Mvoxel/s,", end=" ")
    print(f"{best[1] / best[0]:.1f} times PyTorch offset by offset,", end=" ")
    print(f"{best[2] / best[0]:.1f} times that of training;")
    print(f"    largest error {error:.5f}, allowed {1 / 510 + 1e-3:.5f}")


def stage(network: Network, shape: ZYX) -> None:
    """The stage itself, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Checkpoint(Header(network, PAPER_OFFSETS, 0, {}, {}), build(network, 3).state_dict()).write(
            folder / "w.safetensors"
        )
        spec = VolumeSpec(tuple(shape), "uint8", Nm.of([29, 6, 6]), Nm.of([0, 0, 0]), "raw")
        raw = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        Volume.create(folder / "raw", spec).write(spec.roi, raw)
        settings = {
            "run": {
                "name": "bench",
                "data": {"raw": str(folder / "raw")},
                "predict": {"checkpoint": str(folder / "w.safetensors"), "device": "cpu"},
            },
        }
        plan = make_plan(checked_settings(settings, "the benchmark"), folder / "runs")
        (step,) = plan.select("predict_blockwise")
        (report,) = drive(plan, [step], SerialRunner(), (), Console(quiet=True))
        share = math.prod(shape) / report.seconds / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"stage on {tuple(shape)}, {report.seconds:.0f} s: {share:.3f} Mvoxel/s,")
        print(f"    {step.stage.network_share:.2f} network voxels for each,", end=" ")
        print(f"process {peak:.2f} GB, bound {step.stage.memory_bytes / 1e9:.2f} GB")


def main(words: Sequence[str]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    network = Network()
    if words[:1] == ["stage"]:
        stage(network, ZYX.of(int(n) for n in words[1].split(",")))
        return
    shape = words[0] if words else ",".join(str(n) for n in SHAPE)
    inference(network)
    kernel(network.embedding)
    subprocess.run([sys.executable, "-m", "tests.bench.predict", "stage", shape], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])

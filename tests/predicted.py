"""Small networks and raw volumes, for tests that predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional

from pipeline.checkpoint import Header
from pipeline.config import Network
from pipeline.geometry import Offsets
from pipeline.model.backbone import build
from pipeline.model.checkpoint import Checkpoint
from tests.drawn import DIRECT, SHAPE

PATCH_VX, CROP_VX = (8, 20, 24), (2, 4, 5)
"""Tiles of 4 x 12 x 14 voxels."""
REACHING = (*DIRECT, (-2, 0, 0), (0, 4, 0), (0, 0, -5), (1, -2, 5))
"""As far as the crop, in every direction; not what the networks were trained on."""


def write_checkpoint(
    path: Path, offsets: Sequence[Sequence[int]] = DIRECT, seed: int = 3, **network: Any
) -> Checkpoint:
    """A network of two levels that nobody trained; its normalisation is not the identity."""
    small = {"features": (4, 6), "pools": [[1, 2, 2]], "embedding": 5} | network
    described = Network.model_validate(small)
    torch.manual_seed(seed)
    module = build(described, len(offsets))
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm3d):
            for values, low, high in (
                (norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2),
                (norm.weight.data, -2, 2), (norm.bias.data, -1, 1),
            ):  # fmt: skip
                values.uniform_(low, high)
    checkpoint = Checkpoint(Header(described, Offsets.of(offsets), 7, {}, {}), module.state_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path)
    return checkpoint


def drawn_raw(shape: Sequence[int] = SHAPE, seed: int = 5) -> np.ndarray:
    """Blurred noise over all of uint8."""
    noise = gaussian_filter(np.random.default_rng(seed).random(shape), (0.5, 1, 1))
    return np.rint((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def predict_tree(
    raw: Path,
    weights: Path,
    /,
    name: str = "small",
    block_vx: Sequence[int] = (4, 12, 14),
    workers: int = 1,
    data: Mapping[str, Any] | None = None,
    **predict: Any,
) -> dict[str, Any]:
    """A run file that starts from raw."""
    settings = {
        "checkpoint": str(weights), "patch_vx": list(PATCH_VX), "crop_vx": list(CROP_VX),
        "device": "cpu", **predict,
    }  # fmt: skip
    each = {"block_vx": list(block_vx), "workers": workers, "retries": 0}
    stages = ("predict", "fragments", "edges", "relabel", "downsample", "evaluate")
    return {
        "run": {"name": name, "data": {"raw": str(raw), **(data or {})}, "predict": settings},
        "machine": {"runner": "serial"} | {stage: dict(each) for stage in stages},
    }


def predicted(
    raw: np.ndarray,
    checkpoint: Checkpoint,
    offsets: Sequence[Sequence[int]],
    patch_vx: Sequence[int] = PATCH_VX,
    crop_vx: Sequence[int] = CROP_VX,
) -> tuple[np.ndarray, np.ndarray]:
    """Affinities in [0, 1] and outputs of a whole volume, patch by patch, in plain PyTorch.

    Shares the network with the pipeline and nothing else.

    Args:
        raw: in [0, 1].
    """
    torch.set_num_threads(1)  # as predictions do; more only wait for each other
    module, header = checkpoint.module(), checkpoint.header
    channels = checkpoint.weights["head.weight"].shape[0]
    affinities = np.zeros((len(offsets), *raw.shape), np.float32)
    outputs = np.zeros((channels, *raw.shape), np.float32)
    # Enough for a whole patch that begins at the last voxel.
    padded = np.pad(raw, [(c, p) for c, p in zip(crop_vx, patch_vx, strict=True)], "reflect")
    tile = [p - 2 * c for p, c in zip(patch_vx, crop_vx, strict=True)]
    places = np.stack(np.meshgrid(*(np.arange(n) for n in raw.shape), indexing="ij"))
    for start in np.ndindex(*(-(-n // t) for n, t in zip(raw.shape, tile, strict=True))):
        low = [s * t for s, t in zip(start, tile, strict=True)]
        high = [min(a + t, n) for a, t, n in zip(low, tile, raw.shape, strict=True)]
        sides = [
            -(-(b - a + 2 * c) // f) * f
            for a, b, c, f in zip(low, high, crop_vx, header.network.factor, strict=True)
        ]
        patch = padded[tuple(slice(a, a + n) for a, n in zip(low, sides, strict=True))]
        with torch.no_grad():
            output = module(torch.from_numpy(patch.astype(np.float32))[None, None]).full[0]
        inner = tuple(slice(c, c + b - a) for a, b, c in zip(low, high, crop_vx, strict=True))
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        outputs[(slice(None), *here)] = output[(slice(None), *inner)].numpy()
        for channel, offset in enumerate(offsets):
            if header.network.head == "affinity":
                trained = header.offsets.vectors.index(tuple(offset))
                value = output[trained][inner].sigmoid()
            else:
                # Rolled round the patch: what comes round comes from beyond the crop.
                partner = torch.roll(output, [-n for n in offset], (1, 2, 3))
                value = functional.cosine_similarity(output, partner, dim=0)[inner].clamp(0, 1)
            affinities[(channel, *here)] = value.numpy()
    for channel, offset in zip(affinities, offsets, strict=True):
        partner = places + np.reshape(offset, (3, 1, 1, 1))
        outside = (partner < 0) | (partner >= np.reshape(raw.shape, (3, 1, 1, 1)))
        channel[outside.any(0)] = 0
    return affinities, outputs

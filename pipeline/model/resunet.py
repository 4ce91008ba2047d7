"""A residual symmetric U-Net with an embedding, or affinities, for every voxel.

The backbone of Lee et al. 2017 (arXiv 1706.00120) as PEA (AAAI-2022) uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import Network
from pipeline.geometry import ZYX
from pipeline.model.output import Output

GROUP_CHANNELS = 8
"""Channels that group normalisation puts together, or as few more as divide a level's."""


class ResUNet(nn.Module):
    """Raw in, one vector per voxel out; sides must be multiples of ``network.factor``.

    stem --- block ------------ add --- block --- tail --- full
               | pool         up |
             block ------ add --- block ------------------ pyramid[0]
               | pool    up |
             block ---------+----------------------------- pyramid[1]
    """

    def __init__(self, network: Network, channels: int) -> None:
        super().__init__()
        features, pools = network.features, network.pools
        self.pools = [tuple(pool) for pool in pools]
        self.stem = _conv(1, features[0], network.stem_vx)
        self.down = nn.ModuleList(
            _Block(network, before, after) if level or network.finest_block else nn.Identity()
            for level, (before, after) in enumerate(pairwise((features[0], *features)))
        )
        self.up = nn.ModuleList(
            _UpSample(coarse, fine, pool, network)
            for (fine, coarse), pool in zip(pairwise(features), self.pools, strict=True)
        )
        self.merged = nn.ModuleList(
            _Block(network, n, n) if level or network.finest_block else nn.Identity()
            for level, n in enumerate(features[:-1])
        )
        self.tail = _conv(features[0], features[0], network.stem_vx)
        self.head = nn.Conv3d(features[0], channels, 1)
        coarser = features[1:] if network.pyramid else ()
        self.pyramid = nn.ModuleList(nn.Conv3d(n, network.embedding, 1) for n in coarser)
        self.apply(_initialise)

    def forward(self, raw: Tensor) -> Output:
        """Of raw in [0, 1], float, ``(B, 1, Z, Y, X)``."""
        levels = [self.down[0](_elu(self.stem(raw)))]
        for pool, block in zip(self.pools, self.down[1:], strict=True):
            levels.append(block(functional.max_pool3d(levels[-1], pool)))
        merged = [levels.pop()]
        for up, block, skip in zip(
            reversed(self.up), reversed(self.merged), reversed(levels), strict=True
        ):
            merged.insert(0, block(up(merged[0], skip)))
        full = self.head(_elu(self.tail(merged[0])))
        return Output(
            full,
            tuple(head(level) for head, level in zip(self.pyramid, merged[1:], strict=False)),
        )


class _Block(nn.Module):
    """``r`` from a convolution in the plane, and two more around it."""

    def __init__(self, network: Network, before: int, after: int) -> None:
        super().__init__()
        self.first = _conv(before, after, network.first_vx, bias=False)
        self.second = _conv(after, after, ZYX(3, 3, 3), bias=False)
        self.third = _conv(after, after, ZYX(3, 3, 3), bias=False)
        self.norms = nn.ModuleList(_norm(network, after) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        r = _elu(self.norms[0](self.first(x)))
        b = self.third(_elu(self.norms[1](self.second(r))))
        return _elu(self.norms[2](r + b))


class _UpSample(nn.Module):
    """Coarse features brought to the finer level and added to its own.

    The 1 x 1 x 1 convolution stands before the interpolation: both are linear, and it is cheaper.
    """

    def __init__(self, coarse: int, fine: int, pool: Sequence[int], network: Network) -> None:
        super().__init__()
        self.scale = [float(n) for n in pool]
        self.align_corners = network.align_corners
        self.conv = nn.Conv3d(coarse, fine, 1)
        self.norm = _norm(network, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        wide = functional.interpolate(
            self.conv(coarse),
            scale_factor=self.scale,
            mode="trilinear",
            align_corners=self.align_corners,
        )
        return _elu(self.norm(wide + fine))


def _elu(x: Tensor) -> Tensor:
    """Of what nobody else holds: in place where no gradient needs it, which saves a tenth."""
    return functional.elu(x, inplace=not torch.is_grad_enabled())


def _conv(before: int, after: int, kernel: ZYX, bias: bool = True) -> nn.Conv3d:
    return nn.Conv3d(before, after, kernel, padding=ZYX(*(n // 2 for n in kernel)), bias=bias)


def _norm(network: Network, channels: int) -> nn.Module:
    if network.norm == "batch":
        return nn.BatchNorm3d(channels, momentum=network.norm_momentum)
    if network.norm == "group":
        most = max(1, channels // GROUP_CHANNELS)
        groups = next(n for n in range(most, 0, -1) if channels % n == 0)
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


def _initialise(module: nn.Module) -> None:
    # To draw nothing on the meta device takes torch two seconds of imports.
    if isinstance(module, nn.Conv3d) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

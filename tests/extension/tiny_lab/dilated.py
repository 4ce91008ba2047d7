"""The network of ``backbone.py``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.model.output import Output


class Dilated(nn.Module):
    def __init__(self, width: int, dilations: Sequence[int], channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, dilation in zip((1, *[width] * len(dilations)), dilations, strict=False):
            layers += [
                nn.Conv3d(before, width, 3, padding=dilation, dilation=dilation),
                nn.BatchNorm3d(width),
                nn.ELU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv3d(width, channels, 1)

    def forward(self, raw: Tensor) -> Output:
        return Output(self.head(self.body(raw)), pyramid=())

"""``run.network.backbone: dilated``: wider and wider convolutions, and no coarser level.

```yaml
network: {backbone: dilated, options: {dilations: [1, 2, 4]}, features: [16], pools: []}
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Backbone, Network


@dataclass(frozen=True)
class Options:
    dilations: Sequence[int] = (1, 2, 4)

    def __post_init__(self) -> None:
        if not self.dilations or not all(type(n) is int and n > 0 for n in self.dilations):
            raise ValueError(f"dilations must be numbers from 1, found {self.dilations}")


def build(network: Network, channels: int):
    from tiny_lab.dilated import Dilated  # here: `pea plan` does without torch

    return Dilated(network.features[0], Options(**network.options).dilations, channels)


DILATED = Backbone(build, revision=1, options=Options)

"""Where a network is computed."""

from __future__ import annotations

from typing import Literal

import torch

from pipeline.errors import ConfigError
from pipeline.hardware import bf16_refusal, present


def device_named(
    name: Literal["auto", "cpu", "cuda"], precision: Literal["fp32", "bf16"]
) -> torch.device:
    """A device; ``auto`` is a GPU if there is one.

    Raises:
        ConfigError: there is no GPU, or bf16 is asked of a CPU without it.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ConfigError(
            "device cuda needs a GPU that PyTorch can use, found none\n"
            "Set device to auto or cpu, or see what nvidia-smi says."
        )
    chosen: Literal["cpu", "cuda"] = "cuda" if found and name != "cpu" else "cpu"
    if precision == "bf16" and not present(chosen).multiplies_bf16():
        raise ConfigError(bf16_refusal("precision"))
    return torch.device(chosen)

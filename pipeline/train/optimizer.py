"""The optimiser of a run file, and its learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.config import Optimizer


def make_optimizer(
    config: Optimizer, parameters: Iterable[nn.Parameter]
) -> torch.optim.Adam | torch.optim.AdamW:
    """Adam adds weight decay to the gradient, AdamW takes it from the weights."""
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
    )


def learning_rate(config: Optimizer, step: int, steps: int) -> float:
    """Of one step, counted from 0: a linear rise over the warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    passed = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))

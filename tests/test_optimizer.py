"""The optimiser against slow twins, and its learning rate step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config import Optimizer
from pipeline.train.optimizer import learning_rate, make_optimizer

STEPS = 12
START = np.array([0.5, -2.0, 0.0, 30.0])


def gradient(step: int) -> np.ndarray:
    """Large ones first, so that AMSGrad remembers them."""
    rng = np.random.default_rng(step)
    return rng.normal(size=START.size) * (1.0 if step < 4 else 0.01)


def found_after(steps: int, slope: Callable[[int], np.ndarray] = gradient, **config: Any) -> Any:
    weights = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make_optimizer(Optimizer.model_validate(config), [weights])
    for step in range(steps):
        weights.grad = torch.from_numpy(slope(step))
        optimizer.step()
    return weights.detach().numpy()


def expected_after(
    steps: int,
    rate: float = 1e-4,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 0.01,
    decay: float = 1e-6,
    amsgrad: bool = True,
    decoupled: bool = False,
) -> np.ndarray:
    """Number by number, as Kingma and Ba, Reddi et al., Loshchilov and Hutter write it."""
    ends = []
    for index, start in enumerate(START):
        w, mean, square, largest = float(start), 0.0, 0.0, 0.0
        for step in range(steps):
            g = float(gradient(step)[index])
            if decoupled:
                w -= rate * decay * w
            else:
                g += decay * w
            mean = beta1 * mean + (1 - beta1) * g
            square = beta2 * square + (1 - beta2) * g * g
            largest = max(largest, square)
            used = largest if amsgrad else square
            length = math.sqrt(used / (1 - beta2 ** (step + 1)))
            w -= rate * mean / (1 - beta1 ** (step + 1)) / (length + epsilon)
        ends.append(w)
    return np.array(ends)


def test_the_defaults_are_the_adam_of_pea():
    np.testing.assert_allclose(found_after(STEPS), expected_after(STEPS), rtol=1e-12, atol=1e-15)
    for change in ({"epsilon": 1e-8}, {"decay": 0.0}, {"beta1": 0.8}, {"beta2": 0.99}):
        assert np.abs(expected_after(STEPS, **change) - expected_after(STEPS)).max() > 1e-10


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_every_setting_of_the_optimizer_is_used(name, amsgrad):
    config = {
        "name": name, "learning_rate": 0.01, "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-3,
        "weight_decay": 0.1, "amsgrad": amsgrad,
    }  # fmt: skip
    expected = expected_after(STEPS, 0.01, 0.7, 0.8, 1e-3, 0.1, amsgrad, name == "adamw")
    np.testing.assert_allclose(found_after(STEPS, **config), expected, rtol=1e-12)
    other = expected_after(STEPS, 0.01, 0.7, 0.8, 1e-3, 0.1, not amsgrad, name == "adamw")
    assert np.abs(other - expected).max() > 1e-4


def test_decay_of_adamw_does_not_depend_on_the_gradient():
    config = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}
    after = found_after(1, lambda _: np.zeros_like(START), **config)
    np.testing.assert_allclose(after, START * (1 - 0.01 * 0.1), rtol=1e-15)


def test_the_rate_of_pea_never_changes():
    assert {learning_rate(Optimizer(), step, 200_000) for step in (0, 1, 99_999, 199_999)} == {1e-4}


def rates(steps: int, **config: Any) -> list[float]:
    optimizer = Optimizer.model_validate({"learning_rate": 2.0, **config})
    return [learning_rate(optimizer, step, steps) for step in range(steps)]


def test_the_warm_up_rises_to_the_full_rate():
    assert rates(6, warmup_steps=4) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    assert rates(3, warmup_steps=10) == pytest.approx([0.2, 0.4, 0.6])


def test_the_cosine_falls_from_the_full_rate_towards_nothing():
    found = rates(4, schedule="cosine")
    assert found == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])
    assert rates(6, schedule="cosine", warmup_steps=2) == pytest.approx([1.0, 2.0, *found])
    assert min(rates(1000, schedule="cosine")) > 0
    assert rates(2, schedule="cosine", warmup_steps=2) == pytest.approx([1.0, 2.0])

"""Other looks of the same tissue: contrast, brightness, gamma, blur, noise. All work in place.

gunpowder's ``IntensityAugment`` scales about the mean of what it sees and knows no gamma, its
``NoiseAugment`` computes in float64; it has no blur.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def intensity(
    raw: np.ndarray,
    contrast: float,
    brightness: float,
    gamma: float,
    per_section: bool,
    rng: np.random.Generator,
) -> None:
    """``(raw * (1 + u) + v) ** 2 ** w``, clipped before the power.

    ``u``, ``v`` and ``w`` are uniform, between minus and plus contrast, brightness and gamma.

    Args:
        raw: float32 ``(z, y, x)`` in [0, 1].
        per_section: other numbers for each section, instead of the same for the crop.
    """
    reach = np.array([contrast, brightness, gamma])
    for part in raw if per_section else [raw]:
        gain, lift, power = rng.uniform(-reach, reach)
        part *= np.float32(1 + gain)
        part += np.float32(lift)
        np.clip(part, 0, 1, out=part)
        np.power(part, np.float32(2**power), out=part)


def blur(raw: np.ndarray, max_sigma_vx: float, rng: np.random.Generator) -> None:
    """A Gaussian in the plane of the sections, its width uniform from 0."""
    sigma = rng.uniform(0, max_sigma_vx)
    gaussian_filter(raw, (0, sigma, sigma), output=raw, mode="nearest")


def noise(raw: np.ndarray, sigma: float, rng: np.random.Generator) -> None:
    """Gaussian noise, the same width everywhere; clipped to [0, 1]."""
    raw += np.float32(sigma) * rng.standard_normal(raw.shape, np.float32)
    np.clip(raw, 0, 1, out=raw)

"""Borders between objects, made background."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter


def widened(labels: np.ndarray, radius_vx: int, per_section: bool) -> np.ndarray:
    """Labels in which a voxel with two or more objects in its window is 0.

    The window is a square within the section, or a cube, that reaches ``radius_vx`` far. Background
    is no object, so objects do not shrink where they meet it. Beyond its rim a crop is reflected,
    which shows the window no object that it does not contain already.

    Args:
        labels: integers from 0, below 2^53 (the filters compute in float64), ``(z, y, x)``.
    """
    if not radius_vx:
        return labels
    window = 2 * radius_vx + 1
    size = (1 if per_section else window, window, window)
    highest = maximum_filter(labels, size, mode="nearest")
    # Background counts as the highest id of all, so that it is never the lowest.
    lowest = minimum_filter(np.where(labels > 0, labels, labels.max()), size, mode="nearest")
    return np.where(lowest < highest, 0, labels).astype(labels.dtype)

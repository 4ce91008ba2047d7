"""What goes into training, and what comes out of its augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.geometry import Roi
from pipeline.location import Location
from pipeline.raw import RawScale
from pipeline.train.view import Transform


@dataclass(frozen=True)
class TrainingData:
    """Raw and labels, and the region of both that may be looked at."""

    raw: Location
    labels: Location
    scale: RawScale
    roi: Roi
    """In world voxels. What lies outside is never read."""


@dataclass(frozen=True)
class Batch:
    """What a step of training sees; each array has the crops of the batch along its first axis."""

    raw: np.ndarray
    """float32 ``(b, 1, z, y, x)`` in [0, 1]."""
    labels: np.ndarray
    """int32 ``(b, z, y, x)``, 1, 2, ... in each crop; 0 is background, unknown or border."""
    view: np.ndarray | None
    """float32 ``(b, 1, z', y', x')`` in [0, 1]: raw, transformed."""
    transforms: tuple[Transform, ...]
    """Of each crop, the one that made its view."""

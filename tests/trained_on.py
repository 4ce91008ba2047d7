"""Small volumes to take crops from, for tests of training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Train
from pipeline.geometry import Coordinate, Roi
from pipeline.raw import RawScale
from pipeline.train.data import TrainingData
from tests.drawn import SHAPE, drawn_labels, write_volume

NOTHING = {"flip": False, "transpose": "none", "intensity": 0.0}
"""No augmentation at all."""
GEOMETRY = {
    "rotate": 1.0, "scale": 0.2, "elastic": 1.0, "shifted_section": 0.3, "intensity": 0.0,
}  # fmt: skip
EVERYTHING = {
    "rotate": 0.5, "scale": 0.2, "elastic": 0.5, "intensity": 0.5, "missing_section": 0.1,
    "faint_section": 0.1, "shifted_section": 0.1, "blur": 0.5, "noise": 0.5,
    "elastic_spacing_vx": [4, 8, 8],
}  # fmt: skip
CROP = [6, 10, 14]


def numbered(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Raw that says where it is from: the number of each voxel, uint16."""
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def data_of(
    folder: Path,
    raw: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    margin: tuple[int, int, int] = (0, 0, 0),
    scale: tuple[float, float] = (0, 65535),
) -> TrainingData:
    """Volumes on disk, and all of them but a margin as the training region."""
    raw = numbered() if raw is None else raw
    labels = drawn_labels(raw.shape) if labels is None else labels
    made = write_volume(folder / "data.zarr" / "raw", raw, "raw")
    truth = write_volume(folder / "data.zarr" / "labels", labels, "labels")
    inner = Roi(made.roi.begin + Coordinate(margin), made.roi.shape - Coordinate(margin) * 2)
    return TrainingData(made.path, truth.path, RawScale(*scale), inner)


def train_with(augment: dict[str, Any], **settings: Any) -> Train:
    """Settings of a training; its region is that of the data."""
    tree = {
        "roi": {"offset": [0, 0, 0], "shape": [1, 1, 1]},
        "crop_vx": CROP,
        "augment": augment,
        "view": {"max_cutouts": 5, "cutout_min_vx": [1, 2, 2], "cutout_max_vx": [2, 4, 4]},
    }
    return Train.model_validate(tree | settings)

"""What a training leaves to look at: a line per interval in ``training.jsonl``, and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from pipeline.report.colours import colours
from pipeline.tables import read_rows, replacing


class Logbook:
    """Curves and pictures of one training; what was noted after ``step`` is forgotten.

    Args:
        folder: gets ``training.jsonl`` and ``tensorboard/``.
        step: that the training goes on from.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "training.jsonl"
        kept = [row for row in read_rows(self.path) if row["step"] <= step]
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by names such as ``loss/self``."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def draw(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Pictures of a step, uint8 ``(y, x)`` or ``(y, x, 3)``."""
        for name, picture in pictures.items():
            axes = "HWC" if picture.ndim == 3 else "HW"
            self.board.add_image(name, picture, step, dataformats=axes)
        self.board.flush()

    def close(self) -> None:
        self.board.close()


def embedding_colours(embedding: np.ndarray) -> np.ndarray:
    """Embeddings of a section as colours: their three principal components.

    Args:
        embedding: float ``(E, y, x)``, E >= 3.

    Returns:
        uint8 ``(y, x, 3)``.
    """
    vectors = embedding.reshape(len(embedding), -1).T.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors -= vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(vectors.T @ vectors)
    parts = vectors @ axes[:3].T
    low, high = np.percentile(parts, [1, 99], axis=0)
    unit = np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.asarray(np.rint(255 * unit).astype(np.uint8).reshape(*embedding.shape[1:], 3))


def label_colours(labels: np.ndarray) -> np.ndarray:
    """Labels of a section as colours, uint8 ``(y, x, 3)``; 0 is black."""
    ids, index = np.unique(labels, return_inverse=True)
    table = np.rint(255 * colours(ids)).astype(np.uint8)
    return np.asarray(table[index].reshape(*labels.shape, 3))

"""Where crops are taken: the training region of two volumes."""

from __future__ import annotations

from collections.abc import Sequence

import fastremap
import numpy as np

from pipeline.errors import DataError, RoiError
from pipeline.geometry import Coordinate, Roi, describe, slices
from pipeline.train.data import TrainingData
from pipeline.volume import Volume

IN_MEMORY_BYTES = 2**29
"""Regions up to this size, at 4 bytes a label, are read once; of others each crop is read."""
TRIES = 1000


class Source:
    """Raw and labels of the training region."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data
        self._raw, self._labels = Volume.open(data.raw), Volume.open(data.labels)
        self._scale = data.scale
        self._held: tuple[np.ndarray, np.ndarray] | None = None
        for volume in (self._raw, self._labels):
            if not volume.roi.contains(data.roi):
                size = volume.spec.voxel_size_nm
                raise RoiError(
                    f"train.roi must lie inside its volumes: {volume.path}\n"
                    f"it is {describe(data.roi, size)}\nthe volume has {describe(volume.roi, size)}"
                )

    def hold(self) -> None:
        """Read the region once and for all, if it is small."""
        bytes_each = self._raw.dtype.itemsize + np.dtype(np.uint32).itemsize
        if self._data.roi.size * bytes_each <= IN_MEMORY_BYTES:
            self._held = self._read_raw(self._data.roi), self._read_labels(self._data.roi)

    def place(self, shape: Sequence[int], min_labelled: float, rng: np.random.Generator) -> Roi:
        """A box of the region, any as likely as another that has enough labelled voxels.

        Raises:
            DataError: none was found.
        """
        roi = self._data.roi
        best = 0.0
        for _ in range(TRIES):
            box = Roi(roi.begin + Coordinate(rng.integers(roi.shape - shape + 1)), shape)
            if not min_labelled:
                return box
            share = np.count_nonzero(self._read_labels(box)) / box.size
            if share >= min_labelled:
                return box
            best = max(best, share)
        raise DataError(
            f"crops must have a share of {min_labelled} labelled voxels (train.min_labelled)\n"
            f"the best of {TRIES} places in train.roi had {best:.3g}: {self._labels.path}"
        )

    def read(self, box: Roi) -> tuple[np.ndarray, np.ndarray]:
        """Raw and labels of a box, reflected where it leaves the region.

        Returns:
            Raw, float32 in [0, 1]; labels, uint32 with 0 and the same objects, not the same ids.
        """
        inside = box.intersect(self._data.roi)
        raw = self._scale.apply(self._read_raw(inside), self._data.raw)
        labels = self._read_labels(inside)
        if inside == box:
            return raw, labels
        beyond = list(zip(inside.begin - box.begin, box.end - inside.end, strict=True))
        return np.pad(raw, beyond, "reflect"), np.pad(labels, beyond, "reflect")

    def _read_raw(self, box: Roi) -> np.ndarray:
        if self._held is None:
            return self._raw.read(box)
        return self._held[0][slices(box, self._data.roi.begin)]

    def _read_labels(self, box: Roi) -> np.ndarray:
        if self._held is None:
            labels = fastremap.renumber(self._labels.read(box), in_place=True)[0]
            return np.asarray(labels, np.uint32)
        return self._held[1][slices(box, self._data.roi.begin)]

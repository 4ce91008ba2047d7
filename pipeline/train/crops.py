"""One crop at a time, made by gunpowder in this process."""

from __future__ import annotations

import random

import fastremap
import numpy as np

from pipeline.config import Train
from pipeline.errors import PipelineError
from pipeline.train import nodes
from pipeline.train.data import Batch, TrainingData
from pipeline.train.engine import gunpowder as gp
from pipeline.train.source import Source


class Crops:
    """Batches as a pure function of seed and step."""

    def __init__(self, data: TrainingData, train: Train, view: bool) -> None:
        self._train, self._view = train, view
        source = Source(data)
        source.hold()
        self._draw = nodes.Draw()
        first, *others = nodes.nodes(source, self._draw, train, view)
        self._pipeline = gp.Pipeline(first)
        for node in others:
            self._pipeline += node
        self._pipeline.setup()

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: a damaged volume, or no place with enough labelled voxels.
        """
        # gunpowder seeds the generators that everybody shares.
        state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            crops = [self._crop(step, index) for index in range(self._train.batch)]
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002
        views = [crop[nodes.VIEW] for crop in crops] if self._view else []
        return Batch(
            raw=np.stack([crop[nodes.RAW].data[None] for crop in crops]),
            labels=np.stack([_dense(crop[nodes.LABELS].data) for crop in crops]),
            view=np.stack([view.data[None] for view in views]) if views else None,
            transforms=tuple(view.attrs["transform"] for view in views),
        )

    def _crop(self, step: int, index: int) -> gp.Batch:
        self._draw.start(self._train.seed, step, index)
        box = gp.Roi((0, 0, 0), self._train.crop_vx)
        request = gp.BatchRequest(random_seed=0)
        request[nodes.CROP] = gp.ArraySpec(box, placeholder=True)
        request[nodes.RAW] = request[nodes.LABELS] = gp.ArraySpec(box)
        if self._view:
            request[nodes.VIEW] = gp.ArraySpec(nonspatial=True)
        try:
            return self._pipeline.request_batch(request)
        except Exception as error:
            raise _cause(error) from None


def _cause(error: BaseException) -> BaseException:
    """The error in a node that gunpowder wraps, once for each node, in pages of requests."""
    while error.__context__ is not None and not isinstance(error, PipelineError):
        error = error.__context__
    return error


def _dense(labels: np.ndarray) -> np.ndarray:
    dense: np.ndarray = fastremap.renumber(np.ascontiguousarray(labels))[0]
    return dense.astype(np.int32)

"""How good the network is now: the scores of the segmentation that it leads to."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.config import Run
from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.geometry import Nm, Offsets, Roi, slices
from pipeline.model.predictor import Predictor
from pipeline.segment.agglomerate import mean_affinity_tree
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, fragments
from pipeline.stages.predict import PatchReader
from pipeline.train.logbook import embedding_colours, label_colours
from pipeline.train.task import Task

THRESHOLDS = tuple(round(0.02 * n, 2) for n in range(5, 50))
"""Of the validation; the best of them counts, as it would after tuning."""


@dataclass(frozen=True)
class Validated:
    """One validation."""

    threshold: float
    """At which the scores are best."""
    scores: Scores
    segmentation: np.ndarray
    """uint64 ``(z, y, x)`` at that threshold."""

    def as_dict(self) -> dict[str, Any]:
        return {"threshold": self.threshold, **self.scores.as_dict()}


def segmented(
    affinities: np.ndarray, offsets: Offsets, truth: np.ndarray, run: Run, voxel_size_nm: Nm
) -> Validated:
    """Segment a region whole, with the fragments of the run, and score it at every threshold.

    By mean affinity, whatever ``run.agglomerate.method`` is: one tree holds all thresholds.

    Args:
        affinities: uint8 ``(channel, z, y, x)``.
        truth: uint64 ``(z, y, x)``; 0 does not count.
    """
    rule = FragmentRule(voxel_size_nm, **run.fragments.model_dump())
    labels = fragments(affinities, rule)
    sizes = fragment_sizes(labels)
    tree = mean_affinity_tree(region_edges(affinities, labels, offsets))
    table = Contingency.count(labels, truth)

    def scores_at(threshold: float) -> Scores:
        return Scores.of(table.relabel(tree.cut(threshold, sizes, run.agglomerate.dust_vx)))

    best = min(THRESHOLDS, key=lambda threshold: scores_at(threshold).voi)
    segmentation = tree.cut(best, sizes, run.agglomerate.dust_vx).apply(labels)
    return Validated(best, scores_at(best), segmentation)


def validated(
    module: nn.Module, task: Task, device: torch.device
) -> tuple[Validated, dict[str, np.ndarray]]:
    """Predict, segment and score the validation region.

    Returns:
        The scores, and pictures of its middle section, uint8.
    """
    roi = task.validation_roi
    assert roi is not None
    # A copy: the predictor folds the normalisation into the weights.
    head, offsets = task.run.network.head, task.validation_offsets
    network = Predictor(copy.deepcopy(module).eval(), head, task.train.offsets, device.type)
    outputs, affinities = predicted(network, task, roi)
    truth = task.labels.read(roi).astype(np.uint64)
    result = segmented(affinities, offsets, truth, task.run, task.voxel_size_nm)
    z = roi.shape[0] // 2
    raw = task.data.scale.apply(task.raw.read(roi)[z], task.raw.path)
    pictures = {
        "section/1 raw": np.rint(255 * raw).astype(np.uint8),
        "section/2 truth": label_colours(truth[z]),
        "section/4 affinities": affinities[:3, z].transpose(1, 2, 0),
        "section/5 segmentation": label_colours(result.segmentation[z]),
    }
    if head == "embedding" and len(outputs) >= 3:
        pictures["section/3 embedding"] = embedding_colours(outputs[:, z])
    return result, pictures


def predicted(network: Predictor, task: Task, roi: Roi) -> tuple[np.ndarray, np.ndarray]:
    """Embedding (or logits), float32, and affinities, uint8, of a region; both ``(c, z, y, x)``.

    Patch by patch, as ``pea run`` predicts, with the whole volume around the region in view.
    """
    grid, offsets = task.patches, task.validation_offsets
    reader = PatchReader(task.raw, task.data.scale)
    shape = tuple(roi.shape)
    affinities = np.zeros((len(offsets), *shape), np.uint8)
    outputs = None
    for patch in grid.patches(roi):
        output = network.output(reader(patch))
        tile = patch.tile.intersect(roi)
        here, inner = slices(tile, roi.begin), slices(tile, patch.read.begin)
        inside = slices(grid.total, patch.read.begin)
        affinities[:, *here] = network.affinities(output, offsets, inner, inside)
        if outputs is None:
            outputs = np.zeros((output.shape[0], *shape), np.float32)
        outputs[:, *here] = output[:, *inner].cpu().numpy()
    assert outputs is not None
    return outputs, affinities

"""Many segmentations of the same fragments, scored from one table."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.graph import Assignment

Swept = dict[str, Any]
"""Scores of one segmentation, and the value of the parameter that made it."""


def sweep(
    fragments: Contingency, parameter: str, segmentations: Iterable[tuple[float, Assignment]]
) -> list[Swept]:
    """Score segmentations without looking at voxels.

    Args:
        fragments: counts of fragments against the truth.
        parameter: what is swept, such as ``threshold``; a key of the result.
        segmentations: its values, and what the fragments become at each.
    """
    return [
        {parameter: value} | Scores.of(fragments.relabel(segments)).as_dict()
        for value, segments in segmentations
    ]


def best_of(swept: Iterable[Swept]) -> dict[str, Swept]:
    """The scores of the lowest VOI and of the lowest ARAND; of equal ones the first."""
    scores = list(swept)
    return {name: min(scores, key=itemgetter(name)) for name in ("voi", "arand")}

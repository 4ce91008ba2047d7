"""The scores of one table by the conventions of several programs, side by side.

They differ in what 0 means, in the logarithm, and in the pairs of voxels that Rand scores count.
Each is what the named program computes, read from its code:

- ``scikit-image``: ``variation_of_information`` and ``adapted_rand_error`` with 0 of the truth in
  ``ignore_labels``; what the PEA paper reports, and the convention of every score without a name.
- ``cremi``: ``NeuronIds`` of cremi_python, and the CREMI score, the geometric mean of VOI and
  ARAND. Its background, 2^64 - 1, is 0 here: ingest with ``--background 18446744073709551615``.
- ``gala``: ``vi`` and ``adapted_rand_error`` of gala, with what they ignore by default.
- ``funlib``: ``rand_voi`` of funlib.evaluate, whose Rand scores are better when higher.
- ``natural logarithm``: as scikit-image, VOI in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import HEADLINE, Scores, Sums, ratio

Named = dict[str, float | None]
"""Scores by name; None where the convention has none, as without a single voxel to count."""


@dataclass(frozen=True)
class Convention:
    """What is counted, in words, and the scores."""

    truth_0: str
    segment_0: str
    voi: str
    rand: str
    scores: Callable[[Contingency], Named]

    def definition(self) -> dict[str, str]:
        return {
            "truth 0": self.truth_0,
            "segment 0": self.segment_0,
            "voi": self.voi,
            "rand": self.rand,
        }


def all_scores(table: Contingency) -> dict[str, Any]:
    """The scores of the headline, and those of every convention with its definition.

    Args:
        table: with the rows of truth 0 and segment 0.

    Returns:
        Plain values, for JSON.
    """
    named = {
        name: {"definition": convention.definition(), "scores": convention.scores(table)}
        for name, convention in CONVENTIONS.items()
    }
    return Scores.of(table).as_dict() | {"convention": HEADLINE, "conventions": named}


def _voi(table: Contingency) -> Named:
    if len(table) == 0:
        return {"voi_split": None, "voi_merge": None, "voi": None}
    split, merge = Sums.of(table).entropies()
    return {"voi_split": split, "voi_merge": merge, "voi": split + merge}


def _scikit_image(table: Contingency) -> Named:
    scores = Scores.of(table)
    arand = None if math.isnan(scores.arand) else scores.arand
    return _voi(table.without_truth(0)) | {"arand": arand}


def _natural(table: Contingency) -> Named:
    scores = _scikit_image(table)
    return {
        name: value * math.log(2) if value is not None and name.startswith("voi") else value
        for name, value in scores.items()
    }


def _funlib(table: Contingency) -> Named:
    table = table.without_truth(0)
    if len(table) == 0:
        return _voi(table) | {"rand_split": None, "rand_merge": None}
    together, in_segment, in_truth = Sums.of(table).squares()
    return _voi(table) | {"rand_split": together / in_truth, "rand_merge": together / in_segment}


def _gala(table: Contingency) -> Named:
    both = table.without_truth(0).without_segment(0)
    return _voi(both) | {"arand": _snemi_arand(table)}


def _cremi(table: Contingency) -> Named:
    voi, arand = _voi(table.without_truth(0)), _snemi_arand(table)
    total = voi["voi"]
    score = None if total is None or arand is None else math.sqrt(total * arand)
    return voi | {"arand": arand, "cremi_score": score}


def _snemi_arand(table: Contingency) -> float | None:
    """The adapted Rand error of the SNEMI3D script, which gala and CREMI translated.

    A voxel that the segmentation leaves in the background is a segment of its own, and is counted
    with a weight of one over all voxels there are, those without truth too.
    """
    known = table.without_truth(0)
    if len(known) == 0:
        return None
    found = known.without_segment(0)
    alone = float((known.voxels.sum() - found.voxels.sum()) / table.voxels.sum())
    together, in_segment, _ = Sums.of(found).squares()
    in_truth = Sums.of(known).squares()[2]
    # 2 p r / (p + r), with p and r the shares of what is together.
    # Beyond 2^53 pairs sums are rounded, and a perfect score may fall just below 0.
    return max(0.0, 1.0 - ratio(2.0 * (together + alone), in_segment + alone + in_truth))


IGNORED = "ignored"
ORDINARY = "an ordinary segment"
CONVENTIONS: Mapping[str, Convention] = {
    HEADLINE: Convention(
        IGNORED, ORDINARY, "bits", "F-score of pairs of two voxels, alpha 0.5", _scikit_image
    ),
    "cremi": Convention(
        IGNORED,
        "VOI: an ordinary segment; ARAND: each voxel alone",
        "bits",
        "F-score of ordered pairs, self-pairs included",
        _cremi,
    ),
    "gala": Convention(
        IGNORED,
        "VOI: ignored; ARAND: each voxel alone",
        "bits",
        "F-score of ordered pairs, self-pairs included",
        _gala,
    ),
    "funlib": Convention(
        IGNORED,
        ORDINARY,
        "bits",
        "shares of ordered pairs, self-pairs included; 1 is perfect: split of those in one object, "
        "merge of those in one segment",
        _funlib,
    ),
    "natural logarithm": Convention(
        IGNORED, ORDINARY, "nats", "F-score of pairs of two voxels, alpha 0.5", _natural
    ),
}

"""Scores as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = {
    "voi_split": "split",
    "voi_merge": "merge",
    "voi": "VOI",
    "arand": "ARAND",
    "rand_split": "Rand split",
    "rand_merge": "Rand merge",
    "cremi_score": "CREMI",
}
OBJECTS_SHOWN = 5


def score_line(scores: Mapping[str, Any]) -> str:
    """The headline."""
    at = "".join(f"{key} {scores[key]:g}: " for key in ("threshold", "beta") if key in scores)
    return (
        f"{at}VOI {scores['voi']:.4f} (split {scores['voi_split']:.4f} + "
        f"merge {scores['voi_merge']:.4f}), ARAND {scores['arand']:.4f}"
    )


def convention_lines(conventions: Mapping[str, Any]) -> Iterator[str]:
    """A row for each convention; what it does not define is left empty."""
    width = max(map(len, conventions))
    yield " " * width + "".join(f"{head:>12}" for head in COLUMNS.values())
    for name, convention in conventions.items():
        values = (convention["scores"].get(key) for key in COLUMNS)
        cells = ("" if value is None else f"{value:.4f}" for value in values)
        yield (f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells)).rstrip()


def object_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    """The worst splits and merges, with their places."""
    for kind, side, other in (("split", "truth", "segment"), ("merge", "segment", "truth")):
        worst = scores[f"{kind}s"]
        if not worst:
            yield f"no {kind}s"
        for each in worst[:OBJECTS_SHOWN]:
            place = each["roi_nm"]
            yield (
                f"{kind} {side} {each[side]}: {each['voi']:.4f} bits, {each['voxels']} voxels in "
                f"{each[f'num_{other}']} of {other}, at {place['offset']} nm, "
                f"{place['shape']} nm large"
            )

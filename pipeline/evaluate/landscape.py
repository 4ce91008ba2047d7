"""Scores over a grid of settings, and which of them to choose: a flat optimum before a sharp one.

The settings with the lowest score on one region are partly luck. So a setting is judged by the mean
score over a window: its value of the swept parameter and the ``REACH`` values of the list before
and after it. A value nearer to an end of its list has no such window and is not chosen; lists of
fewer than five values have a narrower one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.evaluate.sweep import Swept

Measure = Literal["voi", "arand"]
REACH = 2
"""Values on either side of a window."""


@dataclass(frozen=True)
class Curve:
    """Scores of one method on the same fragments, over its parameter."""

    fragments: Mapping[str, float]
    """The settings that made the fragments."""
    agglomerate: Mapping[str, Any]
    """The method and those of its settings that are the same all along."""
    parameter: str | None
    """What is swept; None of a method without a parameter, which has one score."""
    swept: Sequence[Swept]
    """In the order of the parameter; each has its value and the scores."""

    @property
    def name(self) -> str:
        """The method and its settings, in words, but the solver, which a tuning does not vary."""
        options = self.agglomerate.get("options", {})
        unsaid = ("options", "solver")
        said = [value for name, value in self.agglomerate.items() if name not in unsaid]
        said += [f"{name} {value}" for name, value in options.items()]
        return ", ".join(str(value).replace("_", " ") for value in said)

    def as_dict(self) -> dict[str, Any]:
        return {
            "fragments": dict(self.fragments),
            "agglomerate": dict(self.agglomerate),
            "parameter": self.parameter,
            "scores": list(self.swept),
        }


@dataclass(frozen=True)
class Point:
    """One setting of a curve."""

    curve: Curve
    place: int
    """In ``curve.swept``."""
    reach: int
    """Values on either side that its window has."""
    mean: float
    """Of the measure that it was judged by, over its window."""

    @property
    def scores(self) -> Swept:
        return self.curve.swept[self.place]

    @property
    def value(self) -> float | None:
        """Of the parameter."""
        return None if self.curve.parameter is None else float(self.scores[self.curve.parameter])

    @property
    def window(self) -> tuple[float, float] | None:
        """The lowest and highest value of the parameter that count."""
        if self.curve.parameter is None:
            return None
        ends = (self.place - self.reach, self.place + self.reach)
        low, high = (float(self.curve.swept[end][self.curve.parameter]) for end in ends)
        return low, high

    @property
    def at_an_end(self) -> bool:
        """Whether no value farther out could have been chosen: the optimum may lie beyond."""
        first, last = self.reach, len(self.curve.swept) - 1 - self.reach
        return first < last and self.place in (first, last)

    def as_dict(self, by: Measure) -> dict[str, Any]:
        said: dict[str, Any] = {
            "fragments": dict(self.curve.fragments),
            "agglomerate": dict(self.curve.agglomerate),
            **self.scores,
            f"mean_{by}": self.mean,
        }
        if self.curve.parameter is not None:
            said["window"] = list(self.window or ())
        return said


def points(curve: Curve, by: Measure) -> Iterator[Point]:
    """The settings of a curve that may be chosen, each with its mean over its window."""
    scores = [each[by] for each in curve.swept]
    reach = min(REACH, (len(scores) - 1) // 2)
    for place in range(reach, len(scores) - reach):
        window = scores[place - reach : place + reach + 1]
        yield Point(curve, place, reach, math.fsum(window) / len(window))


def most_robust(curves: Iterable[Curve], by: Measure) -> Point:
    """The setting with the lowest mean over its window.

    Of equal means the one with the lower score of its own, then the first, is taken.
    """
    every = (point for curve in curves for point in points(curve, by))
    return min(every, key=lambda point: (point.mean, point.scores[by]))


def best_of_each(curves: Iterable[Curve], by: Measure) -> list[Point]:
    """The same for each method with its settings, over all fragments; best first."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.name, []).append(curve)
    found = [most_robust(group, by) for group in groups.values()]
    return sorted(found, key=lambda point: (point.mean, point.scores[by]))

"""Which point of a landscape of scores is chosen, and its picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.evaluate.landscape import REACH, Curve, best_of_each, most_robust, points
from pipeline.report.landscape import draw_landscape

VALUES = tuple(n / 50 for n in range(1, 50))


def curve(
    voi: list[float] | np.ndarray,
    method: str = "mean_affinity",
    parameter: str | None = "threshold",
    wide_nm: float = 30.0,
) -> Curve:
    """A curve of these scores; ARAND falls where VOI rises."""
    scores = [
        {"voi": float(v), "voi_split": v / 3, "voi_merge": v * 2 / 3, "arand": 1 / (1 + float(v))}
        for v in voi
    ]
    if parameter is not None:
        scores = [{parameter: x} | s for x, s in zip(VALUES, scores, strict=False)]
    return Curve({"wide_nm": wide_nm}, {"method": method}, parameter, scores)


def well(place: int, depth: float, width: float) -> np.ndarray:
    return 2 - depth * np.exp(-(((np.arange(49) - place) / width) ** 2))


def test_a_broad_well_is_preferred_to_a_deeper_sharp_one():
    scores = np.minimum(well(12, 1.5, 0.7), well(35, 1.2, 6))
    assert scores.argmin() == 12
    assert most_robust([curve(scores)], "voi").value == VALUES[35]


def test_of_wells_of_one_width_the_deeper_is_preferred():
    scores = np.minimum(well(12, 1.5, 4), well(35, 1.2, 4))
    chosen = most_robust([curve(scores)], "voi")
    assert chosen.value == VALUES[12]
    assert chosen.window == (VALUES[10], VALUES[14])


def test_a_slope_that_ends_in_a_cliff_is_left_before_the_cliff():
    scores = np.r_[np.linspace(2, 1, 40), np.full(9, 5.0)]
    assert most_robust([curve(scores)], "voi").place == 39 - REACH


def test_the_ends_of_a_list_are_not_chosen_and_it_is_said():
    chosen = most_robust([curve(np.linspace(2, 1, 49))], "voi")
    assert (chosen.place, chosen.at_an_end) == (48 - REACH, True)
    assert not most_robust([curve(well(20, 1, 5))], "voi").at_an_end


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.sampled_from(["voi", "arand"]))
def test_the_mean_over_the_window_decides_then_the_score_then_the_order(voi, by):
    drawn = curve(voi)
    scores = [each[by] for each in drawn.swept]
    reach = next(r for r in (2, 1, 0) if len(voi) > 2 * r)
    rows = []
    for place in range(len(voi)):
        window = [scores[p] for p in range(place - reach, place + reach + 1) if 0 <= p < len(voi)]
        if len(window) == 2 * reach + 1:
            rows.append((np.mean(window), scores[place], place))
    assert [p.place for p in points(drawn, by)] == [place for *_, place in rows]
    assert [p.mean for p in points(drawn, by)] == pytest.approx([mean for mean, *_ in rows])
    means = sorted(mean for mean, *_ in rows)
    assume(all(b - a > 1e-9 or a == b for a, b in pairwise(means)))
    assert most_robust([drawn], by).place == min(rows)[2]


def test_a_method_without_a_parameter_is_judged_by_its_score():
    single = curve([1.3], "mutex_watershed", None)
    chosen = most_robust([curve(well(20, 0.6, 5)), single], "voi")
    assert chosen.curve is single
    assert (chosen.value, chosen.window, chosen.mean) == (None, None, 1.3)


def test_each_method_is_represented_once_with_its_best_fragments():
    worse, better = curve(well(9, 0.7, 5), wide_nm=20.0), curve(well(30, 0.9, 5))
    other = curve(well(30, 1.1, 5), "multicut", "beta")
    best = best_of_each([worse, better, other], "voi")
    assert [point.curve for point in best] == [other, better]
    assert [point.value for point in best] == [VALUES[30], VALUES[30]]


MANY = [
    curve(well(30, 1.0, 5)),
    curve(well(20, 0.9, 5), wide_nm=20.0),
    curve(well(25, 1.2, 3), "multicut", "beta"),
    curve([1.4], "mutex_watershed", None),
]


@pytest.mark.parametrize(
    ("curves", "by"),
    [(MANY, "voi"), (MANY[2:], "arand"), (MANY[3:], "voi"), ([curve([0.0])], "voi")],
    ids=["all", "betas, by ARAND", "no parameter", "one perfect score"],
)
def test_any_landscape_can_be_drawn(curves, by, tmp_path: Path):
    path = tmp_path / "landscape.png"
    draw_landscape(curves, best_of_each(curves, by), by, path, "a run")
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50, "not blank"

"""What came of a tuning, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evaluate.landscape import Measure, Point


def landscape_lines(best: Sequence[Point], by: Measure) -> Iterator[str]:
    """The best of each method in a tuning, the chosen one first."""
    width = max(len(point.curve.name) for point in best)
    titles = "".join(f"{title:>8}" for title in ("split", "merge", "VOI", "ARAND"))
    yield f"{'':<{width}}{'at':>16}  {'fragments':<20}{titles}{f'mean {by}':>12}"
    for point in best:
        at = "" if point.value is None else f"{point.curve.parameter} {point.value:g}"
        fragments = " / ".join(f"{value:g}" for value in point.curve.fragments.values())
        scores = (point.scores[key] for key in ("voi_split", "voi_merge", "voi", "arand"))
        cells = "".join(f"{score:>8.3f}" for score in scores) + f"{point.mean:>12.3f}"
        yield f"{point.curve.name:<{width}}{at:>16}  {fragments:<20}{cells}"
    yield (
        f"fragments: {' / '.join(best[0].curve.fragments)}; mean: over a window of the parameter, "
        "which decides"
    )
    if best[0].at_an_end:
        yield (
            f"the chosen {best[0].curve.parameter} is the last of those tried that can be chosen: "
            "better ones may lie beyond"
        )

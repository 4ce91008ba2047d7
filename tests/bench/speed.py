"""How fast the stages' kernels are on one core, beside libraries that do the same.

    python -m tests.bench.speed

Every pair is timed in turn, five times; the table gives medians and the median of the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.geometry import Nm, Offsets
from pipeline.graph import MergeTree
from pipeline.phantom import Phantom
from pipeline.segment.affinities import affinities_from_interior
from pipeline.segment.agglomerate import mean_affinity_tree
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, fragments
from pipeline.segment.whole import flooding_fragments, waterz_segmentations

SHAPE = (64, 256, 256)
ROUNDS = 5


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object] | None, other: str = ""
) -> None:
    """Time two calls in turn and print a row."""
    seconds: list[list[float]] = []
    for call in (ours, theirs):
        if call:
            call()  # compiled and in cache now
    for _ in range(ROUNDS):
        row = []
        for call in (ours, theirs):
            if call:
                started = time.perf_counter()
                call()
                row.append(time.perf_counter() - started)
        seconds.append(row)
    mine = statistics.median(row[0] for row in seconds)
    text = f"{name:<28}{np.prod(SHAPE) / mine / 1e6:>8.1f}"
    if theirs:
        text += f"{statistics.median(row[1] / row[0] for row in seconds):>9.2f} x {other}"
    print(text)


def skimage_scores(segments: np.ndarray, truth: np.ndarray) -> None:
    from skimage.metrics import adapted_rand_error, variation_of_information

    variation_of_information(truth, segments, ignore_labels=(0,))
    adapted_rand_error(truth, segments, ignore_labels=(0,))


def main() -> None:
    phantom = Phantom(1, (10.0, 10.0, 10.0))
    truth = phantom.labels((0, 0, 0), SHAPE)
    affinities = affinities_from_interior(1 - phantom.boundary((0, 0, 0), SHAPE), Offsets())
    rule = FragmentRule(Nm.of([10, 10, 10]), per_section=False)
    labels = fragments(affinities, rule)
    graph = region_edges(affinities, labels, Offsets())
    sizes = fragment_sizes(labels)
    tree = mean_affinity_tree(graph)
    segments = tree.cut(0.6, sizes).apply(labels)
    dense = np.unique(labels, return_inverse=True)[1].reshape(SHAPE).astype(np.uint64) + 1
    small = np.unique(truth, return_inverse=True)[1].reshape(SHAPE) + 1
    small_segments = np.unique(segments, return_inverse=True)[1].reshape(SHAPE) + 1

    def agglomerated() -> MergeTree:
        return mean_affinity_tree(region_edges(affinities, labels, Offsets()))

    print(f"{SHAPE} voxels, {len(sizes)} fragments, {len(graph)} edges; one core")
    print(f"{'':<28}{'Mvox/s':>8}{'  faster than'}")
    compare(
        "fragments",
        lambda: fragments(affinities, rule),
        lambda: flooding_fragments(affinities, per_section=False),
        "flooding (scikit-image)",
    )
    compare(
        "graph and merge tree",
        agglomerated,
        lambda: list(waterz_segmentations(affinities, dense, [0.6])),
        "waterz, one threshold",
    )
    compare(
        "VOI and ARAND",
        lambda: Scores.of(Contingency.count(segments, truth)),
        lambda: skimage_scores(small_segments, small),
        "scikit-image",
    )
    compare("relabelling", lambda: tree.cut(0.6, sizes).apply(labels), None)


if __name__ == "__main__":
    main()

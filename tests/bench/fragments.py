"""Our fragments against the flooding watershed of the whole volume, on the real probability maps.

    python -m tests.bench.fragments ../shared/data

Both are agglomerated by mean affinity; VOI and ARAND are those of the best threshold of the sweep.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.geometry import Nm, Offsets
from pipeline.segment.affinities import affinities_from_interior
from pipeline.segment.agglomerate import mean_affinity_tree
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, fragments
from pipeline.segment.whole import flooding_fragments

THRESHOLDS = [*np.arange(0.05, 0.95, 0.025), *np.arange(0.95, 0.996, 0.005)]


def gala(folder: Path) -> tuple[np.ndarray, np.ndarray, FragmentRule]:
    with h5py.File(folder / "gala_train.h5") as file:
        interior = 1 - file["volumes/boundary_probability"][:]
        truth = file["volumes/labels/neuron_ids"][:].astype(np.uint64)
    rule = FragmentRule(Nm.of([10, 10, 10]), per_section=False)
    return affinities_from_interior(interior, Offsets()), truth, rule


def snemi(folder: Path) -> tuple[np.ndarray, np.ndarray, FragmentRule]:
    with h5py.File(folder / "snemi_mini.h5") as file:
        interior = file["volumes/interior_probability"][:] / np.float32(255)
        truth = file["volumes/labels/neuron_ids"][:].astype(np.uint64)
    truth[truth == 1] = 0
    rule = FragmentRule(Nm.of([30, 6, 6]), per_section=True)
    return affinities_from_interior(interior, Offsets()), truth, rule


def best(affinities: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> tuple[Scores, float]:
    """The best scores of the sweep, and their threshold."""
    tree = mean_affinity_tree(region_edges(affinities, labels, Offsets()))
    sizes, table = fragment_sizes(labels), Contingency.count(labels, truth)
    scored = [(Scores.of(table.relabel(tree.cut(t, sizes))), float(t)) for t in THRESHOLDS]
    return min(scored, key=lambda pair: pair[0].voi)


def main(folder: Path) -> None:
    methods: dict[str, Callable[[np.ndarray, FragmentRule], np.ndarray]] = {
        "local basins": fragments,
        "flooding": lambda values, rule: flooding_fragments(values, rule.per_section),
    }
    heads = f"{'data':<7}{'fragments':<14}{'count':>6}{'VOI split':>11}{'merge':>8}"
    print(f"{heads}{'VOI':>8}{'ARAND':>8}{'at':>7}{'s':>7}")
    for name, load in (("gala", gala), ("snemi", snemi)):
        affinities, truth, rule = load(folder)
        for method, compute in methods.items():
            compute(affinities, rule)  # compiled now
            started = time.perf_counter()
            labels = compute(affinities, rule)
            seconds = time.perf_counter() - started
            scores, threshold = best(affinities, truth, labels)
            print(
                f"{name:<7}{method:<14}{len(np.unique(labels)):>6}{scores.voi_split:>11.3f}"
                f"{scores.voi_merge:>8.3f}{scores.voi:>8.3f}{scores.arand:>8.3f}"
                f"{threshold:>7.3f}{seconds:>7.2f}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

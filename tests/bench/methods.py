"""Every method of agglomeration on the affinities of a run, each at its best parameter.

    python -m tests.bench.methods RUN.yaml [KEY=VALUE ...] [--runs RUNS]

Parameters are chosen on the very region that is scored, the run's own evaluation region: the table
says how good a method can be there, not how good it will be elsewhere. "Window" is how wide the
range of parameters around the best is in which VOI is within 0.05 bits of it; of a share of the
range from 0 to 1 a flat optimum has much.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from pipeline.config import load_settings
from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores
from pipeline.geometry import ZYX, BlockGrid, Roi, describe, slices
from pipeline.graph import Assignment, MergeTree
from pipeline.plan import make_plan
from pipeline.segment.agglomerate import mean_affinity_tree, quantile_tree
from pipeline.segment.domains import decomposed_multicut
from pipeline.segment.edges import contact_histograms, fragment_sizes, region_edges
from pipeline.segment.fragments import fragments
from pipeline.segment.multicut import (
    Weighting,
    edge_costs,
    lifted_multicut_segments,
    multicut_energy,
    multicut_segments,
)
from pipeline.segment.mutex import mutex_watershed_segments
from pipeline.segment.sections import multicut_on, section_fragments
from pipeline.segment.voxel_mutex import voxel_mutex_watershed
from pipeline.segment.whole import SCORINGS, flooding_fragments, waterz_segmentations
from workers.reference import WholeVolume

PARAMETERS = tuple(np.round(np.arange(0.01, 1, 0.01), 2).tolist())
"""Thresholds and betas."""
WITHIN_BITS = 0.05
DOMAINS_VX = (40, 64, 100)


@dataclass(frozen=True)
class Curve:
    """Scores of a method for each of its parameters; one without any has one score."""

    method: str
    scores: list[Scores]
    seconds: float

    def row(self) -> str:
        voi = np.array([each.voi for each in self.scores])
        best = int(voi.argmin())
        chosen = self.scores[best]
        parameter = window = "-"
        if len(voi) > 1:
            parameter = f"{PARAMETERS[best]:.2f}"
            worse = np.flatnonzero(voi > voi[best] + WITHIN_BITS)
            first = max([n + 1 for n in worse if n < best], default=0)
            last = min([n - 1 for n in worse if n > best], default=len(voi) - 1)
            window = f"{PARAMETERS[last] - PARAMETERS[first]:.2f}"
        return (
            f"{self.method:<40}{chosen.voi_split:>7.3f} +{chosen.voi_merge:>6.3f}"
            f"{chosen.voi:>7.3f}{chosen.arand:>7.3f}{parameter:>7}{window:>8}"
            f"{min(each.arand for each in self.scores):>12.3f}{self.seconds:>8.1f}"
        )


def curves(volume: WholeVolume) -> Iterable[Curve]:
    """One method after the other."""
    assert volume.truth is not None
    region, truth = volume.truth
    inside = slices(region, volume.roi.begin)
    affinities, offsets, valid = volume.affinities, volume.offsets, volume.valid

    def swept(name: str, scored: Callable[[], Iterable[Scores]]) -> Curve:
        started = time.perf_counter()
        return Curve(name, list(scored()), time.perf_counter() - started)

    def segmented(segmentations: Iterable[np.ndarray]) -> Iterable[Scores]:
        for labels in segmentations:
            found = np.where(valid, labels, np.uint64(0))[inside]
            yield Scores.of(Contingency.count(found, truth))

    labels = fragments(affinities, volume.rule, valid)
    sizes, graph = fragment_sizes(labels), region_edges(affinities, labels, offsets)
    table = Contingency.count(labels[inside], truth)

    def assigned(assignments: Iterable[Assignment]) -> Iterable[Scores]:
        return (Scores.of(table.relabel(each)) for each in assignments)

    def cut(tree: MergeTree) -> Iterable[Scores]:
        return assigned(tree.cut(threshold, sizes) for threshold in PARAMETERS)

    yield swept("mean affinity", lambda: cut(mean_affinity_tree(graph)))
    histograms = contact_histograms(affinities, labels)
    for percent in (50, 75, 85):
        tree = partial(quantile_tree, histograms, percent)
        yield swept(f"quantile {percent} %", lambda tree=tree: cut(tree()))
    weightings: tuple[Weighting, ...] = get_args(Weighting)
    for weighting in weightings:
        yield swept(
            f"multicut, weighting {weighting}",
            lambda w=weighting: assigned(
                multicut_segments(graph, sizes, beta, w) for beta in PARAMETERS
            ),
        )
    if graph.long_count.any():
        for weighting in weightings[:2]:
            yield swept(
                f"lifted multicut, weighting {weighting}",
                lambda w=weighting: assigned(
                    lifted_multicut_segments(graph, sizes, beta, w) for beta in PARAMETERS
                ),
            )
        yield swept(
            "mutex watershed of the graph",
            lambda: assigned([mutex_watershed_segments(graph, sizes)]),
        )
        for strides in ((1, 1, 1), (1, 10, 10)):
            yield swept(
                f"mutex watershed of voxels, strides {strides}",
                lambda s=strides: segmented([voxel_mutex_watershed(affinities, offsets, s)]),
            )
    superpixels = section_fragments(affinities)
    yield swept(
        "LMC (sections; the reference: beta 0.5)",
        lambda: segmented(
            multicut_on(affinities, superpixels, beta).apply(superpixels) for beta in PARAMETERS
        ),
    )
    flooded = flooding_fragments(affinities, volume.rule.per_section)
    for name in ("mean", "quantile_50", "quantile_75", "quantile_85"):
        yield swept(
            f"waterz {name}, flooding fragments",
            lambda n=name: segmented(
                waterz_segmentations(affinities, flooded, PARAMETERS, SCORINGS[n])
            ),
        )


def print_domains(volume: WholeVolume) -> None:
    """Energies of multicuts solved in domains, against those of one solution."""
    labels = fragments(volume.affinities, volume.rule, volume.valid)
    graph = region_edges(volume.affinities, labels, volume.offsets)
    sizes = fragment_sizes(labels)
    total = Roi((0, 0, 0), labels.shape)
    print(f"\n{'multicut in domains':<26}{'domains':>8}{'energy':>12}{'above one solution':>20}")
    for weighting in get_args(Weighting):
        for beta in (0.1, 0.2, 0.5):
            costs = edge_costs(graph, beta, weighting)
            one = multicut_energy(graph, costs, multicut_segments(graph, sizes, beta, weighting))
            for side in DOMAINS_VX:
                domains = BlockGrid(total, ZYX(side, side, side))
                segments = decomposed_multicut(graph, sizes.fragment, domains, beta, weighting)
                found = multicut_energy(graph, costs, segments)
                print(
                    f"{weighting:<11} beta {beta:.1f} {side:>4} vx{len(domains):>8}{found:>12.2f}"
                    f"{100 * (found - one) / (abs(one) or 1):>18.3f} %"
                )


def main(words: list[str]) -> None:
    runs = Path(words.pop(words.index("--runs") + 1)) if "--runs" in words else Path("runs")
    run_file, *changes = [word for word in words if word != "--runs"]
    plan = make_plan(load_settings(Path(run_file), changes), runs)
    volume = WholeVolume.of(plan)
    assert volume.truth is not None, "run.data.labels is needed"
    region, _ = volume.truth
    print(f"{plan.run.root.name}: {volume.affinities.shape} affinities; tuned and scored on")
    print(f"{describe(region, volume.rule.voxel_size_nm)}\n")
    print(
        f"{'method':<40}{'VOI split + merge':>15}{'VOI':>5}{'ARAND':>7}{'at':>7}{'window':>8}"
        f"{'least ARAND':>12}{'s':>8}"
    )
    for curve in curves(volume):
        print(curve.row(), flush=True)
    print_domains(volume)


if __name__ == "__main__":
    main(sys.argv[1:])

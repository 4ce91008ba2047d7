"""Which segments the fragments become: one rule for every method of agglomeration.

Every method makes a merge tree. That of a hierarchical one is cut at a threshold; a partition, as a
multicut finds it, is a tree whose merges all have score 0, and made anew for another beta.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipeline.geometry import BlockGrid
from pipeline.graph import Assignment, FragmentSizes, Histograms, MergeTree, RegionGraph
from pipeline.segment.agglomerate import mean_affinity_tree, quantile_tree
from pipeline.segment.domains import decomposed_multicut
from pipeline.segment.multicut import Weighting, lifted_multicut_segments, multicut_segments
from pipeline.segment.mutex import mutex_watershed_segments
from pipeline.segment.small import merge_small

Method = Literal["mean_affinity", "quantile", "multicut", "lifted_multicut", "mutex_watershed"]
WHOLE = np.inf
"""The threshold that cuts nothing off."""
DECIDES_TREE: Mapping[Method, tuple[str, ...]] = {
    "mean_affinity": (),
    "quantile": ("quantile",),
    "multicut": ("beta", "weighting"),
    "lifted_multicut": ("beta", "weighting"),
    "mutex_watershed": (),
}
"""Settings that a method makes its tree by."""


@dataclass(frozen=True)
class Rule:
    """A method and its settings; those that it does not use have no effect."""

    method: Method = "mean_affinity"
    threshold: float = 0.5
    """Of mean affinity and quantile."""
    quantile: int = 50
    """In percent."""
    beta: float = 0.5
    """Of multicut and lifted multicut, as ``weighting``."""
    weighting: Weighting = "none"
    domains: BlockGrid | None = None
    """Of multicut: solve it box by box."""
    merge_small_vx: int = 0
    dust_vx: int = 0

    @property
    def parameter(self) -> Literal["threshold", "beta"] | None:
        """What a sweep varies: how readily this method merges."""
        if self.method in ("mean_affinity", "quantile"):
            return "threshold"
        return "beta" if "beta" in DECIDES_TREE[self.method] else None

    @property
    def decides_tree(self) -> Mapping[str, Any]:
        """The settings that the tree depends on, as plain values."""
        used = {name: getattr(self, name) for name in DECIDES_TREE[self.method]}
        if self.method == "multicut" and self.domains is not None:
            used["domain_vx"] = list(self.domains.block_vx)
        return {"method": self.method} | used

    @property
    def decides_segments(self) -> Mapping[str, Any]:
        """The settings that lead from the tree to segments, as plain values."""
        used = {"merge_small_vx": self.merge_small_vx, "dust_vx": self.dust_vx}
        return used | ({"threshold": self.threshold} if self.parameter == "threshold" else {})


def merge_tree(
    rule: Rule, graph: RegionGraph, sizes: FragmentSizes, histograms: Histograms | None = None
) -> MergeTree:
    """What a method makes of a region graph.

    Args:
        sizes: all fragments, also those that touch none.
        histograms: of the same contacts; quantile needs them.
    """
    if rule.method == "mean_affinity":
        return mean_affinity_tree(graph)
    if rule.method == "quantile":
        assert histograms is not None
        return quantile_tree(histograms, rule.quantile)
    return MergeTree.of_partition(_partition(rule, graph, sizes))


def _partition(rule: Rule, graph: RegionGraph, sizes: FragmentSizes) -> Assignment:
    if rule.method == "mutex_watershed":
        return mutex_watershed_segments(graph, sizes)
    if rule.method == "lifted_multicut":
        return lifted_multicut_segments(graph, sizes, rule.beta, rule.weighting)
    if rule.domains is None:
        return multicut_segments(graph, sizes, rule.beta, rule.weighting)
    return decomposed_multicut(graph, sizes.fragment, rule.domains, rule.beta, rule.weighting)


def segments_of(
    rule: Rule, tree: MergeTree, sizes: FragmentSizes, graph: RegionGraph | None = None
) -> Assignment:
    """Segments of a tree: its cut, small ones joined to neighbours, dust dropped.

    Args:
        tree: of this rule; its threshold may be another.
        graph: needed where small segments are merged.

    Returns:
        A row for each fragment; a segment is named after its smallest fragment.
    """
    threshold = rule.threshold if rule.parameter == "threshold" else WHOLE
    segments = tree.cut(threshold, sizes)
    if rule.merge_small_vx:
        assert graph is not None
        segments = merge_small(graph, sizes, segments, rule.merge_small_vx)
    return segments.without_dust(sizes, rule.dust_vx)


def segments_at(
    rule: Rule,
    values: Iterable[float],
    tree: MergeTree,
    sizes: FragmentSizes,
    graph: RegionGraph | None = None,
) -> Iterator[tuple[float, Assignment]]:
    """Segments at other values of ``rule.parameter``, each with its value.

    Args:
        tree: of this rule.
        graph: needed for other betas, and where small segments are merged.
    """
    for value in values:
        if rule.parameter == "threshold":
            other = replace(rule, threshold=value)
        else:
            assert rule.parameter == "beta"
            assert graph is not None
            other = replace(rule, beta=value)
            tree = merge_tree(other, graph, sizes)
        yield value, segments_of(other, tree, sizes, graph)

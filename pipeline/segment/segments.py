"""Which segments the fragments become: one rule for every method of agglomeration.

Every method makes a merge tree. That of a hierarchical one is cut at a threshold; a partition, as a
multicut finds it, is a tree whose merges all have score 0, and made anew for another beta. Methods
of other distributions are found by their entry points, and are all the same to what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pipeline.errors import ExtensionError
from pipeline.extensions import Extensions, no_options
from pipeline.geometry import BlockGrid
from pipeline.graph import Assignment, FragmentSizes, Histograms, MergeTree, RegionGraph
from pipeline.segment.agglomerate import mean_affinity_tree, quantile_tree
from pipeline.segment.domains import decomposed_multicut
from pipeline.segment.multicut import Weighting, lifted_multicut_segments, multicut_segments
from pipeline.segment.mutex import mutex_watershed_segments
from pipeline.segment.small import merge_small
from pipeline.segment.solvers import Solver

WHOLE = np.inf
"""The threshold that cuts nothing off."""


@dataclass(frozen=True)
class Evidence:
    """What a method sees."""

    graph: RegionGraph
    sizes: FragmentSizes
    """All fragments, also those that touch none."""
    histograms: Histograms | None = None
    """Of the same contacts, if the method asked for them."""


@dataclass(frozen=True)
class Method:
    """A way from the region graph to segments."""

    segments: Callable[[Evidence, Rule], MergeTree | Assignment]
    """A merge tree, if thresholds are its parameter; else a partition: a row for each fragment, a
    segment is named after its smallest. The same for the same evidence, bit for bit."""
    parameter: Literal["threshold", "beta"] | None
    """How readily it merges: what a sweep varies. A threshold cuts the tree, and for each beta the
    method is called again."""
    settings: tuple[str, ...] = ()
    """Fields of ``Rule`` that it looks at, besides its parameter and ``options``."""
    long_range: bool = False
    """It needs affinities of long-range offsets."""
    histograms: bool = False
    """It needs one more pass, which counts them; not with betas."""
    revision: int = 0
    """Of an extension: raised when the same evidence and settings give other segments. The stage
    counts those of the built-in methods."""
    options: Callable[..., object] = no_options
    """Of an extension: is called with ``Rule.options`` as keywords, and raises ValueError or
    TypeError where they are wrong."""

    def __post_init__(self) -> None:
        if self.histograms and self.parameter == "beta":
            raise ValueError("a method with betas gets no histograms")


@dataclass(frozen=True)
class Rule:
    """A method and its settings; those that it does not use have no effect."""

    method: str = "mean_affinity"
    threshold: float = 0.5
    """Of mean affinity and quantile."""
    quantile: int = 50
    """In percent."""
    beta: float = 0.5
    """Of multicut and lifted multicut, as ``weighting`` and ``solver``."""
    weighting: Weighting = "none"
    solver: Solver = "bioimage_cpp"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of a method that is an extension."""
    domains: BlockGrid | None = None
    """Of multicut: solve it box by box."""
    merge_small_vx: int = 0
    dust_vx: int = 0

    @property
    def parameter(self) -> Literal["threshold", "beta"] | None:
        """What a sweep varies."""
        return method_named(self.method).parameter

    @property
    def decides_tree(self) -> Mapping[str, Any]:
        """The settings that the tree depends on, as plain values."""
        names = method_named(self.method).settings
        used: dict[str, Any] = {"beta": self.beta} if self.parameter == "beta" else {}
        used |= {name: getattr(self, name) for name in names}
        if self.method == "multicut" and self.domains is not None:
            used["domain_vx"] = list(self.domains.block_vx)
        if self.options:
            used["options"] = dict(self.options)
        return {"method": self.method} | used

    @property
    def revisions(self) -> Mapping[str, int]:
        """Of what is not this project's, and decides the tree all the same."""
        if self.method in BUILT_IN:
            return {}
        return {f"revision of {self.method}": method_named(self.method).revision}

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
    made = method_named(rule.method).segments(Evidence(graph, sizes, histograms), rule)
    if rule.method not in BUILT_IN:
        _check_made(made, rule, sizes)
    return made if isinstance(made, MergeTree) else MergeTree.of_partition(made)


def _mean_affinity(found: Evidence, rule: Rule) -> MergeTree:
    return mean_affinity_tree(found.graph)


def _quantile(found: Evidence, rule: Rule) -> MergeTree:
    assert found.histograms is not None
    return quantile_tree(found.histograms, rule.quantile)


def _multicut(found: Evidence, rule: Rule) -> Assignment:
    how = rule.beta, rule.weighting, rule.solver
    if rule.domains is None:
        return multicut_segments(found.graph, found.sizes, *how)
    return decomposed_multicut(found.graph, found.sizes.fragment, rule.domains, *how)


def _lifted_multicut(found: Evidence, rule: Rule) -> Assignment:
    how = rule.beta, rule.weighting, rule.solver
    return lifted_multicut_segments(found.graph, found.sizes, *how)


def _mutex_watershed(found: Evidence, rule: Rule) -> Assignment:
    return mutex_watershed_segments(found.graph, found.sizes)


BUILT_IN: Mapping[str, Method] = {
    "mean_affinity": Method(_mean_affinity, "threshold"),
    "quantile": Method(_quantile, "threshold", ("quantile",), histograms=True),
    "multicut": Method(_multicut, "beta", ("weighting", "solver")),
    "lifted_multicut": Method(_lifted_multicut, "beta", ("weighting", "solver"), long_range=True),
    "mutex_watershed": Method(_mutex_watershed, None, long_range=True),
}
AGGLOMERATIONS = Extensions("agglomeration", Method, tuple(BUILT_IN))


def method_named(name: str) -> Method:
    """A method, built in or installed.

    Raises:
        ExtensionError: there is none of this name, or it cannot be loaded.
    """
    return BUILT_IN[name] if name in BUILT_IN else AGGLOMERATIONS.named(name)


def _check_made(made: object, rule: Rule, sizes: FragmentSizes) -> None:
    """Raise unless an extension made what it declares."""
    if rule.parameter == "threshold":
        expected = "a MergeTree of fragments, each merged once, with scores that never fall"
        sound = (
            isinstance(made, MergeTree)
            and bool(np.isin(np.concatenate([made.a, made.b]), sizes.fragment).all())
            and len(np.unique(made.b)) == len(made)
            and bool((np.diff(made.score) >= 0).all())
        )
    else:
        expected = "an Assignment of all fragments, each segment named after its smallest"
        sound = isinstance(made, Assignment) and np.array_equal(made.fragment, sizes.fragment)
        if isinstance(made, Assignment) and sound:
            _, first, segment = np.unique(made.segment, return_index=True, return_inverse=True)
            sound = np.array_equal(made.segment, made.fragment[first][segment])
    if not sound:
        raise ExtensionError(
            f"the agglomeration {rule.method} must make {expected}; it made something else\n"
            "Mend it: pipeline.graph says what these tables hold."
        )


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

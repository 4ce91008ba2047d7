"""A package with those names and signatures of nifty that ``nifty_solvers`` calls.

nifty is on conda-forge only. Where it is missing, this proves that our calls are what nifty's
bindings take: positions and names of arguments, dtypes, shapes, and that costs of a pair add up.
The answers are those of bioimage-cpp. Where nifty is installed, the same tests are run on it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.segment import bioimage_solvers

MODULES = (
    "nifty",
    "nifty.graph",
    "nifty.graph.opt",
    "nifty.graph.opt.multicut",
    "nifty.graph.opt.lifted_multicut",
)
Solve = Callable[..., np.ndarray]


class Graph:
    """nifty.graph.UndirectedGraph; an edge is known by the place it was inserted at."""

    def __init__(self, numberOfNodes: int) -> None:
        assert isinstance(numberOfNodes, int)
        self.nodes = numberOfNodes
        self.ends = np.zeros((0, 2), np.int64)

    def insertEdges(self, uvs: np.ndarray) -> None:
        self.ends = pairs_of(uvs)
        # nifty gives a pair that is there already no new number, and costs would slip.
        assert len(np.unique(self.ends, axis=0)) == len(self.ends)


class Objective:
    """Both of nifty's objectives; each has the factories of its own module."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.costs: dict[tuple[int, int], float] = {}

    def setCosts(self, uv: np.ndarray, weight: np.ndarray, overwrite: bool = False) -> None:
        assert weight.dtype == np.float64
        assert len(uv) == len(weight)
        for pair, cost in zip(pairs_of(uv).tolist(), weight.tolist(), strict=True):
            before = 0.0 if overwrite else self.costs.get(tuple(pair), 0.0)
            self.costs[tuple(pair)] = before + cost

    def problem(self) -> tuple[Any, ...]:
        """Nodes, edges, their costs; pairs that are no edges, theirs."""
        edges = [tuple(pair) for pair in self.graph.ends.tolist()]
        lifted = sorted(self.costs.keys() - set(edges))
        costs = (np.array([self.costs[pair] for pair in some]) for some in (edges, lifted))
        own, above = costs
        ends = np.array(lifted, np.int64).reshape(-1, 2)
        return self.graph.nodes, self.graph.ends, own, ends, above

    def factory(self, solve: Solve, arguments: slice, starts: bool) -> Factory:
        return Factory(solve, arguments, starts)


class MulticutObjective(Objective):
    def greedyAdditiveFactory(self) -> Factory:
        return self.factory(bioimage_solvers.greedy, slice(3), starts=False)

    def kernighanLinFactory(self) -> Factory:
        return self.factory(bioimage_solvers.moved, slice(3), starts=True)


class LiftedMulticutObjective(Objective):
    def liftedMulticutGreedyAdditiveFactory(self) -> Factory:
        return self.factory(bioimage_solvers.lifted_greedy, slice(5), starts=False)

    def liftedMulticutKernighanLinFactory(self) -> Factory:
        return self.factory(bioimage_solvers.lifted_moved, slice(5), starts=True)


class Factory:
    def __init__(self, solve: Solve, arguments: slice, starts: bool) -> None:
        self.solve, self.arguments, self.starts = solve, arguments, starts

    def create(self, objective: Objective) -> Factory:
        self.problem = objective.problem()[self.arguments]
        return self

    def optimize(self, visitor: None = None, nodeLabels: np.ndarray | None = None) -> np.ndarray:
        assert visitor is None
        if not self.starts:
            return self.solve(*self.problem).astype(np.uint64)
        assert nodeLabels is not None, "begins with all nodes in one cluster"
        assert nodeLabels.dtype == np.uint64
        assert nodeLabels.shape == (self.problem[0],)
        nodeLabels[:] = self.solve(*self.problem, nodeLabels.astype(np.int64))  # nifty does too
        return nodeLabels


def pairs_of(uvs: np.ndarray) -> np.ndarray:
    assert uvs.dtype == np.uint64
    assert uvs.ndim == 2
    assert uvs.shape[1] == 2
    return uvs.astype(np.int64)


def multicutObjective(graph: Graph, weights: np.ndarray) -> MulticutObjective:
    assert weights.shape == (len(graph.ends),)
    objective = MulticutObjective(graph)
    objective.setCosts(graph.ends.astype(np.uint64), weights)
    return objective


@contextmanager
def nifty_stood_in() -> Iterator[None]:
    """Let ``import nifty`` find this, for a while."""
    modules = {name: ModuleType(name) for name in MODULES}
    for name, module in modules.items():
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    modules["nifty.graph"].undirectedGraph = Graph  # type: ignore[attr-defined]
    multicut, lifted = (modules[name] for name in MODULES[-2:])
    multicut.multicutObjective = multicutObjective  # type: ignore[attr-defined]
    lifted.liftedMulticutObjective = LiftedMulticutObjective  # type: ignore[attr-defined]
    with without_nifty():
        sys.modules.update(modules)
        yield


@contextmanager
def without_nifty() -> Iterator[None]:
    """Forget nifty and what imported it; afterwards all is as before."""
    ours = "pipeline.segment.nifty_solvers"
    names = [n for n in sys.modules if n == ours or n.split(".")[0] == "nifty"]
    before = {name: sys.modules.pop(name) for name in names}
    segment = sys.modules["pipeline.segment"]
    vars(segment).pop("nifty_solvers", None)
    try:
        yield
    finally:
        for name in (ours, *MODULES):
            sys.modules.pop(name, None)
        vars(segment).pop("nifty_solvers", None)
        sys.modules.update(before)
        if ours in before:
            segment.nifty_solvers = before[ours]  # type: ignore[attr-defined]

"""What ``segment.solvers`` needs of nifty (conda-forge). Arguments as in ``bioimage_solvers``.

nifty is imported with this module: ``solvers.library`` says what to do where that fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nifty.graph import undirectedGraph
from nifty.graph.opt.lifted_multicut import liftedMulticutObjective
from nifty.graph.opt.multicut import multicutObjective


def greedy(num_nodes: int, ends: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Greedy additive contraction."""
    objective = multicutObjective(_graph(num_nodes, ends), costs)
    return _labels(objective.greedyAdditiveFactory().create(objective).optimize())


def moved(num_nodes: int, ends: np.ndarray, costs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Kernighan-Lin, from a partition on."""
    objective = multicutObjective(_graph(num_nodes, ends), costs)
    solver = objective.kernighanLinFactory().create(objective)
    # A copy: nifty writes its answer there.
    return _labels(solver.optimize(nodeLabels=labels.astype(np.uint64)))


def lifted_greedy(
    num_nodes: int, ends: np.ndarray, costs: np.ndarray, lifted: np.ndarray, above: np.ndarray
) -> np.ndarray:
    """Greedy additive contraction with lifted edges and their costs."""
    objective = _lifted(num_nodes, ends, costs, lifted, above)
    return _labels(objective.liftedMulticutGreedyAdditiveFactory().create(objective).optimize())


def lifted_moved(
    num_nodes: int,
    ends: np.ndarray,
    costs: np.ndarray,
    lifted: np.ndarray,
    above: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """Kernighan-Lin with lifted edges and their costs, from a partition on."""
    objective = _lifted(num_nodes, ends, costs, lifted, above)
    solver = objective.liftedMulticutKernighanLinFactory().create(objective)
    return _labels(solver.optimize(nodeLabels=labels.astype(np.uint64)))


def _graph(num_nodes: int, ends: np.ndarray) -> Any:
    graph = undirectedGraph(num_nodes)
    graph.insertEdges(ends.astype(np.uint64))
    return graph


def _lifted(
    num_nodes: int, ends: np.ndarray, costs: np.ndarray, lifted: np.ndarray, above: np.ndarray
) -> Any:
    objective = liftedMulticutObjective(_graph(num_nodes, ends))
    # Costs of a pair add up, also those of a lifted edge over an edge.
    objective.setCosts(ends.astype(np.uint64), costs)
    objective.setCosts(lifted.astype(np.uint64), above)
    return objective


def _labels(found: np.ndarray) -> np.ndarray:
    return np.array(found, np.int64)

"""What ``segment.solvers`` needs of bioimage-cpp. Problems come in its canonical form.

Arguments: int64 ``(E, 2)`` edges and their float64 costs; labels as int64 ``(num_nodes,)``.
"""

from __future__ import annotations

import numpy as np
from bioimage_cpp import graph as library


def greedy(num_nodes: int, ends: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Greedy additive contraction."""
    objective = library.multicut.MulticutObjective(graph_of(num_nodes, ends), costs)
    return _labels(library.multicut.GreedyAdditiveMulticut().optimize(objective))


def moved(num_nodes: int, ends: np.ndarray, costs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Kernighan-Lin, from a partition on; it may end above where it began."""
    objective = library.multicut.MulticutObjective(graph_of(num_nodes, ends), costs)
    objective.labels = labels.astype(np.uint64)
    return _labels(library.multicut.KernighanLinMulticut().optimize(objective))


def lifted_greedy(
    num_nodes: int, ends: np.ndarray, costs: np.ndarray, lifted: np.ndarray, above: np.ndarray
) -> np.ndarray:
    """Greedy additive contraction with lifted edges and their costs."""
    objective = _lifted(num_nodes, ends, costs, lifted, above)
    solver = library.lifted_multicut.LiftedGreedyAdditiveMulticut()
    return _labels(solver.optimize(objective))


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
    objective.labels = labels.astype(np.uint64)
    solver = library.lifted_multicut.LiftedKernighanLinMulticut()
    return _labels(solver.optimize(objective))


def graph_of(num_nodes: int, ends: np.ndarray) -> library.UndirectedGraph:
    return library.UndirectedGraph.from_unique_edges(num_nodes, ends.astype(np.uint64))


def _lifted(
    num_nodes: int, ends: np.ndarray, costs: np.ndarray, lifted: np.ndarray, above: np.ndarray
) -> library.lifted_multicut.LiftedMulticutObjective:
    return library.lifted_multicut.LiftedMulticutObjective(
        graph_of(num_nodes, ends),
        costs,
        lifted_uvs=lifted.astype(np.uint64),
        lifted_costs=above,
    )


def _labels(found: np.ndarray) -> np.ndarray:
    return np.array(found, np.int64)

"""``run.agglomerate.method: single_linkage``: merges along the strongest contacts, one by one.

Unlike mean_affinity it does not look at a contact again when what it joins has grown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.graph import MergeTree
from pipeline.segment.segments import Evidence, Method, Rule


@dataclass(frozen=True)
class Options:
    min_contacts: int = 1
    """Fewer pairs of voxels are no contact."""

    def __post_init__(self) -> None:
        if type(self.min_contacts) is not int or self.min_contacts < 1:
            raise ValueError(f"min_contacts must be a number from 1, found {self.min_contacts}")


def single_linkage(found: Evidence, rule: Rule) -> MergeTree:
    enough = found.graph.direct_count >= Options(**rule.options).min_contacts
    graph = found.graph.rows(enough)
    score = 1 - graph.direct_sum / (255.0 * graph.direct_count)
    parent = {int(fragment): int(fragment) for fragment in found.sizes.fragment}

    def root(fragment: int) -> int:
        while parent[fragment] != fragment:
            parent[fragment] = fragment = parent[parent[fragment]]
        return fragment

    merges = []
    for row in np.argsort(score, kind="stable"):  # ties go to the smallest edge: bits repeat
        a, b = sorted((root(int(graph.u[row])), root(int(graph.v[row]))))
        if a != b:
            parent[b] = a
            merges.append((a, b, score[row]))
    a, b, scores = zip(*merges, strict=True) if merges else ((), (), ())
    return MergeTree(np.array(a, np.uint64), np.array(b, np.uint64), np.array(scores, np.float64))


SINGLE_LINKAGE = Method(single_linkage, "threshold", revision=1, options=Options)

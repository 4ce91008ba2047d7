"""Scores by loops over voxels: slow, and obviously right. Twins of ``pipeline.evaluate``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tests.oracles import plus, voxels

Voxel = tuple[int, ...]
Edge = tuple[int, int]


def contingency(segments: np.ndarray, truth: np.ndarray) -> dict[Edge, int]:
    """Voxels of each pair of labels, sorted."""
    pairs = zip(segments.ravel().tolist(), truth.ravel().tolist(), strict=True)
    return dict(sorted(Counter(pairs).items()))


@dataclass
class Overlap:
    """What a segment shares with a true object."""

    voxels: int
    begin: Voxel
    end: Voxel


def overlaps(
    segments: np.ndarray, truth: np.ndarray, origin: Sequence[int] = (0, 0, 0)
) -> dict[Edge, Overlap]:
    """Voxels and bounding box of each pair of labels, sorted, voxel by voxel."""
    found: dict[Edge, Overlap] = {}
    for voxel in voxels(segments.shape):
        place = plus(voxel, origin)
        after = plus(place, (1, 1, 1))
        pair = (int(segments[voxel]), int(truth[voxel]))
        here = found.setdefault(pair, Overlap(0, place, after))
        here.voxels += 1
        here.begin = tuple(map(min, here.begin, place))
        here.end = tuple(map(max, here.end, after))
    return dict(sorted(found.items()))


def near_border(truth: np.ndarray, border_nm: float, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """CREMI's mask, by SciPy's exact distance transform of each section."""
    near = np.zeros(truth.shape, bool)
    for z, section in enumerate(truth):
        around = np.pad(section, 1, mode="edge")
        steps = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        inside = np.logical_and.reduce([section == neighbour for neighbour in steps])
        if not inside.all():
            sides = [float(side) for side in voxel_size_nm[1:]]
            distance = ndimage.distance_transform_edt(inside, sampling=sides)
            near[z] = distance <= border_nm * (1 + 1e-12)
    return near


def conventions(segments: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """What programs say of two small arrays, by their definitions: every voxel, every pair."""
    s, t = (labels.ravel().astype(object) for labels in (segments, truth))
    known, found = t != 0, s != 0
    bits = entropies(s[known], t[known])
    nats = entropies(s[known], t[known], base=np.e)
    pairs = rand_pairs(s[known], t[known])
    together, in_segment, in_truth = (count - known.sum() for count in pairs)
    whole = in_segment + in_truth
    arand = {"arand": 1 - 2 * together / whole if whole else 0.0}
    # As the SNEMI3D script: what is in no segment counts once, over all voxels.
    both = known & found
    alone = np.count_nonzero(known & ~found) / len(s)
    snemi_together, snemi_in_segment, _ = rand_pairs(s[both], t[both])
    precision = (snemi_together + alone) / (snemi_in_segment + alone)
    recall = (snemi_together + alone) / pairs[2]
    snemi = {"arand": 1 - 2 * precision * recall / (precision + recall)}
    return {
        "scikit-image": bits | arand,
        "cremi": bits | snemi | {"cremi_score": (bits["voi"] * snemi["arand"]) ** 0.5},
        "gala": entropies(s[both], t[both]) | snemi,
        "funlib": bits | {"rand_split": pairs[0] / pairs[2], "rand_merge": pairs[0] / pairs[1]},
        "natural logarithm": nats | arand,
    }


def entropies(segments: np.ndarray, truth: np.ndarray, base: float = 2) -> dict[str, float]:
    """VOI as the mean over voxels of the surprise at one label where the other is known."""
    pairs = list(zip(segments, truth, strict=True))
    split = [-np.log(np.mean(segments[truth == t] == s)) for s, t in pairs]
    merge = [-np.log(np.mean(truth[segments == s] == t)) for s, t in pairs]
    parts = [float(np.mean(part)) / np.log(base) for part in (split, merge)]
    return {"voi_split": parts[0], "voi_merge": parts[1], "voi": sum(parts)}


def rand_pairs(segments: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    """Ordered pairs of voxels, self-pairs too, that share both labels, a segment, an object."""
    same_segment = segments[:, None] == segments[None, :]
    same_object = truth[:, None] == truth[None, :]
    both = same_segment & same_object
    return int(both.sum()), int(same_segment.sum()), int(same_object.sum())

"""Slow twins of the pipeline, for whole volumes: obviously right, and only for tests.

They share definitions with the pipeline and no code. Ids are Python ints, tables are dictionaries,
sums are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
from scipy import ndimage

Voxel = tuple[int, ...]
Edge = tuple[int, int]


@dataclass
class Contact:
    """What joins two fragments."""

    direct_sum: int = 0
    direct_count: int = 0
    across_count: int = 0
    long_sum: int = 0
    long_count: int = 0


@dataclass(frozen=True)
class Merge:
    a: int
    b: int
    score: float


def voxels(shape: Sequence[int]) -> Iterator[Voxel]:
    """Every voxel, in the order of linear indices."""
    return product(*(range(n) for n in shape))


def plus(voxel: Voxel, offset: Sequence[int]) -> Voxel:
    return tuple(v + o for v, o in zip(voxel, offset, strict=True))


def is_in(voxel: Voxel, shape: Sequence[int]) -> bool:
    return all(0 <= v < n for v, n in zip(voxel, shape, strict=True))


def boundary(affinities: np.ndarray, per_section: bool) -> np.ndarray:
    """1 - the mean affinity of the pairs of each voxel, pair by pair."""
    shape = affinities.shape[1:]
    found = np.zeros(shape, np.float32)
    for voxel in voxels(shape):
        pairs = []
        for axis in range(1 if per_section else 0, 3):
            step = [int(axis == other) for other in range(3)]
            before, after = plus(voxel, [-s for s in step]), plus(voxel, step)
            if is_in(before, shape):
                pairs.append(int(affinities[(axis, *voxel)]))
            if is_in(after, shape):
                pairs.append(int(affinities[(axis, *after)]))
        if pairs:
            found[voxel] = np.float32(1) - np.float32(sum(pairs)) / np.float32(255 * len(pairs))
    return found


def heights(
    affinities: np.ndarray,
    voxel_size_nm: Sequence[float],
    per_section: bool,
    narrow_nm: float,
    wide_nm: float,
    wide_share: float,
) -> np.ndarray:
    """Heights of a whole volume, 0 to 1023. SciPy's Gaussian is the definition of smoothing."""
    raw = boundary(affinities, per_section)
    share = np.float32(wide_share)
    mixed = np.zeros(raw.shape, np.float32)
    for sigma_nm, weight in ((narrow_nm, np.float32(1) - share), (wide_nm, share)):
        sigma = [sigma_nm / float(size) for size in voxel_size_nm]
        if per_section:
            sections = [
                ndimage.gaussian_filter(s, sigma[1:], mode="nearest", truncate=4) for s in raw
            ]
            smooth = np.stack(sections)
        else:
            smooth = ndimage.gaussian_filter(raw, sigma, mode="nearest", truncate=4)
        mixed = mixed + weight * smooth
    return np.rint(np.clip(mixed, 0, 1) * np.float32(1023)).astype(np.uint16)


@dataclass(frozen=True)
class Watershed:
    labels: np.ndarray
    """uint64; one plus the smallest linear index of the bottom, 0 where not valid."""
    longest_chain: int
    """Most steps from a voxel to its bottom; a plateau is crossed in one."""
    widest_plateau: int
    """Largest side of the bounding box of a plateau."""


def watershed(heights: np.ndarray, valid: np.ndarray, in_plane: bool) -> Watershed:
    """Basins by the words of ``pipeline.segment.basins``, voxel by voxel over the whole volume."""
    shape = heights.shape
    height = {v: int(heights[v]) for v in voxels(shape) if valid[v]}
    number = {v: int(np.ravel_multi_index(v, shape)) for v in height}
    steps = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    if in_plane:
        steps = [step for step in steps if step[0] == 0]

    def neighbours(voxel: Voxel) -> list[Voxel]:
        return [n for n in (plus(voxel, step) for step in steps) if n in height]

    points_to: dict[Voxel, Voxel] = {}
    for voxel, own in height.items():
        lower = [n for n in neighbours(voxel) if height[n] < own]
        if lower:
            points_to[voxel] = min(lower, key=lambda n: (height[n], number[n]))

    is_flat = np.zeros(shape, bool)
    for voxel in height:
        is_flat[voxel] = voxel not in points_to
    structure = ndimage.generate_binary_structure(3, 1)
    if in_plane:
        structure[[0, 2]] = False
    plateaus, count = ndimage.label(is_flat, structure)
    members: dict[int, list[Voxel]] = {n: [] for n in range(1, count + 1)}
    for voxel in height:
        if is_flat[voxel]:
            members[int(plateaus[voxel])].append(voxel)
    bottom: dict[Voxel, int] = {}
    widest = 0
    for plateau in members.values():
        assert len({height[v] for v in plateau}) == 1, "flat neighbours have one height"
        widest = max(widest, *(max(c) - min(c) + 1 for c in zip(*plateau, strict=True)))
        drains = [
            n
            for v in plateau
            for n in neighbours(v)
            if n in points_to and height[n] == height[plateau[0]]
        ]
        if drains:
            points_to |= dict.fromkeys(plateau, min(drains, key=number.__getitem__))
        else:
            bottom |= dict.fromkeys(plateau, 1 + min(number[v] for v in plateau))

    labels, steps_to = dict(bottom), dict.fromkeys(bottom, 0)
    for voxel in height:
        path = [voxel]
        while path[-1] not in labels:
            path.append(points_to[path[-1]])
        label, steps_left = labels[path[-1]], steps_to[path[-1]]
        for distance, passed in enumerate(reversed(path)):
            labels[passed], steps_to[passed] = label, steps_left + distance
    found = np.zeros(shape, np.uint64)
    for voxel, label in labels.items():
        found[voxel] = label
    return Watershed(found, max(steps_to.values(), default=0), widest)


def region_edges(
    affinities: np.ndarray, fragments: np.ndarray, offsets: Sequence[Sequence[int]]
) -> dict[Edge, Contact]:
    """Contacts by nested loops over channels and voxels, sorted by edge."""
    edges: dict[Edge, Contact] = {}
    shape = fragments.shape
    ids = fragments.tolist()  # Python ints, and much faster to index
    values = affinities.tolist()
    for channel, offset in enumerate(offsets):
        for z, y, x in voxels(shape):
            oz, oy, ox = plus((z, y, x), offset)
            if not is_in((oz, oy, ox), shape):
                continue
            one, other = ids[z][y][x], ids[oz][oy][ox]
            if one == other or one == 0 or other == 0:
                continue
            contact = edges.setdefault((min(one, other), max(one, other)), Contact())
            if channel < 3:
                contact.direct_sum += values[channel][z][y][x]
                contact.direct_count += 1
                contact.across_count += channel == 0
            else:
                contact.long_sum += values[channel][z][y][x]
                contact.long_count += 1
    return dict(sorted(edges.items()))


def histograms(affinities: np.ndarray, fragments: np.ndarray) -> dict[Edge, dict[int, int]]:
    """How many direct contacts of each edge have which affinity, by nested loops; sorted."""
    found: dict[Edge, Counter[int]] = {}
    for axis, voxel in product(range(3), voxels(fragments.shape)):
        below = plus(voxel, [-int(axis == other) for other in range(3)])
        if not is_in(below, fragments.shape):
            continue
        one, other = sorted((int(fragments[voxel]), int(fragments[below])))
        if one != other and one != 0:
            found.setdefault((one, other), Counter())[int(affinities[(axis, *voxel)])] += 1
    return {edge: dict(sorted(counts.items())) for edge, counts in sorted(found.items())}


def sizes(fragments: np.ndarray) -> dict[int, int]:
    """Voxels of each fragment, background left out, sorted."""
    counts = Counter(fragments.ravel().tolist())
    del counts[0]
    return dict(sorted(counts.items()))


@dataclass(frozen=True)
class Between:
    """What joins two regions while they are merged."""

    edge: Edge
    """The smallest edge of the graph in it."""
    total: float
    """An exact int for uint8 affinities."""
    count: int

    @property
    def affinity(self) -> float:
        return self.total / self.count

    def with_(self, other: Between) -> Between:
        edge = min(self.edge, other.edge)
        return Between(edge, self.total + other.total, self.count + other.count)


@dataclass(frozen=True)
class Spread:
    """The same, with every affinity."""

    edge: Edge
    affinities: tuple[int, ...]
    """In order."""
    percent: int

    @property
    def affinity(self) -> int:
        return self.affinities[self.percent * len(self.affinities) // 100]

    def with_(self, other: Spread) -> Spread:
        affinities = tuple(sorted(self.affinities + other.affinities))
        return Spread(min(self.edge, other.edge), affinities, self.percent)


def merges(edges: Mapping[Edge, tuple[float, int]]) -> tuple[list[Merge], float]:
    """Mean-affinity agglomeration.

    Args:
        edges: sum and count of the direct affinities; those without any do not count.

    Returns:
        As ``strongest_first``.
    """
    return strongest_first(Between(edge, *both) for edge, both in edges.items() if both[1])


def quantile_merges(
    histograms: Mapping[Edge, Mapping[int, int]], percent: int
) -> tuple[list[Merge], float]:
    """Agglomeration by a quantile. As ``merges`` otherwise."""
    return strongest_first(
        Spread(edge, tuple(np.repeat(list(counts), list(counts.values())).tolist()), percent)
        for edge, counts in histograms.items()
    )


def strongest_first(between: Iterable[Between | Spread]) -> tuple[list[Merge], float]:
    """Agglomeration by looking at every contact before every merge.

    Returns:
        The merges in order; and the smallest lead, in steps of an affinity, that the best contact
        ever had over the second best one: 0 if two were ever tied, infinite without a choice.
    """
    contacts = {frozenset(contact.edge): contact for contact in between}

    def place(contact: Between | Spread) -> tuple[float, Edge]:
        return 1.0 - contact.affinity / 255.0, contact.edge

    scores = {pair: place(contact) for pair, contact in contacts.items()}
    done: list[Merge] = []
    lead = float("inf")
    while contacts:
        pair = min(scores, key=scores.__getitem__)
        score, _ = scores.pop(pair)
        best = contacts.pop(pair)
        if scores:
            second = contacts[min(scores, key=scores.__getitem__)]
            lead = min(lead, best.affinity - second.affinity)
        keep, gone = sorted(pair)
        done.append(Merge(keep, gone, score))
        for moved in [other for other in contacts if gone in other]:
            contact = contacts.pop(moved)
            del scores[moved]
            renamed = frozenset({keep} | (moved - {gone}))
            if renamed in contacts:
                contact = contacts[renamed].with_(contact)
            contacts[renamed] = contact
            scores[renamed] = place(contact)
    return done, lead


def direct(edges: Mapping[Edge, Contact]) -> dict[Edge, tuple[float, int]]:
    """The columns of a region graph that agglomeration looks at."""
    return {edge: (c.direct_sum, c.direct_count) for edge, c in edges.items()}


def cut(
    done: Sequence[Merge], sizes: Mapping[int, int], threshold: float, dust_vx: int
) -> dict[int, int]:
    """Segment of each fragment."""
    groups = {fragment: {fragment} for fragment in sizes}
    for merge in done:
        if merge.score < threshold:
            union = groups[merge.a] | groups[merge.b]
            groups |= dict.fromkeys(union, union)
    return {
        fragment: 0 if sum(sizes[f] for f in group) < dust_vx else min(group)
        for fragment, group in groups.items()
    }


def relabelled(ids: np.ndarray, names: Mapping[int, int]) -> np.ndarray:
    """An array with other names; an id without one keeps itself."""
    flat = [names.get(label, label) for label in ids.ravel().tolist()]
    return np.array(flat, np.uint64).reshape(ids.shape)


def most_frequent(labels: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The most frequent label of each window; of equal ones, the smallest."""
    shape = tuple(-(-n // f) for n, f in zip(labels.shape, factors, strict=True))
    coarse = np.zeros(shape, np.uint64)
    for voxel in voxels(shape):
        window = tuple(slice(v * f, v * f + f) for v, f in zip(voxel, factors, strict=True))
        counts = Counter(labels[window].ravel().tolist())
        coarse[voxel] = min(counts, key=lambda label: (-counts[label], label))
    return coarse


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two labellings differ in names only."""
    pairs = set(zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def quantised(affinities: np.ndarray) -> np.ndarray:
    """``round(255 * a)``, float by float; halves go to the even number, as everywhere in IEEE."""
    flat = [round(float(np.float32(a) * np.float32(255))) for a in affinities.ravel()]
    return np.array(flat, np.uint8).reshape(affinities.shape)


def partitions(count: int) -> Iterator[tuple[int, ...]]:
    """Every partition of 0 ... count - 1, each item labelled by the first of its part."""
    if count == 0:
        yield ()
        return
    for before in partitions(count - 1):
        for label in sorted({*before, count - 1}):
            yield (*before, label)


def connected(members: set[int], edges: Sequence[Edge]) -> bool:
    """Whether the edges within join all members."""
    reached, left = {min(members)}, True
    while left:
        left = False
        for u, v in edges:
            if u in members and v in members and (u in reached) != (v in reached):
                reached |= {u, v}
                left = True
    return reached == members


def cut_cost(edges: Sequence[Edge], costs: Sequence[float], labels: Sequence[int]) -> float:
    """Sum of the costs of the edges between different labels."""
    return sum(c for (u, v), c in zip(edges, costs, strict=True) if labels[u] != labels[v])


def mutex_watershed(
    count: int,
    edges: Sequence[Edge],
    weights: Sequence[float],
    mutex_edges: Sequence[Edge],
    mutex_weights: Sequence[float],
) -> list[int]:
    """By looking at every prohibition before every merge; clusters named after their smallest."""
    rows = [(-w, 0, min(e), max(e)) for e, w in zip(edges, weights, strict=True)]
    rows += [(-w, 1, min(e), max(e)) for e, w in zip(mutex_edges, mutex_weights, strict=True)]
    labels = list(range(count))
    prohibited: list[Edge] = []
    for _, repels, u, v in sorted(rows):
        a, b = sorted((labels[u], labels[v]))
        if a == b:
            continue
        if repels:
            prohibited.append((u, v))
        elif all({labels[p], labels[q]} != {a, b} for p, q in prohibited):
            labels = [a if label == b else label for label in labels]
    return labels


def merged_small(
    edges: Mapping[Edge, Contact],
    sizes: Mapping[int, int],
    segments: Mapping[int, int],
    below: int,
) -> dict[int, int]:
    """Small segments join a neighbour, all contacts counted anew each time."""
    found = dict(segments)
    stuck: set[int] = set()
    while True:
        voxels: Counter[int] = Counter()
        for fragment, segment in found.items():
            voxels[segment] += sizes[fragment]
        small = [(n, s) for s, n in voxels.items() if s > 0 and n < below and s not in stuck]
        if not small:
            return found
        _, chosen = min(small)
        means: dict[int, list[int]] = {}
        for (u, v), contact in edges.items():
            pair = {found[u], found[v]}
            if chosen in pair and len(pair) == 2 and 0 not in pair and contact.direct_count:
                (other,) = pair - {chosen}
                total = means.setdefault(other, [0, 0])
                total[0] += contact.direct_sum
                total[1] += contact.direct_count
        if not means:
            stuck.add(chosen)
            continue
        best = min(means, key=lambda n: (-Fraction(*means[n]), n))
        keep = min(best, chosen)
        found = {f: keep if s in (best, chosen) else s for f, s in found.items()}

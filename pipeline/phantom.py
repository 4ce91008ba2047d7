"""Synthetic neuropil with exact truth, for any box of an endless volume.

A voxel belongs to the neurite whose surface is nearest, ``distance from the axis - radius``, after
space has been warped by smooth hash noise. Everything is a function of the position in nm and the
seed, so a box costs what it holds, boxes agree bit for bit where they overlap, and isotropic and
anisotropic phantoms of one seed are the same tissue. Brightness follows from the same geometry:
membranes where two neurites meet, mitochondria, vesicles, reticulum and synaptic densities inside,
averaged over the thickness of a section, then noise and blur.

The box is halved until some 30 nm are left, and each half inherits only the skeletons that can
matter to it; a voxel looks at about ten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline.phantom_skeleton import (
    P0,
    P1,
    P2,
    VESICLES,
    Floats,
    Ids,
    Ints,
    hashed,
    mixed,
    skeletons,
    unit,
)

type Triple[T] = tuple[T, T, T]
type Image = NDArray[np.float32]

NODES_PER_SPACING = 2.75
"""The warp is computed on nodes 40 nm apart at the default spacing, and interpolated."""

WARP = ((22.0, 3.6), (7.0, 1.15), (2.2, 0.36), (0.9, 0.1))
"""Size of the noise cells and amplitude, in spacings. Slopes below 1 keep neurites connected."""

ROTATION = np.array(
    [
        [0.7319, -0.4321, 0.5269],
        [0.6330, 0.1686, -0.7558],
        [0.2378, 0.8859, 0.3983],
    ]
)
"""Turns the rods off the axes of the volume, so that no cut runs along them."""

SIDE_NM = 33.0
"""Pieces of the box with a longest side below this are looked at voxel by voxel."""

REACH_NM = 28.0
"""Distances from a membrane are exact up to here and clipped above."""

SUBPLANE_NM = 10.0
"""A thicker section is the average of planes about this far apart."""


class Scene(NamedTuple):
    """What a box shows: its first voxel, the size of one, the warped nodes and all that is near."""

    key: np.uint64
    first: Ints
    size_nm: Floats
    nodes: Floats
    first_node: Ints
    node_nm: float
    shape: Floats
    owner: Ids
    flags: NDArray[np.uint8]
    slope: float
    mito_shape: Floats
    mito_owner: Ids
    membrane_nm: float


class Section(NamedTuple):
    """What is seen: labels, brightness (0 to 255), and evidence of a membrane (0 to 1)."""

    labels: Ids
    brightness: Image
    evidence: Image


@njit(cache=True, nogil=True)
def _noise(key, p0, p1, p2, cell):  # type: ignore[no-untyped-def]
    """Smooth noise in [0, 1): hash numbers on a lattice, blended."""
    p0, p1, p2 = p0 / cell, p1 / cell, p2 / cell
    i, j, k = int(np.floor(p0)), int(np.floor(p1)), int(np.floor(p2))
    a, b, c = p0 - i, p1 - j, p2 - k
    a, b, c = a * a * (3 - 2 * a), b * b * (3 - 2 * b), c * c * (3 - 2 * c)
    # hashed() at the eight corners, with its products shared.
    h = key + np.uint64(i) * P0 + np.uint64(j) * P1 + np.uint64(k) * P2
    n000, n001 = unit(mixed(h)), unit(mixed(h + P2))
    n010, n011 = unit(mixed(h + P1)), unit(mixed(h + P1 + P2))
    n100, n101 = unit(mixed(h + P0)), unit(mixed(h + P0 + P2))
    n110, n111 = unit(mixed(h + P0 + P1)), unit(mixed(h + P0 + P1 + P2))
    n00, n01 = n000 + c * (n001 - n000), n010 + c * (n011 - n010)
    n10, n11 = n100 + c * (n101 - n100), n110 + c * (n111 - n110)
    n0, n1 = n00 + b * (n01 - n00), n10 + b * (n11 - n10)
    return n0 + a * (n1 - n0)


@njit(cache=True, nogil=True)
def _warped_nodes(key, first, sides, node_nm, spacing, warp, rotation):  # type: ignore[no-untyped-def]
    """Positions (z, y, x, 3) in the space of the rods of nodes on a lattice in the tissue."""
    nodes = np.empty((sides[0], sides[1], sides[2], 3))
    for i in range(sides[0]):
        for j in range(sides[1]):
            for k in range(sides[2]):
                p0 = (first[0] + i) * node_nm
                p1 = (first[1] + j) * node_nm
                p2 = (first[2] + k) * node_nm
                for o in range(len(warp)):
                    cell, amplitude = warp[o][0] * spacing, 2.0 * warp[o][1] * spacing
                    d0 = _noise(hashed(key, o, 0, 1), p0, p1, p2, cell) - 0.5
                    d1 = _noise(hashed(key, o, 1, 1), p0, p1, p2, cell) - 0.5
                    d2 = _noise(hashed(key, o, 2, 1), p0, p1, p2, cell) - 0.5
                    p0, p1, p2 = p0 + amplitude * d0, p1 + amplitude * d1, p2 + amplitude * d2
                for m in range(3):
                    row = rotation[m]
                    nodes[i, j, k, m] = row[0] * p0 + row[1] * p1 + row[2] * p2
    return nodes


@njit(cache=True, nogil=True)
def _node_below(scene, m, index):  # type: ignore[no-untyped-def]
    """Index and weight of the nodes around the centre of a voxel along axis ``m``."""
    place = (scene.first[m] + index + 0.5) * scene.size_nm[m] / scene.node_nm
    below = int(np.floor(place))
    return below - scene.first_node[m], place - below


@njit(cache=True, nogil=True)
def _warped(scene, i, j, k, place):  # type: ignore[no-untyped-def]
    a, fa = _node_below(scene, 0, i)
    b, fb = _node_below(scene, 1, j)
    c, fc = _node_below(scene, 2, k)
    n = scene.nodes
    for m in range(3):
        v00 = n[a, b, c, m] + fc * (n[a, b, c + 1, m] - n[a, b, c, m])
        v01 = n[a, b + 1, c, m] + fc * (n[a, b + 1, c + 1, m] - n[a, b + 1, c, m])
        v10 = n[a + 1, b, c, m] + fc * (n[a + 1, b, c + 1, m] - n[a + 1, b, c, m])
        v11 = n[a + 1, b + 1, c, m] + fc * (n[a + 1, b + 1, c + 1, m] - n[a + 1, b + 1, c, m])
        v0, v1 = v00 + fb * (v01 - v00), v10 + fb * (v11 - v10)
        place[m] = v0 + fa * (v1 - v0)


@njit(cache=True, nogil=True)
def _axis_vector(shape, n, p, q):  # type: ignore[no-untyped-def]
    """Put the vector from the axis of capsule ``n`` to ``p`` in ``q``; its length, the radius."""
    q0, q1, q2 = p[0] - shape[n, 0], p[1] - shape[n, 1], p[2] - shape[n, 2]
    e0, e1, e2 = shape[n, 3], shape[n, 4], shape[n, 5]
    t = (q0 * e0 + q1 * e1 + q2 * e2) / (e0 * e0 + e1 * e1 + e2 * e2 + 1e-9)
    t = min(max(t, 0.0), 1.0)
    q[0], q[1], q[2] = q0 - t * e0, q1 - t * e1, q2 - t * e2
    length = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
    return length, shape[n, 6] + t * shape[n, 7]


@njit(cache=True, nogil=True)
def _nearby(shape, numbers, low, high, slope, cut):  # type: ignore[no-untyped-def]
    """Those capsules that can be within ``cut`` of the nearest somewhere in a box of warped space.

    A negative cut is taken from the value 0 instead: those that reach within ``-cut`` of the box.
    """
    middle, q, half = np.empty(3), np.empty(3), 0.0
    for m in range(3):
        middle[m] = (low[m] + high[m]) / 2
        half += (high[m] - low[m]) ** 2
    half = math.sqrt(half * (1 + slope * slope)) / 2 + 1.0
    values = np.empty(numbers.size)
    best = 1e30
    for n in range(numbers.size):
        distance, radius = _axis_vector(shape, numbers[n], middle, q)
        values[n] = distance - radius
        best = min(best, values[n])
    most = half - cut if cut < 0 else best + 2 * half + cut
    count = 0
    kept = np.empty(numbers.size, np.int32)
    for n in range(numbers.size):
        kept[count] = numbers[n]
        count += values[n] <= most
    return kept[:count].copy()


@njit(cache=True, nogil=True)
def _smooth(x):  # type: ignore[no-untyped-def]
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


@njit(cache=True, nogil=True)
def _appearance(scene, p, who, other, depth, flag, mito):  # type: ignore[no-untyped-def]
    """Brightness and evidence of a membrane at a point ``depth`` nm below the nearest membrane.

    ``mito`` is the depth below the surface of a mitochondrion, negative outside of it.
    """
    key, p0, p1, p2 = scene.key, p[0], p[1], p[2]
    h = hashed(key, 1, 0, 0) ^ who
    tint = unit(hashed(h, 0, 0, 0))
    tone = 138.0 + 50.0 * tint if tint > 0.13 else 112.0
    tone += 34.0 * (_noise(hashed(key, 2, 0, 0), p0, p1, p2, 27.0) - 0.5)
    evidence = 0.0
    if mito <= 0.0 and depth > 14.0:
        patches = _noise(hashed(key, 3, 0, 0), p0, p1, p2, 330.0)
        if patches > 0.56:
            # Reticulum: thin curved sheets, where smooth noise takes its middle value.
            sheet = abs(_noise(hashed(key, 4, 0, 0), p0, p1, p2, 150.0) - 0.5)
            reticulum = max(0.0, 1.0 - sheet / 0.04) * _smooth((patches - 0.56) * 8)
            tone -= 55.0 * reticulum
            evidence = 0.55 * reticulum
        if flag == VESICLES:
            cell = 50.0
            i, j, k = np.floor(p0 / cell), np.floor(p1 / cell), np.floor(p2 / cell)
            v = hashed(hashed(key, 5, 0, 0), int(i), int(j), int(k))
            if unit(v) < 1.1 * _smooth((0.62 - patches) * 4):
                d0 = p0 - cell * (i + 0.38 + 0.24 * unit(hashed(v, 1, 0, 0)))
                d1 = p1 - cell * (j + 0.38 + 0.24 * unit(hashed(v, 2, 0, 0)))
                d2 = p2 - cell * (k + 0.38 + 0.24 * unit(hashed(v, 3, 0, 0)))
                d = math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
                ring = max(0.0, 1.0 - abs(d - 13.0) / 6.0)
                tone -= 60.0 * ring
                evidence = max(evidence, 0.35 * ring)
    if mito > -6.0:
        wave = p0 * 0.6 + p1 * 0.55 + p2 * 0.58
        wave += 90.0 * _noise(hashed(key, 6, 0, 0), p0, p1, p2, 150.0)
        cristae = abs(wave / 34.0 - math.floor(wave / 34.0) - 0.5) * 4 - 1
        rim = max(0.0, 1.0 - abs(mito) / 7.0)
        tone += (88.0 + 11.0 * cristae - 20.0 * rim - tone) * _smooth(mito / 8.0 + 0.75)
        evidence = max(evidence, 0.7 * rim)
    wide = scene.membrane_nm
    if depth >= 2 * wide:
        return tone, evidence
    if _noise(hashed(key, 7, 0, 0), p0, p1, p2, 260.0) > 0.68 and (who ^ other) % np.uint64(3) == 0:
        # A synapse: the density is on the receiving side, the membrane is thicker on both.
        wide *= 2.0 if hashed(h, 1, 0, 0) < hashed(hashed(key, 1, 0, 0) ^ other, 1, 0, 0) else 1.3
    wall = max(0.0, 1.0 - (depth / wide) ** 2)
    tone += (66.0 - tone) * wall
    seen = 0.3 + 0.7 * _smooth((_noise(hashed(key, 8, 0, 0), p0, p1, p2, 200.0) - 0.1) * 8)
    return tone, max(evidence, 1.3 * seen * wall)


@njit(cache=True, nogil=True)
def _look(scene, section, low, high, numbers, mitos, shown):  # type: ignore[no-untyped-def]
    """Fill the voxels of a small box, from ``low`` to ``high``, one by one."""
    places = np.empty((high[0] - low[0], high[1] - low[1], high[2] - low[2], 3))
    least, most = np.full(3, 1e30), np.full(3, -1e30)
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            for k in range(low[2], high[2]):
                p = places[i - low[0], j - low[1], k - low[2]]
                _warped(scene, i, j, k, p)
                for m in range(3):
                    least[m], most[m] = min(least[m], p[m]), max(most[m], p[m])
    numbers = _nearby(scene.shape, numbers, least, most, scene.slope, 2 * REACH_NM * shown)
    mitos = _nearby(scene.mito_shape, mitos, least, most, 0.0, -10.0)
    # Rows that lie together in memory: start, extent, 1 / length**2, radius and its increase.
    rows, owners = np.empty((numbers.size, 9)), scene.owner[numbers]
    for n in range(numbers.size):
        shape = scene.shape[numbers[n]]
        rows[n, :6] = shape[:6]
        rows[n, 6] = 1.0 / (shape[3] ** 2 + shape[4] ** 2 + shape[5] ** 2 + 1e-9)
        rows[n, 7:] = shape[6:]
    q, best_q, other_q = np.empty(3), np.empty(3), np.empty(3)
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            for k in range(low[2], high[2]):
                p = places[i - low[0], j - low[1], k - low[2]]
                p0, p1, p2 = p[0], p[1], p[2]
                best, second, b, o = 1e30, 1e30, 0, 0
                for n in range(numbers.size):
                    r = rows[n]
                    q0, q1, q2 = p0 - r[0], p1 - r[1], p2 - r[2]
                    t = min(max((q0 * r[3] + q1 * r[4] + q2 * r[5]) * r[6], 0.0), 1.0)
                    q0, q1, q2 = q0 - t * r[3], q1 - t * r[4], q2 - t * r[5]
                    value = math.sqrt(q0 * q0 + q1 * q1 + q2 * q2) - r[7] - t * r[8]
                    if value < best:
                        if owners[n] != owners[b]:
                            second, o = best, b
                        best, b = value, n
                    elif value < second and owners[n] != owners[b]:
                        second, o = value, n
                who, other = owners[b], owners[b]
                section.labels[i, j, k] = who
                if not shown:
                    continue
                depth = REACH_NM
                if second - best < 2 * REACH_NM:
                    # The gap grows with the angle between the two axes; its slope makes it nm.
                    from_best = _axis_vector(scene.shape, numbers[b], p, best_q)[0]
                    from_other = _axis_vector(scene.shape, numbers[o], p, other_q)[0]
                    s = 0.0
                    for m in range(3):
                        s += (
                            best_q[m] / (from_best + 1e-9) - other_q[m] / (from_other + 1e-9)
                        ) ** 2
                    depth = (second - best) / max(math.sqrt(s), 0.3)
                    if depth < REACH_NM:
                        other = owners[o]
                    depth = min(depth, REACH_NM)
                which = numbers[b]
                mito = -10.0
                for n in mitos:
                    if scene.mito_owner[n] == who:
                        distance, radius = _axis_vector(scene.mito_shape, n, p, q)
                        mito = max(mito, radius - distance)
                mito = min(mito, depth - 0.7 * REACH_NM)
                tone, evidence = _appearance(scene, p, who, other, depth, scene.flags[which], mito)
                section.brightness[i, j, k] = tone
                section.evidence[i, j, k] = evidence


@njit(cache=True, nogil=True)
def _fill(scene, section, low, high, numbers, mitos, shown):  # type: ignore[no-untyped-def]
    """Fill a box: halve its longest side until it is small, keeping only what is near."""
    side, longest = 0.0, 0
    for m in range(3):
        extent = (high[m] - low[m] - 1) * scene.size_nm[m]
        if extent > side:
            side, longest = extent, m
    if side < SIDE_NM:
        _look(scene, section, low, high, numbers, mitos, shown)
        return
    a, b = np.empty(3, np.int64), np.empty(3, np.int64)
    for m in range(3):
        a[m], b[m] = _node_below(scene, m, low[m])[0], _node_below(scene, m, high[m] - 1)[0] + 2
    least, most = np.full(3, 1e30), np.full(3, -1e30)
    for i in range(a[0], b[0]):
        for j in range(a[1], b[1]):
            for k in range(a[2], b[2]):
                for m in range(3):
                    least[m] = min(least[m], scene.nodes[i, j, k, m])
                    most[m] = max(most[m], scene.nodes[i, j, k, m])
    numbers = _nearby(scene.shape, numbers, least, most, scene.slope, 2 * REACH_NM * shown)
    mitos = _nearby(scene.mito_shape, mitos, least, most, 0.0, -10.0)
    middle = low.copy()
    middle[longest] = (low[longest] + high[longest]) // 2
    end = high.copy()
    end[longest] = middle[longest]
    _fill(scene, section, low, end, numbers, mitos, shown)
    _fill(scene, section, middle, high, numbers, mitos, shown)


@njit(cache=True, nogil=True)
def _add_grain(image, key, first, amount, shot):  # type: ignore[no-untyped-def]
    """Add noise of zero mean and deviation ``amount``; shot noise grows with the brightness."""
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            for k in range(image.shape[2]):
                h = hashed(key, first[0] + i, first[1] + j, first[2] + k)
                # The sum of four 16 bit numbers is close to normal.
                total = np.int64(0)
                for m in range(4):
                    total += np.int64((h >> np.uint64(16 * m)) & np.uint64(0xFFFF))
                normal = (total - 131070) / 37837.0
                bright = math.sqrt(max(image[i, j, k], 1.0) / 128.0) if shot else 1.0
                image[i, j, k] += np.float32(amount * normal * bright)


@dataclass(frozen=True)
class Phantom:
    """Neuropil that is the same wherever and in whatever boxes it is cut.

    Voxel ``i`` along an axis has its centre at ``(i + 0.5) * voxel_size_nm``; boxes are given by
    their first voxel, which may be negative, and their shape. Methods return arrays (z, y, x).
    """

    seed: int
    voxel_size_nm: Triple[float]
    spacing_nm: float = 110.0
    """Distance of neighbouring thin axons; all but membranes and organelles scales with it."""
    membrane_nm: float = 14.0
    """From the middle of a pair of membranes to where it is no longer dark."""
    noise: float = 1.0
    """Of raw and boundary; 0 leaves the clean picture."""

    def __post_init__(self) -> None:
        if min(self.voxel_size_nm) <= 0 or self.spacing_nm <= 0:
            raise ValueError(f"sizes must be above 0 nm: {self.voxel_size_nm}, {self.spacing_nm}")
        if not 0 < self.membrane_nm <= REACH_NM / 2:
            most = REACH_NM / 2
            raise ValueError(f"membrane_nm must be in (0, {most}] nm, got {self.membrane_nm}")

    def labels(self, offset_vx: Triple[int], shape_vx: Triple[int]) -> Ids:
        """The neurite of each voxel: uint64, above 0 and below 2**61, the same id in every box."""
        return self._section(offset_vx, shape_vx, self.voxel_size_nm, shown=False).labels

    def raw(self, offset_vx: Triple[int], shape_vx: Triple[int]) -> NDArray[np.uint8]:
        """What an electron microscope shows: uint8, membranes dark, mean about 130."""
        return np.rint(self._imaged(offset_vx, shape_vx, "raw").clip(0, 255)).astype(np.uint8)

    def boundary(self, offset_vx: Triple[int], shape_vx: Triple[int]) -> Image:
        """What a decent classifier makes of it: float32 in [0, 1], high on membranes.

        Some membranes are faint over a tenth of a micrometre, and organelles look like membranes.
        """
        return self._imaged(offset_vx, shape_vx, "boundary").clip(0, 1)

    def _imaged(self, offset_vx: Triple[int], shape_vx: Triple[int], kind: str) -> Image:
        z_nm, y_nm, x_nm = self.voxel_size_nm
        is_serial = z_nm > 1.5 * max(y_nm, x_nm)
        sigma = 0.75 if kind == "raw" else 0.9
        sigmas = (0.0 if is_serial else sigma, sigma, sigma)
        halo = [math.ceil(4 * s) for s in sigmas]
        first = [int(o) - h for o, h in zip(offset_vx, halo, strict=True)]
        shape = [n + 2 * h for n, h in zip(shape_vx, halo, strict=True)]
        thick = max(1, round(z_nm / SUBPLANE_NM))
        planes = self._section(
            (first[0] * thick, first[1], first[2]),
            (shape[0] * thick, shape[1], shape[2]),
            (z_nm / thick, y_nm, x_nm),
            shown=True,
        )
        image = planes.brightness if kind == "raw" else planes.evidence
        # Plane by plane, because the order in which numpy's mean adds may depend on the shape.
        image = sum((image[m::thick] for m in range(1, thick)), image[::thick])
        image = image / np.float32(thick)
        if kind == "raw" and is_serial:
            for z, plane in enumerate(image):
                luck = unit(np.uint64(hashed(np.uint64(self.seed % 2**64), first[0] + z, 3, 1)))
                plane *= np.float32(1 + 0.12 * self.noise * (luck - 0.5))
        amount = self.noise * (17.0 if kind == "raw" else 0.2)
        key = np.uint64(hashed(np.uint64(self.seed % 2**64), 4, 1 if kind == "raw" else 2, 0))
        _add_grain(image, key, np.array(first), amount, kind == "raw")
        smooth: Image = gaussian_filter(image, sigmas, truncate=4.0)
        return smooth[tuple(slice(h, h + n) for h, n in zip(halo, shape_vx, strict=True))]

    def _section(
        self,
        offset_vx: Triple[int],
        shape_vx: Triple[int],
        size_nm: Triple[float],
        shown: bool,
    ) -> Section:
        """The tissue at the centres of voxels of any size, without noise or blur."""
        first, size = np.array(offset_vx, np.int64), np.array(size_nm, np.float64)
        key = np.uint64(hashed(np.uint64(self.seed % 2**64), 1, 0, 0))
        node_nm = self.spacing_nm / NODES_PER_SPACING
        # One node more on each side, so that rounding cannot step outside.
        first_node = np.floor((first + 0.5) * size / node_nm).astype(np.int64) - 1
        last_node = np.floor((first + shape_vx) * size / node_nm).astype(np.int64) + 2
        nodes = _warped_nodes(
            key, first_node, last_node - first_node + 1, node_nm, self.spacing_nm, WARP, ROTATION
        )
        neurites, mitochondria = skeletons(
            self.seed, self.spacing_nm, nodes.min((0, 1, 2)), nodes.max((0, 1, 2))
        )
        lengths = np.linalg.norm(neurites.shape[:, 3:6], axis=1)
        slope = float(np.max(np.abs(neurites.shape[:, 7]) / np.maximum(lengths, 1.0)))
        scene = Scene(
            key,
            first,
            size,
            nodes,
            first_node,
            node_nm,
            neurites.shape,
            neurites.owner,
            neurites.flags,
            slope,
            mitochondria.shape,
            mitochondria.owner,
            self.membrane_nm,
        )
        seen = tuple(shape_vx) if shown else (0, 0, 0)
        section = Section(
            np.empty(shape_vx, np.uint64), np.empty(seen, np.float32), np.empty(seen, np.float32)
        )
        _fill(
            scene,
            section,
            np.zeros(3, np.int64),
            np.array(shape_vx, np.int64),
            np.arange(len(neurites.owner), dtype=np.int32),
            np.arange(len(mitochondria.owner), dtype=np.int32),
            shown,
        )
        return section

"""Which neurites the synthetic tissue has: endless interwoven skeletons, computed anywhere at once.

Straight rods along three axes can fill space without ever meeting. With even sites ``0`` and odd
sites ``1``, a rod along one axis takes the sites that are even on the axis before and odd on the
axis after; two sites of each 2 x 2 x 2 are left and become spines.

    z even:  y\\x  0  1        z odd:  y\\x  0  1
              0   .  Y                 0   X  X
              1   Z  Y                 1   Z  .

Hash numbers jitter the sites, cut the rods into pieces of a few micrometres, end some of them on a
crossing rod (a branch) and set their calibre. Two rods never come closer than half a
spacing, so hardly anybody is pinched off, and truth made from them is connected. Three tiers of
different spacing share the space, and a finer rod ends, or becomes a branch, where it hits a
coarser neurite. A piece has a longest length, so a question about one site is answered by looking
at its neighbourhood only, whatever the size of the volume.

Coordinates here are nanometres in the *unwarped* space of the rods, axes in the order 0, 1, 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

type Floats = NDArray[np.float64]
type Ids = NDArray[np.uint64]
type Ints = NDArray[np.int64]

# Odd 64 bit constants of splitmix64 and xxHash; uint64, as numba makes float of mixed integers.
P0, P1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
P2 = np.uint64(0xD6E8FEB86659FD93)
M0, M1 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S32, S29, S11 = np.uint64(32), np.uint64(29), np.uint64(11)

JITTER = 0.24
"""Sites move by up to this share of the spacing; below 0.25, skeletons keep half of it apart."""

SEARCH = 2
"""A capsule whose site is more than this many sites from a point is too far away to block it."""

VESICLES = np.uint8(1)


class Tier(NamedTuple):
    """One set of rods. Lengths in nm; ``window`` in sites, a piece is shorter than two windows."""

    level: int
    spacing: float
    window: int
    density: float
    radius_least: float
    radius_most: float
    clearance: float
    mitochondria: float


class Capsules(NamedTuple):
    """Tapered capsules. ``shape[n]`` is start (3), extent (3), radius at the start, increase."""

    shape: Floats
    owner: Ids
    flags: NDArray[np.uint8]


class Obstacles(NamedTuple):
    """The capsules of all coarser tiers.

    Tier ``g`` has sites from ``low[g]`` on, ``sides[g]`` of them; its site ``i``, in C order, has
    the capsules from ``first[base[g] + i]`` to ``first[base[g] + i + 1]``.
    """

    shape: Floats
    owner: Ids
    first: Ints
    base: Ints
    low: Ints
    sides: Ints
    spacing: Floats


def tiers_of(spacing_nm: float) -> tuple[Tier, ...]:
    """The tiers, coarse to fine: giant processes, dendrites, and the axons that fill the rest."""
    s = spacing_nm
    return (
        Tier(2, 24.0 * s, 4, 0.24, 3.0 * s, 8.0 * s, 0.0, 1.0),
        Tier(1, 5.0 * s, 9, 0.6, 0.8 * s, 2.7 * s, 0.9 * s, 0.7),
        Tier(0, s, 20, 0.5, 0.03 * s, 0.32 * s, 0.25 * s, 0.2),
    )


@njit(cache=True, nogil=True)
def mixed(h):  # type: ignore[no-untyped-def]
    """The finalizer of splitmix64: every bit of the result depends on every bit of a uint64."""
    h = (h ^ (h >> S32)) * M0
    h = (h ^ (h >> S29)) * M1
    return h ^ (h >> S32)


@njit(cache=True, nogil=True)
def hashed(key, a, b, c):  # type: ignore[no-untyped-def]
    """A uint64 that depends on nothing but its arguments, a uint64 key and three integers."""
    return mixed(key + np.uint64(a) * P0 + np.uint64(b) * P1 + np.uint64(c) * P2)


@njit(cache=True, nogil=True)
def unit(h):  # type: ignore[no-untyped-def]
    """A float64 in [0, 1) from the bits of a hash."""
    # Through int64, whose conversion is one instruction; that of uint64 has a branch.
    return np.float64(np.int64(h >> S11)) * 1.1102230246251565e-16


@njit(cache=True, nogil=True)
def capsule_distance(shape, n, p0, p1, p2):  # type: ignore[no-untyped-def]
    """Distance of a point from the axis of capsule ``n``, and the place on it, from 0 to 1."""
    q0, q1, q2 = p0 - shape[n, 0], p1 - shape[n, 1], p2 - shape[n, 2]
    e0, e1, e2 = shape[n, 3], shape[n, 4], shape[n, 5]
    t = (q0 * e0 + q1 * e1 + q2 * e2) / (e0 * e0 + e1 * e1 + e2 * e2 + 1e-9)
    t = min(max(t, 0.0), 1.0)
    q0, q1, q2 = q0 - t * e0, q1 - t * e1, q2 - t * e2
    return np.sqrt(q0 * q0 + q1 * q1 + q2 * q2), t


@njit(cache=True, nogil=True)
def _obstacle(obstacles, p):  # type: ignore[no-untyped-def]
    """Distance from the nearest surface of a coarser neurite, and the number of that capsule."""
    best, which = 1e30, -1
    for g in range(obstacles.spacing.size):
        n0, n1, n2 = obstacles.sides[g]
        b0 = int(np.floor(p[0] / obstacles.spacing[g])) - obstacles.low[g, 0]
        b1 = int(np.floor(p[1] / obstacles.spacing[g])) - obstacles.low[g, 1]
        b2 = int(np.floor(p[2] / obstacles.spacing[g])) - obstacles.low[g, 2]
        for i in range(max(b0 - SEARCH, 0), min(b0 + SEARCH + 1, n0)):
            for j in range(max(b1 - SEARCH, 0), min(b1 + SEARCH + 1, n1)):
                row = obstacles.base[g] + (i * n1 + j) * n2
                first = obstacles.first[row + min(max(b2 - SEARCH, 0), n2)]
                last = obstacles.first[row + max(min(b2 + SEARCH + 1, n2), 0)]
                for n in range(first, last):
                    distance, t = capsule_distance(obstacles.shape, n, p[0], p[1], p[2])
                    value = distance - obstacles.shape[n, 6] - t * obstacles.shape[n, 7]
                    if value < best:
                        best, which = value, n
    return best, which


@njit(cache=True, nogil=True)
def _axis(site):  # type: ignore[no-untyped-def]
    """The axis of the rod through a site, -1 for the sites between the rods."""
    for m in range(3):
        if site[(m + 2) % 3] % 2 == 0 and site[(m + 1) % 3] % 2 == 1:
            return m
    return -1


@njit(cache=True, nogil=True)
def _moved(site, axis, step):  # type: ignore[no-untyped-def]
    k = site[axis] + step
    if axis == 0:
        return (k, site[1], site[2])
    if axis == 1:
        return (site[0], k, site[2])
    return (site[0], site[1], k)


@njit(cache=True, nogil=True)
def _place(key, tier, site):  # type: ignore[no-untyped-def]
    h = hashed(key, site[0], site[1], site[2])
    s, wide = tier.spacing, 2.0 * JITTER
    p0 = s * (site[0] + 0.5 + wide * (unit(h) - 0.5))
    p1 = s * (site[1] + 0.5 + wide * (unit(hashed(h, 1, 0, 0)) - 0.5))
    p2 = s * (site[2] + 0.5 + wide * (unit(hashed(h, 2, 0, 0)) - 0.5))
    return (p0, p1, p2)


@njit(cache=True, nogil=True)
def _piece(key, tier, site, axis):  # type: ignore[no-untyped-def]
    """The hash of the piece of a rod that a site lies on; every window of sites has one cut."""
    k = site[axis]
    foot = _moved(site, axis, -k)
    rod = hashed(key, foot[0], foot[1], foot[2]) + np.uint64(axis)
    w = k // tier.window
    if k - w * tier.window < hashed(rod, w, 5, 0) % np.uint64(tier.window):
        w -= 1
    return hashed(rod, w, 6, 0)


@njit(cache=True, nogil=True)
def _clear(key, tier, obstacles, site):  # type: ignore[no-untyped-def]
    return _obstacle(obstacles, _place(key, tier, site))[0] > tier.clearance


@njit(cache=True, nogil=True)
def _passable(key, tier, obstacles, site, other):  # type: ignore[no-untyped-def]
    """Whether no coarser neurite lies between two neighbouring sites that are both clear."""
    p, q = _place(key, tier, site), _place(key, tier, other)
    middle = ((p[0] + q[0]) / 2, (p[1] + q[1]) / 2, (p[2] + q[2]) / 2)
    return _obstacle(obstacles, middle)[0] > tier.clearance


@njit(cache=True, nogil=True)
def _present(key, tier, obstacles, site, axis):  # type: ignore[no-untyped-def]
    if unit(hashed(_piece(key, tier, site, axis), 7, 0, 0)) >= tier.density:
        return False
    return _clear(key, tier, obstacles, site)


@njit(cache=True, nogil=True)
def _joined(key, tier, obstacles, site, axis, step):  # type: ignore[no-untyped-def]
    """Whether a neurite goes on from a present site to the next on its rod."""
    other = _moved(site, axis, step)
    if _piece(key, tier, site, axis) != _piece(key, tier, other, axis):
        return False
    return _clear(key, tier, obstacles, other) and _passable(key, tier, obstacles, site, other)


@njit(cache=True, nogil=True)
def _run(key, tier, obstacles, site, axis):  # type: ignore[no-untyped-def]
    """First and last site of the unbroken run that a present site lies on."""
    first, last = site, site
    while _joined(key, tier, obstacles, first, axis, -1):
        first = _moved(first, axis, -1)
    while _joined(key, tier, obstacles, last, axis, 1):
        last = _moved(last, axis, 1)
    return first, last


@njit(cache=True, nogil=True)
def _attachment(key, tier, obstacles, end, axis, step):  # type: ignore[no-untyped-def]
    """The capsule of the coarser neurite that a run goes into beyond its end, or -1."""
    other = _moved(end, axis, step)
    if _piece(key, tier, end, axis) != _piece(key, tier, other, axis):
        return -1
    if unit(hashed(key, other[0] * 3 + axis, other[1], other[2])) > 0.5:
        return -1
    value, which = _obstacle(obstacles, _place(key, tier, other))
    return which if value <= tier.clearance else -1


@njit(cache=True, nogil=True)
def _root(key, tier, obstacles, first, last, axis):  # type: ignore[no-untyped-def]
    """Where a run grows out of a coarser neurite: the step off its end, and the capsule or -1."""
    which = _attachment(key, tier, obstacles, first, axis, -1)
    if which >= 0:
        return -1, which
    return 1, _attachment(key, tier, obstacles, last, axis, 1)


@njit(cache=True, nogil=True)
def _origin(key, tier, obstacles, first, last, axis):  # type: ignore[no-untyped-def]
    """Id of a run by itself: the coarser neurite it grows from, or its own; 0 for a mere crumb."""
    which = _root(key, tier, obstacles, first, last, axis)[1]
    if which >= 0:
        return obstacles.owner[which]
    if last[axis] - first[axis] < 2:
        return np.uint64(0)
    # Injective within 2**18 sites of the origin, 29 mm at the default spacing, and below 2**61.
    packed = np.uint64(1 + tier.level * 3 + axis)
    for m in range(3):
        packed = (packed << np.uint64(19)) | (np.uint64(first[m]) & np.uint64(0x7FFFF))
    return packed


@njit(cache=True, nogil=True)
def _is_twig(piece):  # type: ignore[no-untyped-def]
    return unit(hashed(piece, 8, 0, 0)) < 0.6


@njit(cache=True, nogil=True)
def _junction(key, tier, first, axis):  # type: ignore[no-untyped-def]
    """The site of a crossing rod that a twig beginning at ``first`` would branch off from."""
    step = 1 if hashed(key, first[0], first[1], first[2] * 3 + axis) & np.uint64(1) else -1
    other = _moved(first, (axis + 1) % 3, step)
    return other if _axis(other) >= 0 else _moved(first, (axis + 2) % 3, step)


@njit(cache=True, nogil=True)
def _neurite(key, tier, obstacles, site, axis):  # type: ignore[no-untyped-def]
    """Id of the neurite through a present site, its run, and whether it branches off a junction."""
    first, last = _run(key, tier, obstacles, site, axis)
    own = _origin(key, tier, obstacles, first, last, axis)
    if _root(key, tier, obstacles, first, last, axis)[1] >= 0:
        return own, first, last, False
    other = _junction(key, tier, first, axis)
    across = _axis(other)
    if not _is_twig(_piece(key, tier, site, axis)) or _is_twig(_piece(key, tier, other, across)):
        return own, first, last, False
    if not _present(key, tier, obstacles, other, across):
        return own, first, last, False
    if not _passable(key, tier, obstacles, first, other):
        return own, first, last, False
    begin, end = _run(key, tier, obstacles, other, across)
    trunk = _origin(key, tier, obstacles, begin, end, across)
    return (trunk, first, last, True) if trunk != 0 else (own, first, last, False)


@njit(cache=True, nogil=True)
def _remembered(key, tier, obstacles, low, runs, owners, site, axis):  # type: ignore[no-untyped-def]
    """``_neurite``, computed once per run; ``runs`` holds its ends and whether it branches."""
    i, j, k = site[0] - low[0], site[1] - low[1], site[2] - low[2]
    inside = 0 <= i < runs.shape[0] and 0 <= j < runs.shape[1] and 0 <= k < runs.shape[2]
    if inside and runs[i, j, k, 2] >= 0:
        first = _moved(site, axis, runs[i, j, k, 0] - site[axis])
        last = _moved(site, axis, runs[i, j, k, 1] - site[axis])
        return owners[i, j, k], first, last, runs[i, j, k, 2] > 0
    who, first, last, branches = _neurite(key, tier, obstacles, site, axis)
    if inside:
        begin = max(first[axis] - low[axis], 0)
        end = min(last[axis] - low[axis] + 1, runs.shape[axis])
        for m in range(begin, end):
            i, j, k = _moved((i, j, k), axis, m - (i, j, k)[axis])
            owners[i, j, k] = who
            runs[i, j, k, 0], runs[i, j, k, 1] = first[axis], last[axis]
            runs[i, j, k, 2] = 1 if branches else 0
    return who, first, last, branches


@njit(cache=True, nogil=True)
def _radius(key, tier, site, axis):  # type: ignore[no-untyped-def]
    """Calibre at a site: one size for the piece, most of them small, and varicosities."""
    piece = _piece(key, tier, site, axis)
    u = unit(hashed(piece, 9, 0, 0))
    v = unit(hashed(key, site[0], site[1], site[2] + 1000003))
    share = 0.8 * u * u + 0.2 * v
    return tier.radius_least + (tier.radius_most - tier.radius_least) * share


@njit(cache=True, nogil=True)
def _push(rows, owner, flags, n, p, q, radius, radius_end, who, flag):  # type: ignore[no-untyped-def]
    for m in range(3):
        rows[n, m] = p[m]
        rows[n, 3 + m] = q[m] - p[m]
    rows[n, 6] = radius
    rows[n, 7] = radius_end - radius
    owner[n] = who
    flags[n] = flag
    return n + 1


@njit(cache=True, nogil=True)
def _grow(key, tier, obstacles, low, sides):  # type: ignore[no-untyped-def]
    """All capsules and mitochondria of the sites in a region, in the order of their sites."""
    num_sites = sides[0] * sides[1] * sides[2]
    first_of = np.zeros(num_sites + 1, np.int64)
    # A site has at most a link, two capsules into an obstacle, and a junction.
    rows, owner, flags = (
        np.empty((4 * num_sites, 8)),
        np.empty(4 * num_sites, np.uint64),
        np.empty(4 * num_sites, np.uint8),
    )
    mito_rows, mito_owner, mito_flags = (
        np.empty((num_sites, 8)),
        np.empty(num_sites, np.uint64),
        np.empty(num_sites, np.uint8),
    )
    runs = np.full((sides[0], sides[1], sides[2], 3), -1, np.int64)
    owners = np.empty((sides[0], sides[1], sides[2]), np.uint64)
    n, num_mito, index = 0, 0, 0
    none = np.uint8(0)
    for i in range(low[0], low[0] + sides[0]):
        for j in range(low[1], low[1] + sides[1]):
            for k in range(low[2], low[2] + sides[2]):
                first_of[index] = n
                index += 1
                site = (i, j, k)
                p = _place(key, tier, site)
                axis = _axis(site)
                if axis < 0:
                    # Between the rods: a spine or a swelling of one of the six neighbours.
                    h = hashed(key, i, j, k * 5 + 3)
                    other = _moved(site, int(h % np.uint64(3)), 1 if h & np.uint64(64) else -1)
                    across = _axis(other)
                    if unit(hashed(h, 1, 1, 1)) > 0.7 or not _clear(key, tier, obstacles, site):
                        continue
                    if not _present(key, tier, obstacles, other, across):
                        continue
                    if not _passable(key, tier, obstacles, site, other):
                        continue
                    who = _remembered(key, tier, obstacles, low, runs, owners, other, across)[0]
                    if who != 0:
                        q = _place(key, tier, other)
                        r = _radius(key, tier, other, across)
                        head = r * (0.6 + 0.6 * unit(hashed(h, 2, 2, 2)))
                        n = _push(rows, owner, flags, n, p, q, head, r, who, none)
                    continue
                if not _present(key, tier, obstacles, site, axis):
                    continue
                who, first, last, branches = _remembered(
                    key, tier, obstacles, low, runs, owners, site, axis
                )
                if who == 0:
                    continue
                r = _radius(key, tier, site, axis)
                piece = _piece(key, tier, site, axis)
                stretch = hashed(piece, site[axis] // 5, 11, 0)
                flag = VESICLES if unit(hashed(stretch, 1, 0, 0)) < 0.22 else none
                if site != last:
                    other = _moved(site, axis, 1)
                    q = _place(key, tier, other)
                    r_end = _radius(key, tier, other, axis)
                    n = _push(rows, owner, flags, n, p, q, r, r_end, who, flag)
                    same = other[axis] // 5 == site[axis] // 5
                    if same and unit(stretch) < tier.mitochondria:
                        wide = 0.4 + 0.35 * unit(hashed(stretch, 2, 0, 0))
                        least = 0.35 * tier.spacing if tier.level == 0 else 0.0
                        shift = 0.6 * (r if tier.level else 0.0)
                        d = (
                            shift * (unit(hashed(stretch, 3, 0, 0)) - 0.5),
                            shift * (unit(hashed(stretch, 4, 0, 0)) - 0.5),
                            shift * (unit(hashed(stretch, 5, 0, 0)) - 0.5),
                        )
                        a = (p[0] + d[0], p[1] + d[1], p[2] + d[2])
                        b = (q[0] + d[0], q[1] + d[1], q[2] + d[2])
                        thin = min(least + wide * r, 180.0)
                        num_mito = _push(
                            mito_rows, mito_owner, mito_flags, num_mito, a, b, thin, thin, who, none
                        )
                elif site == first:
                    n = _push(rows, owner, flags, n, p, p, r, r, who, flag)
                step, which = _root(key, tier, obstacles, first, last, axis)
                if which >= 0 and site == (first if step < 0 else last):
                    q = _place(key, tier, _moved(site, axis, step))
                    n = _push(rows, owner, flags, n, p, q, r, r, who, none)
                    _, t = capsule_distance(obstacles.shape, which, q[0], q[1], q[2])
                    o = obstacles.shape[which]
                    foot = (o[0] + t * o[3], o[1] + t * o[4], o[2] + t * o[5])
                    n = _push(rows, owner, flags, n, q, foot, r, r, who, none)
                if branches and site == first:
                    other = _junction(key, tier, first, axis)
                    q = _place(key, tier, other)
                    r_end = _radius(key, tier, other, _axis(other))
                    n = _push(rows, owner, flags, n, p, q, r, r_end, who, none)
    first_of[index] = n
    return (
        rows[:n].copy(),
        owner[:n].copy(),
        flags[:n].copy(),
        first_of,
        mito_rows[:num_mito].copy(),
        mito_owner[:num_mito].copy(),
        mito_flags[:num_mito].copy(),
    )


def _whole_sites(low_nm: Floats, high_nm: Floats, spacing: float, margin: int) -> tuple[Ints, Ints]:
    """First site and number of sites of the region that holds a box and ``margin`` sites around."""
    low = np.floor(low_nm / spacing).astype(np.int64) - margin
    return low, np.floor(high_nm / spacing).astype(np.int64) + margin + 1 - low


def skeletons(
    seed: int, spacing_nm: float, low_nm: Floats, high_nm: Floats
) -> tuple[Capsules, Capsules]:
    """Every neurite and mitochondrion that can be nearest to a point of a box, coarse tiers first.

    Two boxes give what they share in the same order, so that ties fall alike in both.
    """
    tiers = tiers_of(spacing_nm)
    regions = []
    for tier in reversed(tiers):
        regions.append(_whole_sites(low_nm, high_nm, tier.spacing, 3))
        # A run is followed to its end, and so is the run it may branch off from.
        reach = (2 * tier.window + 6) * tier.spacing
        low_nm, high_nm = low_nm - reach, high_nm + reach
    neurites: list[Capsules] = []
    mitochondria: list[Capsules] = []
    obstacles = Obstacles(
        np.empty((0, 8)),
        np.empty(0, np.uint64),
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty((0, 3), np.int64),
        np.empty((0, 3), np.int64),
        np.empty(0),
    )
    for tier, (low, sides) in zip(tiers, reversed(regions), strict=True):
        key = np.uint64(hashed(np.uint64(seed % 2**64), tier.level, 0, 0))
        grown = _grow(key, tier, obstacles, low, sides)
        neurites.append(Capsules(*grown[:3]))
        mitochondria.append(Capsules(*grown[4:]))
        before = obstacles
        obstacles = Obstacles(
            np.concatenate([before.shape, grown[0]]),
            np.concatenate([before.owner, grown[1]]),
            np.concatenate([before.first, grown[3] + len(before.shape)]),
            np.append(before.base, len(before.first)),
            np.concatenate([before.low, low[None]]),
            np.concatenate([before.sides, sides[None]]),
            np.append(before.spacing, tier.spacing),
        )
    return _joint(neurites), _joint(mitochondria)


def _joint(parts: list[Capsules]) -> Capsules:
    return Capsules(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

"""Multicut of superpixels of sections, as the reference code of PEA does it ("LMC").

Fragments come from a watershed on the distance to membranes, in each section by itself; the
multicut of their graph sees the whole volume (Beier et al. 2017).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from pipeline.geometry import Offsets
from pipeline.graph import Assignment
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.multicut import multicut_segments

MEMBRANE = 0.25
"""Where a boundary is higher there are no seeds."""
SIGMA_VX = 2.0
"""Of the Gaussians over the distance and over the boundary."""
BOUNDARY_SHARE = 0.9
"""Of the boundary in the heights; the distance has the rest."""
MIN_SIZE_VX = 100
"""Smaller superpixels are given up, and their place is flooded by the others."""


def multicut_of_sections(affinities: np.ndarray, beta: float = 0.5) -> np.ndarray:
    """Superpixels of all sections, joined by a multicut with costs weighted by contacts.

    Args:
        affinities: uint8 ``(channel, z, y, x)``, the direct neighbours first; others are not used.

    Returns:
        uint64 ``(z, y, x)``, a label for every voxel.
    """
    fragments = section_fragments(affinities)
    return multicut_on(affinities, fragments, beta).apply(fragments)


def multicut_on(affinities: np.ndarray, fragments: np.ndarray, beta: float) -> Assignment:
    """The multicut of given superpixels."""
    graph = region_edges(affinities[: Offsets.NUM_DIRECT], fragments, Offsets())
    return multicut_segments(graph, fragment_sizes(fragments), beta, "contacts")


def section_fragments(affinities: np.ndarray) -> np.ndarray:
    """Distance transform watershed of each section.

    The boundary is the larger of 1 - affinity towards y and towards x. What has no partner below is
    given the value of its neighbour above.

    Args:
        affinities: uint8 ``(channel, z, y, x)``, the direct neighbours first.

    Returns:
        uint64 ``(z, y, x)``, ids from 1, in order of the sections.
    """
    fragments = np.zeros(affinities.shape[1:], np.uint64)
    count = 0
    for z in range(len(fragments)):
        towards_y, towards_x = affinities[1, z].copy(), affinities[2, z].copy()
        towards_y[:1] = towards_y[1:2] if len(towards_y) > 1 else 255
        towards_x[:, :1] = towards_x[:, 1:2] if towards_x.shape[1] > 1 else 255
        distances = 255 - np.minimum(towards_y, towards_x)
        found = _superpixels(distances.astype(np.float32) / np.float32(255))
        fragments[z] = found + np.uint64(count)
        count += int(found.max())
    return fragments


def _superpixels(boundary: np.ndarray) -> np.ndarray:
    """uint64 ``(y, x)``, consecutive from 1; one superpixel where there is nothing to tell apart.

    Args:
        boundary: float32 ``(y, x)`` in [0, 1].
    """
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    inside = boundary <= MEMBRANE
    if inside.all() or not inside.any():
        return np.ones(boundary.shape, np.uint64)
    distance = gaussian_filter(distance_transform_edt(inside).astype(np.float32), SIGMA_VX)
    seeds, _ = label(local_maxima(distance), np.ones((3, 3)))
    depth = 1 - (distance - distance.min()) / distance.max()
    smooth = gaussian_filter(boundary, SIGMA_VX)
    heights = BOUNDARY_SHARE * smooth + (1 - BOUNDARY_SHARE) * depth
    found = watershed(heights, seeds)
    sizes = np.bincount(found.ravel())
    small = sizes < MIN_SIZE_VX
    if small[found].any() and not small[found].all():
        found = watershed(heights, np.where(small[found], 0, found))
    _, numbers = np.unique(found, return_inverse=True)
    return (numbers.reshape(found.shape) + 1).astype(np.uint64)

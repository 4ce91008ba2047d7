"""References that see a whole volume at once: a flooding watershed, and waterz.

Their results depend on the whole: cut the volume, and they change. They are here for volumes that
fit in memory, and as measures for the blockwise methods. Needs the extra ``whole``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from scipy.ndimage import distance_transform_edt, label

MEAN_AFFINITY = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
SCORINGS = {
    "mean": MEAN_AFFINITY,
    **{
        f"quantile_{percent}{suffix}": "OneMinus<HistogramQuantileAffinity<RegionGraphType, "
        f"{percent}, ScoreValue, 256, {of_maxima}>>"
        for percent in range(10, 100, 5)
        for suffix, of_maxima in (("", "false"), ("_of_maxima", "true"))
    },
}
"""Scores of contacts that come compiled with waterz: the mean affinity, and quantiles in percent,
of all affinities between two regions, or of the largest between each two of their fragments."""


def flooding_fragments(affinities: np.ndarray, per_section: bool) -> np.ndarray:
    """Seeded watershed of the reference code of PEA, in sections, or its twin in three dimensions.

    The height is one minus the mean affinity to the neighbours below; seeds are the regional
    maxima of the distance to where the height is 0.5 or more. Every voxel gets a label.

    Args:
        affinities: uint8 ``(channel, z, y, x)``, the direct neighbours first.
        per_section: flood each section by itself, with the affinities inside it.

    Returns:
        uint64 ``(z, y, x)``, ids from 1 in order of the seeds.
    """
    values = affinities[:3].astype(np.float32) / np.float32(255)
    if not per_section:
        return _flooded(1 - values.mean(axis=0), 0)[0]
    fragments = np.zeros(affinities.shape[1:], np.uint64)
    count = 0
    for z, section in enumerate(1 - values[1:].mean(axis=0)):
        fragments[z], count = _flooded(section, count)
    return fragments


def _flooded(height: np.ndarray, first: int) -> tuple[np.ndarray, int]:
    """Fragments with ids above ``first``, and the highest id."""
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    distance = distance_transform_edt(height < 0.5)
    seeds, count = label(local_maxima(distance), np.ones((3,) * height.ndim))
    return watershed(height, seeds).astype(np.uint64) + np.uint64(first), first + count


def waterz_segmentations(
    affinities: np.ndarray,
    fragments: np.ndarray,
    thresholds: Sequence[float],
    scoring: str = MEAN_AFFINITY,
) -> Iterator[np.ndarray]:
    """Segmentations of a whole volume by waterz, one for each threshold.

    Args:
        affinities: uint8, or float32 in [0, 1], ``(channel, z, y, x)``, the direct neighbours
            first; NaN would merge everything without a word.
        fragments: uint64 ``(z, y, x)``, below 2^31; 0 is background. Not changed.
        thresholds: ascending; merge while 1 - affinity is below.

    Yields:
        uint64 ``(z, y, x)``.
    """
    import waterz

    scale = np.float32(255 if affinities.dtype == np.uint8 else 1)
    values = np.ascontiguousarray(affinities[:3].astype(np.float32) / scale)
    found = waterz.agglomerate(
        values, thresholds=list(thresholds), fragments=fragments.copy(), scoring_function=scoring
    )
    while True:
        with standard_output_silenced():
            segmentation = next(found, None)
        if segmentation is None:
            return
        yield segmentation.copy()


@contextmanager
def standard_output_silenced() -> Iterator[None]:
    """Keep what a library prints from C++ off the standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)

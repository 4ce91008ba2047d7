"""Counting, VOI and ARAND beside scikit-image and elf, on crops of 67 Mvoxel.

    python -m tests.bench.scores pinky40_labels.h5

All score the same two arrays in turn: the labels, and a copy of them that is shifted, merged and
split. elf has a row where it can be imported (``python-elf``, which is no dependency). They must
agree to 1e-9; the last row has labels up to 2^64 - 1. Seconds are those of the CPU, so a busy
machine counts less; for the others, which use threads, pin the process to one core.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.scores import Scores

CROP = (128, 512, 1024)
ROUNDS = 3
Answer = tuple[float, float, float]


def ours(segments: np.ndarray, truth: np.ndarray) -> Answer:
    scores = Scores.of(Contingency.count(segments, truth))
    return scores.voi_split, scores.voi_merge, scores.arand


def scikit_image(segments: np.ndarray, truth: np.ndarray) -> Answer:
    from skimage.metrics import adapted_rand_error, variation_of_information

    split, merge = variation_of_information(truth, segments, ignore_labels=(0,))
    return split, merge, adapted_rand_error(truth, segments, ignore_labels=(0,))[0]


def elf(segments: np.ndarray, truth: np.ndarray) -> Answer:
    from elf.evaluation import cremi_score

    split, merge, arand, _ = cremi_score(segments, truth, ignore_gt=[0])
    return split, merge, arand


def perturbed(truth: np.ndarray) -> np.ndarray:
    """Labels moved by three voxels along x, every seventh merged into its neighbour, others cut."""
    moved = np.roll(truth, 3, axis=2)
    moved[moved % 7 == 3] += 1
    halves = np.arange(truth.shape[0])[:, None, None] // (truth.shape[0] // 2)
    moved[(moved % 5 == 1) & (halves == 1)] += 10_000
    return moved


def main(path: Path) -> None:
    with h5py.File(path) as file:
        labels = file["volumes/labels/neuron_ids"]
        truth = labels[tuple(slice(side) for side in CROP)].astype(np.uint64)
    segments = perturbed(truth)
    programs: dict[str, Callable[[np.ndarray, np.ndarray], Answer]] = {"ours": ours}
    programs["scikit-image"] = scikit_image
    if importlib.util.find_spec("elf"):
        programs["elf"] = elf
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    answers = {}
    ours(segments[:2], truth[:2])  # compiled now
    for _ in range(ROUNDS):
        for name, program in programs.items():
            # scikit-image makes tables of as many rows as the largest label: small signed ones.
            kind = np.int64 if name == "scikit-image" else np.uint64
            pair = segments.astype(kind, copy=False), truth.astype(kind, copy=False)
            started = time.process_time()
            answers[name] = program(*pair)
            seconds[name].append(time.process_time() - started)
    print(f"{CROP} voxels, {len(np.unique(truth))} objects; CPU time, median of {ROUNDS}")
    print(f"{'':<17}{'Mvoxel/s':>8}{'ours is faster':>16}{'VOI':>9}{'ARAND':>9}{'differs by':>12}")
    for name, (split, merge, arand) in answers.items():
        ratio = statistics.median(
            b / a for a, b in zip(seconds["ours"], seconds[name], strict=True)
        )
        gap = max(abs(a - b) for a, b in zip(answers["ours"], answers[name], strict=True))
        rate = truth.size / statistics.median(seconds[name]) / 1e6
        print(f"{name:<17}{rate:>8.1f}{ratio:>16.2f}{split + merge:>9.5f}{arand:>9.5f}{gap:>12.1e}")
    high = [np.where(ids, np.uint64(2**64 - 1) - ids, ids) for ids in (segments, truth)]
    started = time.process_time()
    same = np.allclose(ours(*high), answers["ours"], rtol=0, atol=1e-12)
    rate = truth.size / (time.process_time() - started) / 1e6
    print(f"{'labels to 2^64-1':<17}{rate:>8.1f}  {'the same scores' if same else 'OTHER SCORES'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Which objects the errors are in: the parts of VOI, object by object, with their places.

A true object's part of VOI split is what it adds to H(segment | truth), a segment's part of VOI
merge what it adds to H(truth | segment). The parts sum to the scores, voxels without truth left
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.evaluate.overlaps import Overlaps
from pipeline.geometry import Nm, nanometres
from pipeline.graph import Table, grouped_rows

Side = Literal["truth", "segment"]
PARTNER: dict[Side, Side] = {"truth": "segment", "segment": "truth"}


@dataclass(frozen=True)
class Parts(Table):
    """Objects of one side, those with the largest part of the entropy first; equal ones by id."""

    ids: np.ndarray
    """uint64"""
    voxels: np.ndarray
    """uint64"""
    voi: np.ndarray
    """float64, in bits."""
    partners: np.ndarray
    """int64: how many ids of the other side it shares voxels with."""
    begin: np.ndarray
    """``(n, 3)`` int64: the bounding box, in world voxels."""
    end: np.ndarray

    @classmethod
    def among(cls, overlaps: Overlaps, side: Side) -> Parts:
        """The true objects, by their parts of VOI split; or the segments, of VOI merge."""
        known = overlaps.without_truth(0)
        ids = known.truth if side == "truth" else known.segment
        if len(known) == 0:
            return cls(ids, known.voxels, np.zeros(0), np.zeros(0, int), known.begin, known.end)
        order, starts = grouped_rows((ids,))
        counts = known.voxels[order].astype(np.float64)
        partners = np.diff(np.append(starts, len(order)))
        voxels = np.add.reduceat(known.voxels[order], starts)
        bits = counts * np.log2(np.repeat(voxels, partners) / counts)
        voi = np.add.reduceat(bits, starts) / counts.sum()
        worst = np.lexsort((ids[order[starts]], -voi))
        return cls(
            ids[order[starts]][worst],
            voxels[worst],
            voi[worst],
            partners[worst],
            np.minimum.reduceat(known.begin[order], starts)[worst],
            np.maximum.reduceat(known.end[order], starts)[worst],
        )


def worst_objects(
    overlaps: Overlaps, voxel_size_nm: Nm, count: int, partners: int
) -> dict[str, list[dict[str, Any]]]:
    """The worst splits and merges, as plain values.

    Args:
        count: how many of each; those without an error are left out.
        partners: how many ids of the other side to name of each, the largest overlaps.
    """
    known = overlaps.without_truth(0)
    sides: dict[str, Side] = {"splits": "truth", "merges": "segment"}
    return {
        kind: _described(known, Parts.among(known, side), side, voxel_size_nm, count, partners)
        for kind, side in sides.items()
    }


def _described(
    known: Overlaps, parts: Parts, side: Side, voxel_size_nm: Nm, count: int, partners: int
) -> list[dict[str, Any]]:
    other = PARTNER[side]
    ids: np.ndarray = getattr(known, side)
    by_id = np.argsort(ids, kind="stable")
    firsts, lasts = (
        np.searchsorted(ids[by_id], parts.ids[:count], side=where) for where in ("left", "right")
    )
    described = []
    for place in range(int(np.count_nonzero(parts.voi[:count] > 0))):
        rows = by_id[firsts[place] : lasts[place]]
        largest = rows[np.lexsort((getattr(known, other)[rows], -known.voxels[rows].astype(int)))]
        described.append(
            {
                side: int(parts.ids[place]),
                "voxels": int(parts.voxels[place]),
                "voi": float(parts.voi[place]),
                **_box(parts.begin[place], parts.end[place], voxel_size_nm),
                f"num_{other}": int(parts.partners[place]),
                "largest": [
                    {
                        other: int(getattr(known, other)[row]),
                        "voxels": int(known.voxels[row]),
                        **_box(known.begin[row], known.end[row], voxel_size_nm),
                    }
                    for row in largest[:partners]
                ],
            }
        )
    return described


def _box(begin: np.ndarray, end: np.ndarray, voxel_size_nm: Nm) -> dict[str, Any]:
    """A box in world voxels, and in nm as run files have regions."""
    return {
        "box_vx": [begin.tolist(), end.tolist()],
        "roi_nm": {
            "offset": nanometres(begin.tolist(), voxel_size_nm).numbers(),
            "shape": nanometres((end - begin).tolist(), voxel_size_nm).numbers(),
        },
    }

"""The picture of a sweep: any sweep can be drawn, and the same one gives the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.sweep import draw_sweep


def scored(threshold: float, split: float, merge: float, arand: float) -> dict[str, float]:
    voi = {"voi_split": split, "voi_merge": merge, "voi": split + merge}
    return {"threshold": threshold, "arand": arand, **voi}


CURVE = [scored(t, 1.5 * (1 - t), 2.5 * t**3, 0.2 * (1 - t) + t**4) for t in (0.1, 0.4, 0.7, 0.9)]


@pytest.mark.parametrize(
    "swept",
    [CURVE, CURVE[:1], [scored(0.5, 0.0, 0.0, 0.0)], [scored(t, 0, 4e-7, 0) for t in (0, 1)]],
    ids=["a curve", "one threshold", "perfect", "nearly perfect"],
)
def test_any_sweep_can_be_drawn(swept, tmp_path: Path) -> None:
    path = tmp_path / "sweep.png"
    draw_sweep(swept, swept[-1], "threshold", path, "a run")
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50, "not blank"
    before = path.read_bytes()
    draw_sweep(swept, swept[-1], "threshold", path, "a run")
    assert path.read_bytes() == before


def test_a_run_beside_its_sweep_moves_its_star(tmp_path: Path) -> None:
    files = []
    for chosen in (CURVE[0], scored(0.55, 0.9, 0.4, 0.1)):
        draw_sweep(CURVE, chosen, "threshold", tmp_path / "sweep.png", "a run")
        files.append((tmp_path / "sweep.png").read_bytes())
    assert files[0] != files[1]

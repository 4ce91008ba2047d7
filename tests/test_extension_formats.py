"""Formats of other distributions, by the example: MRC files are ingested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, FormatError
from pipeline.geometry import ZYX, Nm
from pipeline.ingest import ingest
from pipeline.volume import Volume
from tests.extended import Installed
from workers import cli


def write_mrc(path: Path, voxels: np.ndarray, mode: int, cell_angstrom: tuple[float, ...]) -> None:
    """As the format is described: 56 words, 800 bytes of labels, an extended header, the voxels."""
    header = np.zeros(256, "<i4")
    header[:4] = (*voxels.shape[::-1], mode)
    header[7:10] = voxels.shape[::-1]
    header[10:13] = np.array(cell_angstrom[::-1], "<f4").view("<i4")
    header[23] = 64
    path.write_bytes(header.tobytes() + bytes(64) + voxels.tobytes())


def test_a_foreign_format_is_ingested(lab: Installed, tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 60000, (7, 9, 11)).astype("<u2")
    source = tmp_path / "tomogram.mrc"
    write_mrc(source, voxels, 6, (7 * 404.0, 9 * 80.8, 11 * 80.8))
    report = ingest(source, tmp_path / "out.zarr" / "raw", shard_vx=ZYX(2, 64, 64))
    volume = Volume.open(tmp_path / "out.zarr" / "raw")
    assert np.array_equal(volume.read(volume.roi), voxels)
    assert volume.spec.voxel_size_nm == Nm.of(["40.4", "8.08", "8.08"])
    assert "tomogram.mrc" in report.source
    words = ["ingest", str(source), str(tmp_path / "cli.zarr/raw")]
    assert cli.main(words) == 0
    with pytest.raises(ConfigError, match="--dataset names an array inside"):
        ingest(source, tmp_path / "out.zarr/x", dataset="a")


def test_a_foreign_format_that_is_damaged_is_said(lab: Installed, tmp_path: Path) -> None:
    source = tmp_path / "tomogram.mrc"
    write_mrc(source, np.zeros((3, 4, 5), "<u2"), 6, (30.0, 40.0, 50.0))
    whole = source.read_bytes()
    source.write_bytes(whole[:-7])
    with pytest.raises(FormatError, match="cannot be read"):
        ingest(source, tmp_path / "out.zarr" / "raw")
    source.write_bytes(whole[:12] + b"\0" + whole[13:])
    with pytest.raises(FormatError, match="mode 1, 2 or 6, found 0"):
        ingest(source, tmp_path / "out.zarr" / "raw")
    assert not (tmp_path / "out.zarr").exists()


def test_a_format_that_is_not_installed_is_said(packages: Installed, tmp_path: Path) -> None:
    source = tmp_path / "tomogram.mrc"
    source.write_bytes(b"x")
    with pytest.raises(FormatError, match=r"distribution that adds its format.*\.formats"):
        ingest(source, tmp_path / "out.zarr" / "raw")

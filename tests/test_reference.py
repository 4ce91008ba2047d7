"""`pea reference`: methods that need the whole volume, from a run's affinities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import variation_of_information

from pipeline.geometry import Offsets
from pipeline.segment.sections import multicut_of_sections
from pipeline.segment.voxel_mutex import voxel_mutex_watershed
from pipeline.volume import Volume
from tests.drawn import LONG, files_state, run_tree, set_at, write_inputs, write_run
from workers import cli

Said = pytest.CaptureFixture[str]


def words_of(folder: Path, **changes: object) -> list[str]:
    tree = run_tree(folder / "data.zarr")
    for key, value in changes.items():
        set_at(tree, key.replace("__", "."), value)
    return [str(write_run(folder / "run.yaml", tree)), "--runs", str(folder / "runs")]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_inputs(tmp_path, offsets=LONG)
    return tmp_path


@pytest.mark.parametrize("method", ["waterz", "waterz-median", "mutex-watershed", "lmc"])
def test_a_reference_is_written_and_scored_beside_the_run(inputs: Path, method: str, capsys: Said):
    assert cli.main(["reference", method, *words_of(inputs)]) == 0
    said = capsys.readouterr().out
    assert "depends on the whole volume" in said
    place = inputs / "runs" / "small" / "references" / method
    assert str(place) in said
    written = Volume.open(place)
    truth = Volume.open(inputs / "data.zarr" / "labels")
    assert written.roi == truth.roi
    assert written.attributes["note"] in said
    labels = written.read(written.roi)
    split, merge = variation_of_information(
        truth.read(truth.roi), labels.astype(np.int64), ignore_labels=(0,)
    )
    scores = json.loads(place.with_name(f"{method}.json").read_text())
    assert np.allclose([scores["voi_split"], scores["voi_merge"]], [split, merge], atol=1e-9)
    assert f"VOI {scores['voi']:.4f}" in said
    # Again, over what is there.
    assert cli.main(["reference", method, *words_of(inputs)]) == 0
    assert np.array_equal(Volume.open(place).read(written.roi), labels)
    assert sorted(path.name for path in place.parent.iterdir()) == [method, f"{method}.json"]


def test_references_are_what_the_methods_make_of_the_region(inputs: Path):
    region = {"offset": [160, 80, 72], "shape": [320, 160, 160]}
    words = words_of(inputs, run__data__roi=region, run__data__mask=str(inputs / "data.zarr/mask"))
    source = Volume.open(inputs / "data.zarr" / "affinities")
    expected = {
        "lmc": multicut_of_sections,
        "mutex-watershed": lambda a: voxel_mutex_watershed(a, Offsets.of(LONG)),
    }
    for method, segmented in expected.items():
        assert cli.main(["reference", method, *words]) == 0
        written = Volume.open(inputs / "runs" / "small" / "references" / method)
        labels = segmented(source.read(written.roi))
        valid = Volume.open(inputs / "data.zarr" / "mask").read(written.roi) > 0
        assert np.array_equal(written.read(written.roi), np.where(valid, labels, 0))


def test_what_cannot_be_is_refused_and_leaves_nothing(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
):
    words = words_of(inputs)
    before = files_state(inputs)
    assert cli.main(["reference", "flooding", *words]) == 1
    assert "must be one of: waterz, waterz-median, mutex-watershed, lmc" in capsys.readouterr().err
    monkeypatch.setattr("workers.reference.available_bytes", lambda: 100_000)
    assert cli.main(["reference", "lmc", *words]) == 1
    said = capsys.readouterr().err
    assert "lmc needs about 0.00101 GB for 0.0211 Mvoxel at once, 0.0001 GB are free" in said
    assert "run.data.roi" in said
    assert files_state(inputs) == before


def test_the_mutex_watershed_needs_long_range_affinities(tmp_path: Path, capsys: Said):
    write_inputs(tmp_path)
    assert cli.main(["reference", "mutex-watershed", *words_of(tmp_path)]) == 1
    assert "long-range offsets, found direct neighbours only" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()

"""The kernels of a prediction: bytes of cosines, folded weights, raw values, half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pipeline.errors import DataError
from pipeline.geometry import Offsets
from pipeline.model.folded import folded
from pipeline.model.predictor import Predictor
from pipeline.model.quantised import cosine_bytes
from pipeline.raw import RawScale
from pipeline.volume import Volume
from tests.drawn import write_volume
from tests.predicted import REACHING, drawn_raw, write_checkpoint

Sides = tuple[int, int, int]


# Affinities in bytes


def embeddings(seed: int, shape: Sides, length: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(0, 1, (length, *shape)).astype(np.float32)
    return found * np.float32(10.0 ** (seed % 7 - 3))


def boxes(inner: tuple[Sides, Sides]) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(*inner, strict=True))


vectors = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=5
)


@given(st.integers(0, 1000), st.integers(1, 17), vectors, st.data())
def test_bytes_are_those_of_cosines_in_any_box_and_layout(seed, length, offsets, data):
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    embedding = embeddings(seed, shape, length)
    whole = tuple(slice(0, n) for n in shape)
    found = cosine_bytes(embedding, offsets, whole, whole)
    for channel, offset in zip(found, offsets, strict=True):
        for voxel in np.ndindex(*shape):
            partner = tuple(v + o for v, o in zip(voxel, offset, strict=True))
            if any(not 0 <= p < n for p, n in zip(partner, shape, strict=True)):
                assert channel[voxel] == 0
                continue
            a, b = (torch.from_numpy(embedding[(slice(None), *v)].copy()) for v in (voxel, partner))
            exact = max(0.0, float(functional.cosine_similarity(a, b, dim=0)))
            assert abs(channel[voxel] / 255 - exact) <= 1 / 510 + 1e-3

    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(embedding, 0, -1)), -1, 0)
    for layout in (embedding, channels_last):
        part = cosine_bytes(layout, offsets, inner, whole)
        assert np.array_equal(part, found[(slice(None), *inner)])


def test_embeddings_of_no_length_and_no_number_have_no_affinity():
    embedding = np.ones((3, 1, 1, 4), np.float32)
    embedding[:, 0, 0, 1], embedding[1, 0, 0, 3] = 0, np.nan
    whole = (slice(0, 1), slice(0, 1), slice(0, 4))
    assert cosine_bytes(embedding, [(0, 0, -1)], whole, whole).ravel().tolist() == [0, 0, 0, 0]
    assert cosine_bytes(embedding, [(0, 0, -2)], whole, whole).ravel().tolist() == [0, 0, 255, 0]


@pytest.mark.parametrize("head", ["embedding", "affinity"])
def test_the_way_of_a_gpu_is_within_a_step_of_that_of_a_cpu(head, tmp_path, monkeypatch):
    """With the device's name changed, as there is none here."""
    network = {"head": head, "pyramid": head == "embedding"}
    checkpoint = write_checkpoint(tmp_path / "w.safetensors", REACHING, **network)
    raw = drawn_raw((8, 20, 24)).astype(np.float32) / 255
    inner, inside = boxes(((2, 0, 6), (6, 16, 20))), boxes(((1, 0, 2), (8, 18, 24)))
    here = Predictor(checkpoint.module(), head, Offsets.of(REACHING))
    output = here.output(raw)
    ours = here.affinities(output, Offsets.of(REACHING), inner, inside)
    there = Predictor(checkpoint.module(), head, Offsets.of(REACHING))
    monkeypatch.setattr(there, "_on_cpu", False)
    theirs = there.affinities(output, Offsets.of(REACHING), inner, inside)
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.array_equal(ours == 0, theirs == 0)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_folded_normalisation_is_the_same_network(norm, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "w.safetensors", norm=norm)
    raw = torch.rand(1, 1, 6, 12, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = (m(raw).full for m in (checkpoint.module(), folded(checkpoint.module())))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


# Raw values and half precision


def raw_volume(path: Path, data: np.ndarray) -> Volume:
    return write_volume(path, data, "raw", shard_vx=data.shape)


SCALES: list[tuple[str, Any, list[float], list[float]]] = [
    ("uint8", None, [0, 51, 255], [0, 0.2, 1]),
    ("uint8", (51, 102), [0, 51, 102, 255], [0, 0, 1, 1]),
    ("uint16", (1000, 3000), [0, 1000, 1500, 3000, 65535], [0, 0, 0.25, 1, 1]),
    ("int16", (-100, 100), [-3000, -100, 0, 50], [0, 0, 0.5, 0.75]),
    ("uint32", (4e9, 4.2e9), [0, 4_100_000_000], [0, 0.5]),
    ("float32", None, [0, 0.25, 1], [0, 0.25, 1]),
    ("float64", None, [0, 0.25, 1], [0, 0.25, 1]),
    ("float32", (-1, 1), [-5, -1, 0.5, 7], [0, 0, 0.75, 1]),
]


@pytest.mark.parametrize(("dtype", "given", "values", "expected"), SCALES)
def test_raw_is_brought_to_0_to_1(tmp_path, dtype, given, values, expected):
    data = np.array(values, dtype).reshape(1, 1, -1)
    scaled = RawScale.of(raw_volume(tmp_path / "raw", data), given).apply(data, "the test")
    assert scaled.dtype == np.float32
    assert np.allclose(scaled.ravel(), expected, atol=1e-6)


def test_half_precision_is_compared_with_full_on_every_shape(tmp_path, monkeypatch):
    checkpoint = write_checkpoint(tmp_path / "w.safetensors")
    raw = drawn_raw((4, 16, 16)).astype(np.float32) / 255
    # Weights that nobody trained magnify what is rounded.
    monkeypatch.setattr("pipeline.model.gate.MAX_RELATIVE_ERROR", 0.1)
    monkeypatch.setattr("pipeline.model.gate.MAX_AFFINITY_ERROR", 0.5)
    half = Predictor(checkpoint.module(), "embedding", Offsets(), precision="bf16")
    full = Predictor(checkpoint.module(), "embedding", Offsets())
    exact = full.output(raw)
    assert np.allclose(half.output(raw), exact, atol=0.2 * float(exact.abs().max()))
    monkeypatch.setattr("pipeline.model.gate.MAX_AFFINITY_ERROR", 0.0)
    half.output(raw)  # known already
    with pytest.raises(DataError, match=r"bf16 must agree with fp32(?s:.*)\(4, 16, 32\)"):
        half.output(np.tile(raw, (1, 1, 2)))

"""Cosines of pairs, against torch's own cosine similarity and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.affinity import _PairProducts, cosine_affinities, pair_slices

# Both signs, diagonals, and longer than a side: no pair is left.
OFFSETS = {
    2: [(-1, 0), (0, -1), (0, 3), (2, -1), (-3, -2), (5, 0), (0, -6), (-9, 9)],
    3: [
        (-1, 0, 0),
        (0, -1, 0),
        (0, 0, -1),
        (0, 0, 5),
        (2, -3, 4),
        (-3, 0, 0),
        (4, 0, 0),
        (1, 9, 0),
    ],
}
SIDES = {2: (5, 6), 3: (4, 5, 7)}


def drawn(axes: int, seed: int = 1, channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, channels, *SIDES[axes]), generator=generator) * 3


def slow_cosines(embedding: Tensor, offsets: list[tuple[int, ...]], partner: Tensor) -> Tensor:
    """Pair by pair of voxels."""
    sides = embedding.shape[2:]
    found = torch.zeros((len(embedding), len(offsets), *sides))
    for channel, offset in enumerate(offsets):
        for here in torch.cartesian_prod(*(torch.arange(side) for side in sides)).tolist():
            there = [a + b for a, b in zip(here, offset, strict=True)]
            if all(0 <= a < side for a, side in zip(there, sides, strict=True)):
                a, b = embedding[(..., *here)], partner[(..., *there)]
                found[(slice(None), channel, *here)] = functional.cosine_similarity(a, b, dim=1)
    return found


@pytest.mark.parametrize("axes", [2, 3])
def test_cosines_are_those_of_each_pair(axes):
    embedding, other = drawn(axes), drawn(axes, seed=2)
    alone = cosine_affinities(embedding, OFFSETS[axes])
    torch.testing.assert_close(alone, slow_cosines(embedding, OFFSETS[axes], embedding))
    across = cosine_affinities(embedding, OFFSETS[axes], other)
    torch.testing.assert_close(across, slow_cosines(embedding, OFFSETS[axes], other))
    assert alone.dtype == torch.float32
    assert (alone - across).abs().max() > 0.5


def test_cross_correlation_looks_for_the_second_voxel_in_the_partner():
    embedding, partner = torch.zeros(2, 1, 2, 1, 3)
    embedding[0, 0], partner[0, 0, 0] = 1, torch.tensor([0.5, -2, 0])
    found = cosine_affinities(embedding, [(0, -1), (0, 1)], partner)
    assert found[0, :, 0].tolist() == [[0, 1, -1], [-1, 0, 0]]


def test_a_plane_is_a_volume_of_one_section():
    embedding = drawn(2)
    flat = cosine_affinities(embedding, OFFSETS[2])
    deep = cosine_affinities(embedding[:, :, None], [(0, *offset) for offset in OFFSETS[2]])
    assert torch.equal(flat, deep[:, :, 0])


def test_offsets_beyond_the_side_have_no_pairs():
    for step in (-9, -4, 4, 9):
        here, there = pair_slices((step,), (4,))
        assert torch.zeros(4)[here].numel() == torch.zeros(4)[there].numel() == 0


def test_embeddings_of_no_length_and_of_great_length():
    embedding = torch.zeros(1, 2, 1, 4)
    embedding[0, :, 0, 1] = 1e15
    embedding[0, :, 0, 2] = 1e-6
    embedding.requires_grad_()
    found = cosine_affinities(embedding, [(0, -1)])
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    found.sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_half_precision_is_summed_in_single():
    embedding = drawn(3).bfloat16()
    found = cosine_affinities(embedding, OFFSETS[3])
    assert torch.equal(found, cosine_affinities(embedding.float(), OFFSETS[3]))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("leaves", ["both", "first", "second", "same"])
def test_gradients_are_those_of_finite_differences(axes, leaves):
    offsets = {
        2: ((-1, 0), (0, 2), (1, -2), (3, 0)),
        3: ((0, -1, 0), (0, 0, 2), (-1, 1, -2), (0, 3, 0)),
    }[axes]
    shape = (1, 2, *(2, 2, 3)[3 - axes :])
    a, b = torch.randn((2, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    a.requires_grad_(leaves != "second")
    b.requires_grad_(leaves in ("both", "second"))
    if leaves == "same":
        assert torch.autograd.gradcheck(lambda x: _PairProducts.apply(x, x, offsets), (a,))
    else:
        assert torch.autograd.gradcheck(lambda x, y: _PairProducts.apply(x, y, offsets), (a, b))


@pytest.mark.parametrize("axes", [2, 3])
def test_gradients_through_the_lengths_are_those_of_cosine_similarity(axes):
    found, expected = [], []
    for gradients, cosines in ((found, cosine_affinities), (expected, slow_cosines)):
        one = drawn(axes).requires_grad_()
        two = drawn(axes, seed=2).requires_grad_()
        weights = torch.linspace(-1, 1, 2 * len(OFFSETS[axes])).reshape(2, -1, *[1] * axes)
        (cosines(one, OFFSETS[axes], two) * weights).sum().backward()
        gradients += [one.grad, two.grad]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cross", [False, True])
def test_memory_kept_for_the_gradient_does_not_grow_with_offsets(cross):
    def kept_bytes(offsets: list[tuple[int, ...]]) -> int:
        kept = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        embedding = drawn(3).requires_grad_()
        partner = drawn(3, seed=2).requires_grad_() if cross else None
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            found = cosine_affinities(embedding, offsets, partner)
        assert found.requires_grad
        return sum(kept.values())

    one, many = kept_bytes(OFFSETS[3][:1]), kept_bytes(OFFSETS[3])
    assert 0 < one == many

"""Affinities of embeddings: the cosine between the two voxels of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-12
"""The least length that an embedding is divided by."""


def cosine_affinities(
    embedding: Tensor, offsets: Sequence[Sequence[int]], partner: Tensor | None = None
) -> Tensor:
    """Cosines between voxels ``v`` and ``v + offset``, stored at ``v``.

    In two dimensions as in three: an offset has one number for each axis of space. Nothing of the
    size of an embedding is kept per offset, forward or backward.

    Args:
        embedding: ``(B, E, ...)``, of any length; ``v`` is looked up here.
        partner: another of the same shape, where ``v + offset`` is looked up (cross-correlation);
            the same embedding if left out (self-correlation).

    Returns:
        ``(B, C, ...)`` float32 in [-1, 1]; 0 where the partner lies outside.
    """
    a = functional.normalize(embedding.float(), dim=1, eps=EPSILON).contiguous()
    if partner is None:
        b = a
    else:
        b = functional.normalize(partner.float(), dim=1, eps=EPSILON).contiguous()
    vectors = tuple(tuple(int(n) for n in offset) for offset in offsets)
    pairs: Tensor = _PairProducts.apply(a, b, vectors)  # type: ignore[no-untyped-call]
    return pairs


def pair_slices(
    offset: Sequence[int], sides: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where ``v`` and ``v + offset`` lie, for all pairs that are inside; empty if none is."""
    here, there = [], []
    for step, side in zip(offset, sides, strict=True):
        length = max(0, side - abs(step))
        here.append(slice(max(0, -step), max(0, -step) + length))
        there.append(slice(max(0, step), max(0, step) + length))
    return tuple(here), tuple(there)


class _PairProducts(torch.autograd.Function):
    """Scalar products of pairs, summed channel by channel, so that no product is ever kept."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, offsets: tuple[tuple[int, ...], ...]) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.offsets = offsets
        pairs = a.new_zeros((a.shape[0], len(offsets), *a.shape[2:]))
        for channel, offset in enumerate(offsets):
            here, there = pair_slices(offset, a.shape[2:])
            target = pairs[:, channel][:, *here]
            for e in range(a.shape[1]):
                target.addcmul_(a[:, e][:, *here], b[:, e][:, *there])
        return pairs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        a, b = ctx.saved_tensors
        to_a = torch.zeros_like(a) if ctx.needs_input_grad[0] else None
        to_b = torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        for channel, offset in enumerate(ctx.offsets):
            here, there = pair_slices(offset, a.shape[2:])
            g = gradient[:, channel][:, *here]
            for e in range(a.shape[1]):
                if to_a is not None:
                    to_a[:, e][:, *here].addcmul_(g, b[:, e][:, *there])
                if to_b is not None:
                    to_b[:, e][:, *there].addcmul_(g, a[:, e][:, *here])
        return to_a, to_b, None

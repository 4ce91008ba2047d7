"""The losses of PEA (AAAI-2022): self-correlation, cross-correlation, embedding pyramid.

Where the paper and its code differ, both can be had: every rule is a field of ``Loss``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import Loss, Network
from pipeline.geometry import Offsets
from pipeline.model.affinity import cosine_affinities, pair_slices
from pipeline.model.output import Output

RAREST, COMMONEST = 0.05, 0.99
"""Bounds of the share of pairs that belong together, for weights."""

Vectors = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Targets:
    """What the pairs of a batch of labels should be; all ``(B, C, ...)``."""

    affinities: Tensor
    """1 where both voxels belong to one object, else 0; float32."""
    counted: Tensor
    """Pairs that the loss sees, bool."""
    weights: Tensor
    """Of each pair in the loss, float32; 0 where not counted."""

    @classmethod
    def of(cls, labels: Tensor, offsets: Vectors, loss: Loss) -> Targets:
        """Of labels ``(B, ...)``; 0 is background."""
        sides = labels.shape[1:]
        shape = (labels.shape[0], len(offsets), *sides)
        together = torch.zeros(shape, dtype=torch.bool, device=labels.device)
        counted = torch.zeros_like(together)
        in_ratio = torch.full_like(together, loss.count_missing)
        for channel, offset in enumerate(offsets):
            here, there = pair_slices(offset, sides)
            a, b = labels[:, *here], labels[:, *there]
            both_background = (a == 0) & (b == 0)
            same = a == b
            if loss.background_pair != "together":
                same = same & ~both_background
            seen = ~both_background | (loss.background_pair != "ignored")
            together[:, channel][:, *here] = same
            counted[:, channel][:, *here] = seen
            in_ratio[:, channel][:, *here] = seen
        affinities = together.float()
        weights = counted.float()
        if loss.balance:
            weights = weights * class_weights(affinities, in_ratio)
        return cls(affinities, counted, weights)


def class_weights(affinities: Tensor, counted: Tensor) -> Tensor:
    """Weights that make both classes of pairs count alike, for each crop and offset.

    The commoner class has weight 1. Where all pairs are of one class, all weights are 1.

    Args:
        affinities: ``(B, C, ...)``, 0 or 1.
        counted: the pairs that the ratio is taken of, bool of the same shape.
    """
    axes = tuple(range(2, affinities.ndim))
    total = counted.sum(axes, keepdim=True)
    ones = (affinities * counted).sum(axes, keepdim=True)
    share = (ones / total.clamp(min=1)).clamp(RAREST, COMMONEST)
    for_ones = torch.where(share > 0.5, 1.0, (1 - share) / share)
    for_zeros = torch.where(share > 0.5, share / (1 - share), 1.0)
    weights = torch.where(affinities > 0, for_ones, for_zeros)
    constant = (ones == 0) | (ones == total)
    return torch.where(constant, torch.ones_like(weights), weights)


def weighted_error(error: Tensor, targets: Targets, loss: Loss) -> Tensor:
    """A scalar: the weighted mean over the counted pairs of each offset, put together.

    Args:
        error: of each pair, ``(B, C, ...)``.
    """
    axes = (0, *range(2, error.ndim))
    counted = targets.counted.sum(axes).clamp(min=1)
    channels = (error * targets.weights).sum(axes) / counted
    return channels.sum() if loss.channels == "sum" else channels.mean()


@dataclass(frozen=True)
class Criterion:
    """The whole loss of a batch."""

    loss: Loss
    network: Network
    offsets: Offsets

    def __call__(
        self, output: Output, labels: Tensor, view: Tensor | None = None
    ) -> Mapping[str, Tensor]:
        """The weighted terms of the loss; their sum is what is minimised.

        Args:
            output: of the network for a batch.
            labels: ``(B, Z, Y, X)``, 0 is background.
            view: embedding ``(B, E, Z, Y, X)`` of the transformed view, its transformation undone.
        """
        loss, vectors = self.loss, self.offsets.vectors
        targets = Targets.of(labels, vectors, loss)
        if self.network.head == "affinity":
            error = functional.binary_cross_entropy_with_logits(
                output.full.float(), targets.affinities, reduction="none"
            )
            return {"affinity": loss.self_correlation * weighted_error(error, targets, loss)}

        def correlation(embedding: Tensor, partner: Tensor | None = None) -> Tensor:
            cosines = cosine_affinities(embedding, vectors, partner)
            return weighted_error((cosines - targets.affinities) ** 2, targets, loss)

        terms = {"self": loss.self_correlation * correlation(output.full)}
        if view is not None:
            partner = view.detach() if loss.detach else view
            terms["cross"] = loss.cross_correlation * correlation(output.full, partner)
        if loss.pyramid > 0:
            for level, term in enumerate(self.pyramid_terms(output.pyramid, labels), start=1):
                terms[f"pyramid_{level}"] = loss.pyramid * term
        return terms

    def pyramid_terms(self, pyramid: Sequence[Tensor], labels: Tensor) -> list[Tensor]:
        """Self-correlation of each coarser level, finest first."""
        given = self.loss.pyramid_offsets or (Offsets(),) * len(pyramid)
        terms = []
        for embedding, offsets, factor in zip(
            pyramid, given, self.network.level_factors, strict=True
        ):
            coarse = labels[:, :: factor.z, :: factor.y, :: factor.x]
            targets = Targets.of(coarse, offsets.vectors, self.loss)
            cosines = cosine_affinities(embedding, offsets.vectors)
            error = (cosines - targets.affinities) ** 2
            terms.append(weighted_error(error, targets, self.loss))
        return terms

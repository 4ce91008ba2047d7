"""A trained network on a device: a patch of raw in, affinities in bytes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.geometry import Offsets
from pipeline.model.affinity import cosine_affinities, pair_slices
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.folded import folded
from pipeline.model.gate import refuse_rough
from pipeline.model.quantised import cosine_bytes

Box = tuple[slice, ...]


class Predictor:
    """The same patch has the same bits in every process on the same hardware."""

    def __init__(
        self,
        network: nn.Module,
        head: Literal["embedding", "affinity"],
        trained: Offsets,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        """
        Args:
            network: in evaluation mode; it is changed and moved.
            trained: the offsets of the channels of a head of affinities.
        """
        self._head = head
        self._trained = trained
        self._device = torch.device(device)
        self._on_cpu = self._device.type == "cpu"
        self._half = precision == "bf16"
        self._compared: set[tuple[int, ...]] = set()
        self._network = folded(network).to(self._device)
        self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def output(self, raw: np.ndarray) -> Tensor:
        """What the network says of a patch.

        Args:
            raw: float32 ``(z, y, x)`` in [0, 1].

        Returns:
            float32 ``(channel, z, y, x)`` on the device.

        Raises:
            DataError: bf16 disagrees with fp32 on the first patch of this shape.
        """
        depth, height, width = raw.shape
        batch = torch.from_numpy(raw).to(self._device, non_blocking=True)
        # One channel alone has no order, and torch then takes the slower one.
        strides = (raw.size, 1, height * width, width, 1)
        batch = batch.as_strided((1, 1, depth, height, width), strides)
        if self._half and raw.shape not in self._compared:
            self._compared.add(raw.shape)
            embeds = self._head == "embedding"
            refuse_rough(lambda half: self._run(batch, half), embeds, f"patches of {raw.shape}")
        return self._run(batch, self._half)[0]

    def _run(self, batch: Tensor, half: bool) -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=half),
        ):
            output: Tensor = self._network(batch).full.float()
        return output

    def affinities(self, output: Tensor, offsets: Offsets, inner: Box, inside: Box) -> np.ndarray:
        """Affinities of a box of a patch.

        Args:
            output: of the network.
            offsets: the pairs; of a head of affinities, among those it was trained on.
            inner: the box.
            inside: where the volume lies, in voxels of the patch, reaching beyond it or not. A
                partner outside of the volume gives 0.

        Returns:
            uint8 ``(offset, z, y, x)``, ``round(255 * a)``.
        """
        if self._head == "embedding":
            # All partners of a voxel lie in its patch; direct affinities need none.
            sides = output.shape[1:]
            inside = tuple(
                slice(max(0, w.start), min(n, w.stop)) for w, n in zip(inside, sides, strict=True)
            )
            if self._on_cpu:
                return cosine_bytes(output.numpy(), offsets.vectors, inner, inside)
        with torch.inference_mode():
            if self._head == "embedding":
                values = self._cosines(output, offsets, inner, inside)
            else:
                order = [self._trained.vectors.index(vector) for vector in offsets.vectors]
                values = output[order][(slice(None), *inner)].sigmoid()
                lost = ~_partnered(offsets, inner, inside)
                values[torch.from_numpy(lost).to(self._device)] = 0
            return values.mul(255).add(0.5).clamp(0, 255).to(torch.uint8).cpu().numpy()

    def _cosines(self, output: Tensor, offsets: Offsets, inner: Box, inside: Box) -> Tensor:
        """On a GPU; as ``cosine_bytes`` but for the last bits."""
        found = cosine_affinities(output[(slice(None), *inside)][None], offsets.vectors)[0]
        here = (
            slice(p.start - w.start, p.stop - w.start) for p, w in zip(inner, inside, strict=True)
        )
        return found[(slice(None), *here)].clamp_min(0)


def _partnered(offsets: Offsets, inner: Box, inside: Box) -> np.ndarray:
    """Which pairs of a box have a partner inside, bool ``(offset, z, y, x)``."""
    sides = [whole.stop - whole.start for whole in inside]
    here = [slice(p.start - w.start, p.stop - w.start) for p, w in zip(inner, inside, strict=True)]
    found = np.zeros((len(offsets), *(part.stop - part.start for part in inner)), bool)
    for channel, vector in zip(found, offsets.vectors, strict=True):
        pairs, _ = pair_slices(vector, sides)
        cut = [
            slice(
                max(a.start, b.start) - b.start,
                max(a.start, b.start, min(a.stop, b.stop)) - b.start,
            )
            for a, b in zip(pairs, here, strict=True)
        ]
        channel[tuple(cut)] = True
    return found


@contextmanager
def predictor(
    path: Path,
    device: str,
    precision: Literal["fp32", "bf16"],
    threads: int,
) -> Iterator[Predictor]:
    """A predictor from a checkpoint, with torch set so that it repeats itself.

    Args:
        threads: of torch on a CPU.

    Raises:
        NotFoundError, CheckpointError: the file; ConfigError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "torch finds no GPU that it can use, and run.predict.device is cuda, or auto on a "
            "machine with a GPU\nMend the driver, or set run.predict.device=cpu."
        )
    checkpoint = Checkpoint.read(path)
    cudnn = torch.backends.cudnn
    before = (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    try:
        header = checkpoint.header
        network = checkpoint.module()
        yield Predictor(network, header.network.head, header.offsets, device, precision)
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before[1:]

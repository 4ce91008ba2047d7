"""The weights of a network on disk: safetensors, with a description of the network inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.checkpoint import Header
from pipeline.errors import CheckpointError, NotFoundError
from pipeline.model.backbone import build
from pipeline.tables import replacing

PARALLEL = "module."
"""Prefix that PyTorch's data-parallel wrappers put before each name."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were checked against the network they describe."""

    header: Header
    weights: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """A checkpoint, complete and finite.

        Raises:
            NotFoundError: no such file; CheckpointError: not safetensors, truncated, another
            network than it says, or NaN. Nothing is allocated for a network that is not there.
        """
        header = Header.read(path)
        found = read_tensors(path)
        tensors = {name.removeprefix(PARALLEL): tensor for name, tensor in found.items()}
        if len(tensors) < len(found):
            raise CheckpointError(
                f"a checkpoint must hold each tensor once, this one has some with and without "
                f"{PARALLEL!r} before the name: {path}\nTake another one, or train again."
            )
        with torch.device("meta"):
            expected = build(header.network, len(header.offsets)).state_dict()
        check_tensors(tensors, expected, path)
        return cls(header, tensors)

    def write(self, path: Path) -> None:
        """Write the file in one step."""
        write_tensors(path, self.weights, self.header.metadata())

    def module(self) -> nn.Module:
        """The network, ready to predict."""
        module = build(self.header.network, len(self.header.offsets))
        module.load_state_dict(dict(self.weights))
        return module.eval()


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are not those of a network.

    Raises:
        CheckpointError: missing, unexpected, of another shape, or not finite.
    """
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    for name in found.keys() & expected.keys():
        a, b = found[name], expected[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            problems.append(
                f"{name} is {a.dtype} {list(a.shape)}, should be {b.dtype} {list(b.shape)}"
            )
        elif a.is_floating_point() and not bool(a.isfinite().all()):
            problems.append(f"{name} has values that are not finite")
    if problems:
        shown = "; ".join(problem[:120] for problem in sorted(problems)[:4])
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(
            f"a checkpoint must hold the network it describes: {path}\n{shown}{more}\n"
            "Take another one, or train again."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        NotFoundError: no such file; CheckpointError: truncated or damaged.
    """
    try:
        return dict(safetensors.torch.load_file(path))
    except FileNotFoundError:
        raise NotFoundError(f"no checkpoint at {path}") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"damaged checkpoint {path}\n{' '.join(str(error).split())[:200]}\n"
            "Copy it again, take another one, or train again."
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step, from tensors on any device."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        safetensors.torch.save_file(plain, partial, metadata)

"""What a checkpoint says of itself, read without its tensors and without torch.

A checkpoint is a safetensors file: eight bytes with the length of a JSON header, the header, the
tensors. Nothing in it is ever executed. Our description is one JSON text in the header's metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import Network
from pipeline.errors import CheckpointError, ConfigError, NotFoundError
from pipeline.geometry import Offsets

KEY = "pea-connectomics"
"""Of our description in the metadata of the file."""
FORMAT = 1
MAX_HEADER_BYTES = 16_000_000


@dataclass(frozen=True)
class Header:
    """The description in a checkpoint."""

    network: Network
    offsets: Offsets
    """That it was trained on."""
    step: int
    """Of the training that made it."""
    run: dict[str, Any]
    """The ``run`` section of its training, as plain values."""
    scores: dict[str, Any]
    """Of the validation that chose it; empty without one."""

    @classmethod
    def read(cls, path: Path) -> Header:
        """The description in a file.

        Raises:
            NotFoundError: no such file; CheckpointError: it is no checkpoint of ours.
        """
        return cls.of(read_metadata(path), path)

    @classmethod
    def of(cls, metadata: dict[str, Any], path: Path) -> Header:
        try:
            said = json.loads(metadata[KEY])
            if said["format"] != FORMAT:
                raise CheckpointError(
                    f"a checkpoint must have format {FORMAT}, found {said['format']!r}: {path}\n"
                    "It was made by another version of this project."
                )
            return cls(
                network=Network.model_validate_json(json.dumps(said["network"])),
                offsets=Offsets.of(said["offsets"]),
                step=int(said["step"]),
                run=dict(said["run"]),
                scores=dict(said["scores"]),
            )
        except (KeyError, TypeError, ValidationError, ConfigError, json.JSONDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"a checkpoint must describe its network, this one does not: {path}\n{reason}\n"
                "Weights of other programs must be converted: see pipeline/model/checkpoint.py."
            ) from None

    def metadata(self) -> dict[str, str]:
        """The metadata of a file that says this."""
        said = {
            "format": FORMAT,
            "network": self.network.model_dump(mode="json"),
            "offsets": self.offsets.numbers(),
            "step": self.step,
            "run": self.run,
            "scores": self.scores,
        }
        return {KEY: json.dumps(said)}


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file.

    Raises:
        NotFoundError: no such file; CheckpointError: it is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise ValueError(f"its header would have {length} bytes")
            header = json.loads(file.read(length))
        return dict(header.get("__metadata__", {}))
    except FileNotFoundError:
        raise NotFoundError(f"no checkpoint at {path}") from None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"a checkpoint must be a safetensors file, this is none: {path}\n"
            f"{' '.join(str(error).split())[:200]}\n"
            "Pickled checkpoints (.pt, .ckpt) can run any code and are never opened."
        ) from None

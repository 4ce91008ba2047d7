"""What a checkpoint says of itself, read without its tensors and without torch.

A checkpoint is a safetensors file: eight bytes with the length of a JSON header, the header, the
tensors. Nothing in it is ever executed. Our description is one JSON text in the header's metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Network
from pipeline.errors import CheckpointError, ExtensionError, NotFoundError
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
            NotFoundError: no such file; CheckpointError: it is no checkpoint of ours;
            ExtensionError: its backbone is not installed.
        """
        return cls.of(read_metadata(path), path)

    @classmethod
    def of(cls, metadata: dict[str, Any], path: Path) -> Header:
        """The description in the metadata of a file.

        Raises:
            CheckpointError: there is none, or not one that can be used; ExtensionError: its
            backbone is not installed.
        """
        if KEY not in metadata:
            raise _undescribed(path, f"its metadata have no {KEY}, only {list(metadata)}")
        try:
            said = dict(json.loads(metadata[KEY]))
            found = said["format"]
        except KeyError:
            raise _undescribed(path, "it has no format") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise _undescribed(path, error) from None
        if type(found) is not int or found != FORMAT:
            raise CheckpointError(
                f"a checkpoint must have format {FORMAT}, found {found!r:.80}: {path}\n"
                "It was made by another version of this project: use that one, or train again."
            )
        try:
            return cls(
                network=Network.model_validate_json(json.dumps(said["network"])),
                offsets=Offsets.of(said["offsets"]),
                step=_step(said["step"]),
                run=_mapping(said, "run"),
                scores=_mapping(said, "scores"),
            )
        except ExtensionError as error:
            raise ExtensionError(f"{path} cannot be used here: {error}") from error
        except KeyError as error:
            raise _undescribed(path, f"it has no {error.args[0]}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise _undescribed(path, error) from None

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


def _mapping(said: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(said[key], dict):
        raise TypeError(f"{key} must be a mapping, found {said[key]!r:.80}")
    return dict(said[key])


def _step(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"step must be a whole number from 0, found {value!r:.80}")
    return value


def _undescribed(path: Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f"a checkpoint must describe its network, this one does not: {path}\n"
        f"{' '.join(str(reason).split())[:300]}\n"
        "Weights of other programs must be converted: see pipeline/model/checkpoint.py."
    )


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

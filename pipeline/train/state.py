"""All that a training is at one moment, on disk in one file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.checkpoint import Header, read_metadata
from pipeline.errors import CheckpointError, ExistsError
from pipeline.model.backbone import build
from pipeline.model.checkpoint import Checkpoint, check_tensors, read_tensors, write_tensors
from pipeline.rundir import Identity
from pipeline.train.optimizer import make_optimizer
from pipeline.train.task import Task

KEY = "training"
"""Of our part of the metadata."""


@dataclass
class TrainingState:
    """Changes with every step."""

    module: nn.Module
    averaged: AveragedModel | None
    """The moving average of the weights."""
    optimizer: torch.optim.Optimizer
    step: int
    """Steps done."""
    best: dict[str, Any]
    """Scores of the best validation so far; empty before the first."""
    seconds: float
    """Spent training, all starts together."""

    @classmethod
    def new(cls, task: Task, device: torch.device) -> TrainingState:
        """Before the first step; the weights follow from the seed, or from ``train.initial``."""
        train = task.train
        torch.manual_seed(train.seed)
        module = build(task.run.network, len(train.offsets))
        if train.initial is not None:
            module.load_state_dict(dict(Checkpoint.read(train.initial).weights))
        module = module.to(device)
        module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        averaged = None
        if train.ema:
            averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(train.ema))  # type: ignore[no-untyped-call]
        optimizer = make_optimizer(train.optimizer, module.parameters())
        return cls(module, averaged, optimizer, 0, {}, 0.0)

    @property
    def chosen(self) -> nn.Module:
        """The network that is validated and kept: of averaged weights if there are any."""
        if self.averaged is None:
            return self.module
        averaged = self.averaged.module
        assert isinstance(averaged, nn.Module)
        return averaged

    def checkpoint(self, task: Task, scores: dict[str, Any]) -> Checkpoint:
        """The weights as they are now."""
        train = task.train
        plain = task.run.model_dump(mode="json")
        header = Header(task.run.network, train.offsets, self.step, plain, scores)
        return Checkpoint(header, self.chosen.state_dict())

    def write(self, path: Path, identity: Identity) -> None:
        """Write everything in one step."""
        tensors = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        if self.averaged is not None:
            tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        for number, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in slots.items()}
        said = {
            "step": self.step,
            "best": self.best,
            "seconds": self.seconds,
            "revision": identity.revision,
            "parameters": identity.parameters,
            "inputs": identity.inputs,
        }
        write_tensors(path, tensors, {KEY: json.dumps(said)})

    def read(self, path: Path, identity: Identity) -> None:
        """Become what was written.

        Raises:
            ExistsError: it is of a training with other settings or data; CheckpointError: damaged.
        """
        said = _said(path)
        changes = identity.changes_since(said)
        if changes:
            raise ExistsError(
                f"the training in {path.parent} was begun with other settings or data\n"
                + "\n".join(f"  {change}" for change in changes)
                + "\nTake another run.name, or begin anew: pea train RUN.yaml --rerun"
            )
        tensors = read_tensors(path)
        module = _part(tensors, "module.")
        check_tensors(module, self.module.state_dict(), path)
        self.module.load_state_dict(module)
        if self.averaged is not None:
            averaged = _part(tensors, "averaged.")
            check_tensors(averaged, self.averaged.state_dict(), path)
            self.averaged.load_state_dict(averaged)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            number, slot = name.split(".", 1)
            slots.setdefault(int(number), {})[slot] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.step, self.best = int(said["step"]), dict(said["best"])
        self.seconds = float(said["seconds"])


def steps_done(path: Path) -> int:
    """Of the training whose state a file holds; 0 if there is none.

    Raises:
        CheckpointError: the file holds something else.
    """
    return int(_said(path)["step"]) if path.exists() else 0


def _said(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(read_metadata(path)[KEY]))
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"this is not the state of a training: {path}\nBegin anew: pea train RUN.yaml --rerun"
        ) from None


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

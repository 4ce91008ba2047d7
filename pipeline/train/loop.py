"""The training loop: batches to weights, with validation, checkpoints and resumption."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config import Train
from pipeline.errors import DataError
from pipeline.model.gate import IN_TRAINING, refuse_rough
from pipeline.model.losses import Criterion
from pipeline.train.batches import Batch, Batches
from pipeline.train.logbook import Logbook
from pipeline.train.optimizer import learning_rate
from pipeline.train.state import TrainingState
from pipeline.train.task import Task
from pipeline.train.validation import Validated, validated

NOTE_EVERY = 10
"""Steps between the rows of the curves."""


class Progress(NamedTuple):
    """How a training is getting on."""

    step: int
    """Steps done."""
    loss: float
    validated: Validated | None
    """If this step ended with a validation."""


def train_network(
    task: Task,
    device: torch.device,
    workers: int,
    on_step: Callable[[Progress], bool],
    anew: bool = False,
) -> TrainingState:
    """Train to the last step, from where an earlier start ended.

    On a CPU, with the same number of threads, the weights do not depend on interruptions. A stop
    leaves the state of the last step, a death that of the last ``checkpoint_every``.

    Args:
        on_step: called after each step; true stops the training there.
        workers: processes that prepare batches; the batches are the same for any number.
        anew: forget what was trained.

    Raises:
        ExistsError: the earlier training had other settings or data; DataError: the loss is not
        finite, or bf16 too rough; PipelineError: of the batches.
    """
    train = task.train
    folder = task.where.checkpoints
    state = TrainingState.new(task, device)
    saved = task.where.training_state
    if saved.exists() and not anew:
        state.read(saved, task.identity)
    if state.step == train.steps:
        return state
    criterion = Criterion(train.loss, task.run.network, train.offsets)
    # Checks that crops can be had, so it comes before anything is written or forgotten.
    source = Batches(task.data, train, workers, train.loss.cross_correlation > 0)
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    logbook = Logbook(folder, state.step)
    meter = Meter(state.seconds)
    compared = False
    try:
        with source as batches:
            for batch in batches.starting_at(state.step):
                meter.batch_arrived()
                if train.precision == "bf16" and not compared:
                    compare_precisions(state, task, batch, device)
                    compared = True
                rate = learning_rate(train.optimizer, state.step, train.steps)
                terms = one_step(state, batch, criterion, train, rate, device)
                meter.step_done(terms)
                state.seconds = meter.seconds
                last = state.step == train.steps
                if state.step % NOTE_EVERY == 0 or last:
                    logbook.note(state.step, meter.row(train.batch) | {"learning_rate": rate})
                result = None
                if train.validation and (state.step % train.validation.every == 0 or last):
                    result = keep_if_best(state, task, logbook, device)
                elif last:
                    state.checkpoint(task, {}).write(folder / "best.safetensors")
                stop = on_step(Progress(state.step, sum(terms.values()), result)) or last
                if stop or result or state.step % train.checkpoint_every == 0:
                    state.checkpoint(task, {}).write(folder / "last.safetensors")
                    state.write(saved, task.identity)
                if stop:
                    break
                meter.waiting()
    finally:
        logbook.close()
    return state


def one_step(
    state: TrainingState,
    batch: Batch,
    criterion: Criterion,
    train: Train,
    rate: float,
    device: torch.device,
) -> Mapping[str, float]:
    """Change the weights by one batch; the terms of its loss.

    Raises:
        DataError: the loss is not finite. The state is as it was.
    """
    module = state.module.train()
    layout = torch.channels_last_3d
    raw = torch.from_numpy(batch.raw).to(device, memory_format=layout, non_blocking=True)
    labels = torch.from_numpy(batch.labels).to(device, non_blocking=True)
    half = train.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        output = module(raw)
        view = None
        if batch.view is not None:
            seen = torch.from_numpy(batch.view).to(device, memory_format=layout)
            # Without gradients it costs a third, and its statistics count all the same.
            with torch.set_grad_enabled(not train.loss.detach):
                transformed = module(seen).full
            view = _undone(transformed, batch)
    terms = criterion(output, labels, view)
    loss = torch.stack(list(terms.values())).sum()
    if not bool(loss.isfinite()):
        raise DataError(
            f"the loss of step {state.step + 1} is {float(loss.detach())}\n"
            "Lower run.train.optimizer.learning_rate, or set clip_norm; the last checkpoint stays."
        )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if train.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), train.optimizer.clip_norm)
    state.optimizer.step()
    if state.averaged is not None:
        state.averaged.update_parameters(module)
    state.step += 1
    return {name: float(term.detach()) for name, term in terms.items()}


def compare_precisions(
    state: TrainingState, task: Task, batch: Batch, device: torch.device
) -> None:
    """Raise unless bf16 agrees with fp32 on a batch, whose statistics then do not count.

    Raises:
        DataError: it does not.
    """
    module = copy.deepcopy(state.module).train()
    raw = torch.from_numpy(batch.raw).to(device, memory_format=torch.channels_last_3d)

    def output(half: bool) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            full: Tensor = module(raw).full
            return full

    embeds = task.run.network.head == "embedding"
    refuse_rough(output, embeds, f"batches of {list(batch.raw.shape)}", IN_TRAINING)


def _undone(transformed: Tensor, batch: Batch) -> Tensor:
    """Embeddings of the views, each turned back to where its crop lies."""
    turned = [t.undo(e) for t, e in zip(batch.transforms, transformed, strict=True)]
    return torch.stack(turned)


def keep_if_best(
    state: TrainingState, task: Task, logbook: Logbook, device: torch.device
) -> Validated:
    """Validate; keep the weights if no validation before was better."""
    result, pictures = validated(state.chosen, task, device)
    scores = result.as_dict()
    logbook.note(state.step, {f"validation/{name}": scores[name] for name in CURVES})
    logbook.draw(state.step, pictures)
    if not state.best or scores["voi"] < state.best["voi"]:
        state.best = {"step": state.step, **scores}
        checkpoint = state.checkpoint(task, state.best)
        checkpoint.write(task.where.checkpoints / "best.safetensors")
    return result


CURVES = ("voi", "voi_split", "voi_merge", "arand", "threshold")


@dataclass
class Meter:
    """Means since the last row."""

    seconds: float
    """Of training, all starts together; validation counts."""
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    waited: float = 0.0
    began: float = field(default_factory=time.monotonic)
    mark: float = field(default_factory=time.monotonic)

    def waiting(self) -> None:
        self._pass()

    def batch_arrived(self) -> None:
        self.waited += self._pass()

    def step_done(self, terms: Mapping[str, float]) -> None:
        self._pass()
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def row(self, batch: int) -> dict[str, float]:
        """The means, and a new beginning."""
        passed = max(time.monotonic() - self.began, 1e-9)
        means = {f"loss/{name}": total / self.steps for name, total in self.sums.items()}
        row = {
            "loss": sum(means.values()),
            **means,
            "crops_per_s": self.steps * batch / passed,
            "share_waited": self.waited / passed,
        }
        self.sums, self.steps, self.waited, self.began = {}, 0, 0.0, time.monotonic()
        return row

    def _pass(self) -> float:
        now = time.monotonic()
        passed, self.mark = now - self.mark, now
        self.seconds += passed
        return passed

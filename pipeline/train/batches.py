"""Batches for training, made ahead of time by processes of their own.

Worker ``w`` of ``n`` makes the batches of steps ``w, w + n, ...``, so they come in order whoever is
faster. A batch depends on the seed and its step alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.config import Train
from pipeline.errors import PipelineError, RoiError, StageError
from pipeline.train.data import Batch as Batch
from pipeline.train.data import TrainingData as TrainingData
from pipeline.train.source import Source
from pipeline.train.view import IN_PLACE, orders

if TYPE_CHECKING:
    from pipeline.train.crops import Crops

AHEAD = 2
"""Steps that a worker knows of: it begins with the next as soon as it has handed one over."""
SECONDS_TO_END = 10
ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "NUMBA")


class Batches:
    """The batches of a training; a context that ends its workers.

    Args:
        workers: processes; 0 makes batches in this one, when they are asked for.
        view: also make the view that cross-correlation needs.

    Raises:
        RoiError: the region does not hold a crop, or the volumes do not hold the region.
        NotFoundError, FormatError, MetadataError: not volumes.
    """

    def __init__(self, data: TrainingData, train: Train, workers: int, view: bool = True) -> None:
        _check_room(data, train)
        Source(data)
        self._of = (data, train, view)
        self._count = workers
        self._workers: list[_Worker] = []
        self._crops: Crops | None = None

    def __enter__(self) -> Batches:
        if self._count:
            with _as_workers_start():
                self._workers = [_Worker(*self._of) for _ in range(self._count)]
        else:
            self._crops = _crops(*self._of)
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self._workers:
            worker.leave()
        for worker in self._workers:
            worker.end()

    def starting_at(self, step: int) -> Iterator[Batch]:
        """The batches of a step and of all that follow, without end.

        Raises:
            PipelineError: that of a worker, or that one died.
        """
        if self._crops is not None:
            yield from map(self._crops.batch, count(step))
        workers = self._workers
        for worker in workers:
            worker.forget()
        for ahead in range(step, step + AHEAD * len(workers)):
            workers[ahead % len(workers)].ask(ahead)
        for now in count(step):
            worker = workers[now % len(workers)]
            batch = worker.take()
            worker.ask(now + AHEAD * len(workers))
            yield batch


class _Worker:
    """A process that makes batches, seen from outside."""

    def __init__(self, *of: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *of), daemon=True)
        self._process.start()
        # Held by the worker alone, so that its death is the end of what can be received.
        theirs.close()
        self._asked: list[int] = []

    def ask(self, step: int) -> None:
        self._asked.append(step)
        # A worker that is dead is noticed when its batch is taken.
        with suppress(OSError):
            self._connection.send(step)

    def take(self) -> Batch:
        step = self._asked.pop(0)
        try:
            found: Batch | PipelineError = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(SECONDS_TO_END)
            raise StageError(
                f"a process that prepares batches ended with status {self._process.exitcode} "
                f"before step {step}\nIf it was killed for memory, use fewer workers."
            ) from None
        if isinstance(found, PipelineError):
            raise found
        return found

    def forget(self) -> None:
        """Drop what was asked for."""
        while self._asked:
            self.take()

    def leave(self) -> None:
        self._connection.close()
        self._process.terminate()

    def end(self) -> None:
        self._process.join(SECONDS_TO_END)
        self._process.kill()
        self._process.join()


def _work(connection: Connection, *of: Any) -> None:
    """The life of a worker: until it is told to end, or nobody is there to take a batch."""
    # Not on the spot: libraries hold semaphores that they give back when Python ends.
    signal.signal(signal.SIGTERM, _end)
    crops = None
    try:
        while True:
            step = connection.recv()
            try:
                crops = crops or _crops(*of)
                answer: object = crops.batch(step)
            except PipelineError as error:
                answer = type(error)(str(error))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                answer = StageError(
                    f"the batch of step {step} could not be made: {type(error).__name__}: {error}\n"
                    f"raised in {last.name}, {last.filename}:{last.lineno}"
                )
            connection.send(answer)
    except (EOFError, OSError):
        _end()


def _end(*_: object) -> NoReturn:
    """Leave, deaf to being told again."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit()


def _crops(data: TrainingData, train: Train, view: bool) -> Crops:
    # gunpowder takes seconds to import: only where batches are made.
    from pipeline.train.crops import Crops

    return Crops(data, train, view)


@contextmanager
def _as_workers_start() -> Iterator[None]:
    """Let processes inherit one thread for every library, and no ear for Ctrl-C.

    Both must hold before their first import. Ctrl-C reaches all processes of a terminal; the
    parent's end is theirs.
    """
    names = [f"{library}_NUM_THREADS" for library in ONE_THREAD]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    # Only the main thread may; a process started by another hears Ctrl-C.
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_room(data: TrainingData, train: Train) -> None:
    """Raise unless the region holds a crop however its axes are ordered."""
    crop, roi = train.crop_vx, data.roi
    for order in orders(train.augment.transpose):
        sides = [crop[axis] for axis in order]
        if any(side > room for side, room in zip(sides, roi.shape, strict=True)):
            turned = "" if order == IN_PLACE else " with its axes transposed (train.augment)"
            raise RoiError(
                f"train.roi must hold a crop{turned}\n"
                f"the crop has {sides} voxels (train.crop_vx), train.roi {list(roi.shape)}"
            )

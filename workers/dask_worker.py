"""What runs in the workers of a Dask cluster."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import distributed

from pipeline.errors import StageError
from pipeline.stages.stage import Stage
from workers.block import Worker, worker
from workers.gpus import choose_gpu


class Housekeeping(distributed.WorkerPlugin):  # type: ignore[misc]
    """Of workers on the driver's terminal: they write to a file, and leave Ctrl-C to the driver."""

    def __init__(self, log: str) -> None:
        self.log = log

    def setup(self, worker: distributed.Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Path(self.log).open("ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)


@dataclass(frozen=True)
class Call:
    """One call of the runner; through it, each worker keeps the stage open."""

    name: str
    stage: Stage
    fingerprint: str
    folder: str
    """The working directory of the driver."""
    timeout_s: float


class _Held:
    """The stage that this process has open: once for all of its blocks."""

    def __init__(self) -> None:
        self._call: str | None = None
        self._worker: Worker | None = None
        self._stack = ExitStack()

    def worker(self, call: Call) -> Worker:
        if self._worker is None or self._call != call.name:
            self.let_go()
            os.chdir(call.folder)  # paths in run files are relative
            found = call.stage.identity.fingerprint
            if found != call.fingerprint:
                raise StageError(
                    f"{call.stage.name} has fingerprint {found} in a Dask worker, "
                    f"{call.fingerprint} in the driver: they run different versions of pea"
                )
            number = distributed.get_worker().name
            choose_gpu(number if isinstance(number, int) else 0)
            self._worker = self._stack.enter_context(worker(call.stage))
            self._call = call.name
        return self._worker

    def let_go(self) -> None:
        self._worker = self._call = None
        self._stack.close()


_held = _Held()


def do_block(call: Call, index: int) -> bool:
    """Compute a block of a stage; see ``Worker.do``.

    A block that takes too long ends this process: the kernel does it, whatever Python or C hold,
    and also when a process that stood still goes on, before it touches a file again.

    Raises:
        StageError: this worker has another version of the stage.
    """
    at_work = _held.worker(call)
    signal.setitimer(signal.ITIMER_REAL, call.timeout_s)
    try:
        return at_work.do(index)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def let_go() -> None:
    """Close the stage that is open."""
    _held.let_go()

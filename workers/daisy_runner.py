"""Blocks scheduled by daisy over worker processes, on this machine or on others."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import daisy
import numpy as np
from funlib.geometry import Coordinate, Roi

from pipeline.config import Workers
from pipeline.stages.stage import Stage
from workers.block import worker
from workers.gpus import choose_gpu
from workers.runner import Progress, Runner

LOOPBACK = "127.0.0.1"
"""The scheduler takes orders from anyone who reaches it; so nobody else may."""


SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_CONNECT = 10
SECONDS_TO_LEAVE = 5
"""How long a launched worker may stay after the last block."""


class DaisyRunner(Runner):
    """Processes, one block at a time each; a worker that dies or hangs is replaced.

    Args:
        launch: a shell command that starts ``{command}`` on another host; see ``Machine``.
        host: the address at which launched workers reach this process.
    """

    def __init__(self, launch: str | None = None, host: str | None = None) -> None:
        self._launch = launch
        self._host = host

    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        grid = stage.grid
        skipped = np.ones(tuple(grid.counts), np.uint8)
        skipped.ravel()[list(blocks)] = 0
        # daisy sees blocks without halos: a stage never reads what it writes, so none must wait.
        one = Roi((0, 0, 0), grid.block_vx)
        task = daisy.Task(
            task_id=stage.name,
            total_roi=Roi((0, 0, 0), Coordinate(grid.counts) * Coordinate(grid.block_vx)),
            read_roi=one,
            write_roi=one,
            process_function=self._worker_function(stage),
            read_write_conflict=False,
            max_workers=min(workers.workers, len(blocks)),
            max_retries=workers.retries,
            max_worker_restarts=workers.max_restarts,
            timeout=workers.timeout_s,
            skip_mask=skipped,
        )
        daisy.logging.set_log_basedir(stage.run.root / "logs")
        logging.getLogger("daisy").setLevel(logging.CRITICAL)
        try:
            with _stderr_in(stage.run.logs(stage.name) / "scheduler.txt"):
                daisy.run_blockwise(
                    daisy.Pipeline.from_task(task),
                    progress=_Observer(progress, len(grid) - len(blocks)),
                    host=LOOPBACK if self._launch is None else self._host,
                    summary=False,
                )
        except RuntimeError as error:
            return str(error)
        return None

    def _worker_function(self, stage: Stage) -> Callable[[], None]:
        if self._launch is None:
            return partial(_work_here, stage)
        command = [sys.executable, "-m", "workers.launched", str(Path.cwd())]
        return partial(
            _launch,
            self._launch,
            [*command, str(stage.run.root), stage.name, stage.identity.fingerprint],
        )


@contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Keep in a file what is written to stderr: tracebacks of workers, from daisy's Rust side.

    Neither RUST_LOG nor Python's logging turns them off, as of daisy 2.0.0.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _work_here(stage: Stage) -> None:
    """The life of a worker process of this machine."""
    _end_with_parent()
    work(stage, daisy.Context.from_env())


def _launch(template: str, command: Sequence[str]) -> None:
    """The life of a process that waits for a worker elsewhere.

    daisy does not return before all of these do. So when its scheduler has closed the port, they do
    not wait for long: the worker may be on a host that nobody can reach any more.
    """
    context = daisy.Context.from_env()
    words = shlex.join([*command, context.to_env()])
    shell = template.replace("{command}", words)
    process = subprocess.Popen(shell, shell=True, start_new_session=True)  # noqa: S602 - the user's
    _end_with_parent(lambda: _stop(process))
    listens = True
    while listens and process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_LEAVE)
        listens = unreachable(context) is None
    if process.poll() is None:
        _stop(process)
    elif process.returncode != 0:
        raise RuntimeError(f"the launch command ended with status {process.returncode}: {shell}")


def unreachable(context: daisy.Context) -> str | None:
    """Why daisy's scheduler cannot be reached from here, or None."""
    try:
        place = context["hostname"], int(context["port"])
        socket.create_connection(place, SECONDS_TO_CONNECT).close()
    except OSError as error:
        return str(error)
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a launch command with all that it started here."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def work(stage: Stage, context: daisy.Context) -> None:
    """Do blocks as long as the scheduler has any."""
    client = daisy.Client(context=context)
    choose_gpu(client.worker_id)
    with worker(stage) as at_work:
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                index = stage.grid.index_at(block.write_roi.begin + stage.grid.total.begin)
                if not at_work.do(index):
                    block.status = daisy.BlockStatus.FAILED


def _end_with_parent(last: Callable[[], None] = lambda: None) -> None:
    """End this process soon after its driver, also in the middle of a long block.

    daisy's client notices only when it asks for the next block. A block may be cut short anywhere.

    Args:
        last: what to do before the end.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        last()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Observer:
    """daisy's counts, less the blocks that were done before."""

    def __init__(self, progress: Progress, before: int) -> None:
        self._progress = progress
        self._before = before

    def on_progress(self, states: Mapping[str, Any]) -> None:
        (state,) = states.values()
        self._progress(state.completed_count - self._before, state.failed_count)

    on_start = on_progress
    on_finish = on_progress

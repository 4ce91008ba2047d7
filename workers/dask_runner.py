"""Blocks handed out to the workers of a Dask cluster."""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

import distributed

from pipeline.config import Workers
from pipeline.errors import StageError
from pipeline.stages.stage import Stage, Sum
from workers.dask_cluster import DaskCluster, first_line
from workers.dask_sum import dask_sum
from workers.dask_worker import Call, do_block, let_go
from workers.interrupt import heed
from workers.runner import Progress, Runner

SECONDS_BETWEEN_LOOKS = 0.5


class DaskRunner(Runner):
    """One block at a time for each worker, given to it by name.

    Dask's own retries would not do: they belong to the scheduler, not to the stage, and do not tell
    a block that raises from one that kills its worker.
    """

    def __init__(self, cluster: DaskCluster) -> None:
        self._cluster = cluster

    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        wanted = workers.model_copy(update={"workers": min(workers.workers, len(blocks))})
        client = self._cluster.client(wanted)
        todo = _Blocks(self._cluster, client, stage, blocks, wanted, progress)
        try:
            given_up = todo.until_done()
            client.run(let_go, on_error="ignore")
        except StageError as error:
            return str(error)
        except (CancelledError, OSError) as error:
            return f"lost the Dask scheduler: {first_line(error)}"
        return given_up

    def sum(self, stage: Stage, workers: Workers) -> Sum:
        return dask_sum(self._cluster, workers)

    def close(self) -> None:
        self._cluster.close()


class _Blocks:
    """The blocks of one stage: those that wait, and those at work."""

    def __init__(
        self,
        cluster: DaskCluster,
        client: distributed.Client,
        stage: Stage,
        blocks: Sequence[int],
        workers: Workers,
        progress: Progress,
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._workers = workers
        self._progress = progress
        self._call = Call(
            name=uuid.uuid4().hex,
            stage=stage,
            fingerprint=stage.identity.fingerprint,
            folder=str(Path.cwd()),
            timeout_s=workers.timeout_s,
        )
        self._waiting = deque(blocks)
        self._at_work: dict[Any, tuple[int, str]] = {}
        """Future -> block and address of its worker."""
        self._tries: Counter[int] = Counter()
        self._done = self._failed = self._deaths = 0
        self._error: str | None = None

    def until_done(self) -> str | None:
        """Why it was given up, or what ailed blocks that could not even begin, or None.

        Raises:
            StageError: the scheduler is gone.
        """
        seen = time.monotonic()
        while self._waiting or self._at_work:
            heed()
            alive = self._cluster.alive()
            if alive:
                seen = time.monotonic()
            elif time.monotonic() - seen > self._cluster.wait_s:
                return f"no Dask worker came within {self._cluster.wait_s:g} s"
            self._take_back(alive)
            if self._deaths > self._workers.max_restarts:
                self._client.cancel(list(self._at_work))
                return f"gave up after the death of {self._deaths} Dask workers (max_restarts)"
            self._hand_out(alive)
            self._collect()
        return self._error

    def _take_back(self, alive: set[str]) -> None:
        """The blocks whose workers are gone."""
        gone = [
            future
            for future, (_, address) in self._at_work.items()
            if address not in alive and not future.done()
        ]
        for future in gone:
            block, _ = self._at_work.pop(future)
            future.cancel()
            self._deaths += 1
            self._settle(block, went_well=False)

    def _hand_out(self, alive: set[str]) -> None:
        busy = {address for _, address in self._at_work.values()}
        for address in sorted(alive - busy):
            if not self._waiting or len(self._at_work) == self._workers.workers:
                return
            block = self._waiting.popleft()
            self._tries[block] += 1
            future = self._client.submit(
                do_block,
                self._call,
                block,
                workers=[address],
                allow_other_workers=False,
                pure=False,
            )
            self._at_work[future] = (block, address)

    def _collect(self) -> None:
        """Wait a little for a block to end, and note those that have."""
        if not self._at_work:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            return
        with suppress(TimeoutError):
            distributed.wait(
                list(self._at_work), SECONDS_BETWEEN_LOOKS, return_when="FIRST_COMPLETED"
            )
        for future in [future for future in self._at_work if future.done()]:
            block, _ = self._at_work.pop(future)
            try:
                went_well = bool(future.result(timeout=SECONDS_BETWEEN_LOOKS))
            except Exception as error:  # the worker could not begin, or died with the answer
                self._error = f"{type(error).__name__}: {error}"
                went_well = False
            self._settle(block, went_well)

    def _settle(self, block: int, went_well: bool) -> None:
        if went_well:
            self._done += 1
        elif self._tries[block] <= self._workers.retries:
            self._waiting.append(block)
        else:
            self._failed += 1
        self._progress(self._done, self._failed)

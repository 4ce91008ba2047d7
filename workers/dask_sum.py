"""Sums over many items by a Dask cluster, added up in a tree where the parts are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from itertools import batched
from typing import Any

import distributed
from distributed.scheduler import KilledWorker

from pipeline.config import Workers
from pipeline.errors import StageError
from pipeline.stages.stage import Sum, sum_here
from workers.dask_cluster import DaskCluster, first_line
from workers.interrupt import heed
from workers.runner import Progress

FAN_IN = 8
SECONDS_BETWEEN_LOOKS = 0.5


def dask_sum(cluster: DaskCluster, workers: Workers, progress: Progress | None = None) -> Sum:
    """A sum whose parts are made and added by workers; the driver sees nothing but the last.

    Leaves are sums of ``FAN_IN`` items, and the next levels of as many sums. What a worker held
    when it died is made again from its items: Dask sees to that.

    Args:
        progress: called with the number of items done.

    Raises:
        StageError: an item killed one worker after the other, none came, or the scheduler is gone.
        Whatever ``part`` raises.
    """

    def total[Item, Part](
        part: Callable[[Item], Part], add: Callable[[Iterable[Part]], Part], items: Sequence[Item]
    ) -> Part:
        if not items:
            return add(())
        client = cluster.client(workers)
        ended: list[None] = []
        level: list[Any] = []
        for some in batched(items, FAN_IN):
            leaf = client.submit(sum_here, part, add, some, pure=False)
            leaf.add_done_callback(lambda _: ended.append(None))
            level.append(leaf)
        while len(level) > 1:
            level = [client.submit(add, list(some), pure=False) for some in batched(level, FAN_IN)]
        # From here on only the last sum is asked for: Dask drops the others as they are used up.
        (last,) = level
        seen = time.monotonic()
        try:
            while not last.done():
                heed()
                if cluster.alive():
                    seen = time.monotonic()
                elif time.monotonic() - seen > cluster.wait_s:
                    raise StageError(f"no Dask worker came within {cluster.wait_s:g} s")
                if progress is not None:
                    progress(min(len(ended) * FAN_IN, len(items)), 0)
                with suppress(TimeoutError):
                    distributed.wait([last], SECONDS_BETWEEN_LOOKS)
            result: Part = last.result()
        except KilledWorker as error:
            raise StageError(f"Dask workers died of one task; out of memory? {error}") from None
        except CancelledError as error:
            raise StageError(f"lost the Dask scheduler: {first_line(error)}") from None
        return result

    return total

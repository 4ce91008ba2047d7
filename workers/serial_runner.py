"""One block after the other in this process. Defines what the other runners must agree with."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import Workers
from pipeline.stages.stage import Stage
from workers.block import worker
from workers.interrupt import heed
from workers.runner import Progress, Runner


class SerialRunner(Runner):
    """Cannot enforce ``timeout_s``: there is nobody to stop a block that hangs."""

    def run(
        self, stage: Stage, blocks: Sequence[int], workers: Workers, progress: Progress
    ) -> str | None:
        done = failed = 0
        with worker(stage) as at_work:
            for index in blocks:
                heed()
                if any(at_work.do(index) for _ in range(1 + workers.retries)):
                    done += 1
                else:
                    failed += 1
                progress(done, failed)
        return None

"""A Dask cluster: processes on this machine, jobs of a batch system, or one already there."""

from __future__ import annotations

import importlib.util
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
import distributed

from pipeline.config import Dask, Workers
from pipeline.errors import ConfigError, StageError
from workers.dask_worker import Housekeeping

LOOPBACK = "127.0.0.1"
SECONDS_TO_CONNECT = 30
SECONDS_BETWEEN_REPLACEMENTS = 15.0
DASHBOARD_PORT = 8787
DASK_LOGGERS = ("distributed", "tornado")
NO_PAGES: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


class DaskCluster:
    """Started with the first stage that needs it, kept for the others, stopped by ``close``.

    Args:
        logs: a folder for what Dask and its workers say; nothing of it comes to the terminal.
    """

    def __init__(self, settings: Dask, logs: Path) -> None:
        self._settings = settings
        self._logs = logs
        self._stack = ExitStack()
        self._client: Any = None
        self._cluster: Any = None
        self._jobs_gb: float | None = None
        self._workers = 0
        self._replaced = 0.0

    @property
    def wait_s(self) -> float:
        return self._settings.wait_s

    def client(self, workers: Workers) -> distributed.Client:
        """A client of the cluster, which has, or is about to have, enough workers.

        Raises:
            ConfigError: there is no such scheduler, batch system or dashboard.
        """
        if self._jobs_gb is not None and self._jobs_gb != workers.memory_gb:
            self.close()  # jobs have the memory of their stage
        if self._client is None:
            try:
                self._open(workers)
            except BaseException:
                self.close()
                raise
        if self._cluster is not None and self._workers < workers.workers:
            self._workers = workers.workers
            self._cluster.scale(self._workers)
        return self._client

    def alive(self) -> set[str]:
        """Addresses of the workers that are there now; missing ones are started again.

        Raises:
            StageError: the scheduler is gone.
        """
        try:
            found = set(self._client.nthreads())
        except (OSError, TimeoutError, RuntimeError) as error:
            raise StageError(f"lost the Dask scheduler: {first_line(error)}") from None
        due = time.monotonic() - self._replaced > SECONDS_BETWEEN_REPLACEMENTS
        if self._cluster is not None and len(found) < self._workers and due:
            self._replaced = time.monotonic()
            self._cluster.scale(self._workers)
        return found

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()
        self._client = self._cluster = self._jobs_gb = None
        self._workers = 0

    def _open(self, workers: Workers) -> None:
        said, self._workers = self._settings, workers.workers
        if said.dashboard and importlib.util.find_spec("bokeh") is None:
            raise ConfigError(
                "machine.dask.dashboard needs bokeh, which is not installed: pip install bokeh"
            )
        self._logs.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(log_in(self._logs / "driver.log"))
        self._stack.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.worker-ttl": f"{said.lost_after_s} s",
                    # What has to outlive a worker is in files.
                    "distributed.worker.memory.spill": False,
                    "distributed.worker.memory.target": False,
                    **({} if said.dashboard else NO_PAGES),
                }
            )
        )
        if said.scheduler is not None:
            address: Any = said.scheduler
        elif said.cluster == "local":
            address = self._cluster = self._stack.enter_context(self._local())
        else:
            address = self._cluster = self._stack.enter_context(
                job_cluster(said, workers, self._logs)
            )
            self._jobs_gb = workers.memory_gb
        try:
            client = distributed.Client(address, timeout=SECONDS_TO_CONNECT)
        except OSError as error:
            raise ConfigError(f"found no Dask scheduler at {address}: {error}") from None
        self._client = self._stack.enter_context(client)
        if said.cluster == "local" and said.scheduler is None:
            client.register_plugin(Housekeeping(str(self._logs.resolve() / "workers.log")))

    def _local(self) -> distributed.LocalCluster:
        return distributed.LocalCluster(
            n_workers=self._workers,
            threads_per_worker=1,
            host=LOOPBACK,
            memory_limit=None,
            scheduler_kwargs=dashboard_options(self._settings, LOOPBACK),
        )


def dashboard_options(settings: Dask, host: str) -> dict[str, Any]:
    """Options of a scheduler. It always serves HTTP; so if not asked to, then nothing to nobody."""
    place = f"{host}:{DASHBOARD_PORT}" if settings.dashboard else f"{LOOPBACK}:0"
    return {"dashboard": settings.dashboard, "dashboard_address": place}


def job_cluster(settings: Dask, workers: Workers, logs: Path) -> distributed.SpecCluster:
    """The cluster of a batch system, one worker in each job; no job is submitted yet."""
    interrupted = signal.getsignal(signal.SIGINT)
    import dask_jobqueue

    # Its import makes Ctrl-C an exit with status 0, as of 0.9.0.
    signal.signal(signal.SIGINT, interrupted)
    job = settings.job
    makes, account = (
        (dask_jobqueue.SLURMCluster, {"account": job.account})
        if settings.cluster == "slurm"
        else (dask_jobqueue.LSFCluster, {"project": job.account})
    )
    return makes(
        **account,
        queue=job.queue,
        walltime=job.walltime,
        cores=job.cores,
        processes=1,
        memory=f"{workers.memory_gb} GB",
        interface=job.interface,
        job_extra_directives=list(job.job_extra),
        job_script_prologue=list(job.setup),
        job_name="pea",
        log_directory=str(logs.resolve()),
        # The batch system watches the memory. Dask would only pause a worker, for ever.
        worker_extra_args=["--memory-limit", "0", "--no-dashboard"],
        scheduler_options=dashboard_options(settings, ""),
    )


@contextmanager
def log_in(path: Path) -> Iterator[None]:
    """Send what Dask has to say in this process to a file, instead of the terminal."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(DASK_LOGGERS)]
    before = {name: list(logging.getLogger(name).handlers) for name in names}
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name, handlers in before.items():
        logging.getLogger(name).handlers = [handler] if handlers else []
    try:
        yield
    finally:
        for name, handlers in before.items():
            logging.getLogger(name).handlers = handlers
        handler.close()


def first_line(error: BaseException) -> str:
    """What an error of Dask says, less its tables."""
    return f"{type(error).__name__}: {error}".splitlines()[0]

"""``python -m workers.launched FOLDER RUN STAGE FINGERPRINT CONTEXT``: a daisy worker elsewhere.

Started by ``machine.launch``. It gets words, no objects: it reads the run's own ``run.yaml`` on the
shared file system, plans the run again, and works only if that leads to the same numbers.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import daisy

from pipeline.config import load_settings
from pipeline.errors import StageError
from pipeline.plan import make_plan
from pipeline.stages.stage import Stage
from workers.daisy_runner import unreachable, work

SECONDS_BETWEEN_TRIES = 5
TRIES = 2


def stage_of(run: Path, name: str, fingerprint: str) -> Stage:
    """A stage of a run that another host drives.

    Raises:
        StageError: here it has another fingerprint. Whatever planning raises.
    """
    plan = make_plan(load_settings(run / "run.yaml"), run.parent)
    (step,) = plan.select(name)
    found = step.stage.identity.fingerprint
    if found != fingerprint:
        raise StageError(
            f"{name} has fingerprint {found} on this host, {fingerprint} on the driver's: other "
            "data behind the same paths, another version, or for a network another processor"
        )
    return step.stage


def main(folder: str, run: str, stage: str, fingerprint: str, context: str) -> None:
    """Do blocks of a stage until there are no more.

    Args:
        folder: the driver's working directory, as paths in run files are relative to it.
        context: what daisy needs to find its scheduler.

    Raises:
        StageError: this host cannot reach it, or has another version of the stage.
    """
    os.chdir(folder)
    os.environ["DAISY_CONTEXT"] = context
    found = daisy.Context.from_env()
    if (error := unreachable(found)) is not None:
        raise StageError(
            f"{socket.gethostname()} cannot reach daisy's scheduler at {found['hostname']}, port "
            f"{found['port']}: {error}\nSet machine.host to an address that other hosts reach."
        )
    _end_without(found)
    work(stage_of(Path(run), stage, fingerprint), found)


def _end_without(context: daisy.Context) -> None:
    """End this process soon after its scheduler, or the way to it, is gone.

    daisy has no signs of life: a worker that waits for an answer would wait for as long as TCP
    tries, and the scheduler for the worker. A block may be cut short anywhere.
    """

    def watch() -> None:
        failures = 0
        while failures < TRIES:
            time.sleep(SECONDS_BETWEEN_TRIES)
            failures = 0 if unreachable(context) is None else failures + 1
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])

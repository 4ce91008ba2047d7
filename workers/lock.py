"""One driver for a run directory at a time, and who that is."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO

from pipeline.errors import ExistsError
from pipeline.rundir import RunDirectory

TIME = "%Y-%m-%d %H:%M:%S"
SINCE = re.compile(r"since (\S+ \S+)$")


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Keep a second driver out of a run directory; the lock ends with the process.

    Raises:
        ExistsError: it is taken, and by whom.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ExistsError(
            f"a run directory must be a directory, found a file there or above: {run.root}\n"
            "Choose another run.name, or another place with --runs."
        ) from None
    with run.lock.open("a+") as file:
        if not _taken(file):
            file.seek(0)
            raise ExistsError(
                f"{run.root} is in use by another pea run: {file.read().strip()}\n"
                "Wait for it, stop it, or choose another run.name."
            )
        file.truncate(0)
        now = datetime.now().strftime(TIME)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}, since {now}")
        file.flush()
        yield


def _taken(file: IO[str]) -> bool:
    """Take a lock, unless somebody holds it for longer than it takes to look at it."""
    for wait in (0.1, 0.2, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if wait is not None:
                time.sleep(wait)
        else:
            return True
    return False


def driver_of(run: RunDirectory) -> str | None:
    """Who is at work on a run now, in words; None if nobody is, or nobody can tell."""
    try:
        with run.lock.open() as file:
            try:
                # Shared, so that two who look do not take each other for a driver.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "somebody who has just begun"
    except OSError:
        pass
    return None


def begun_at(driver: str) -> datetime:
    """When a driver took the lock; long ago if its words do not tell."""
    found = SINCE.search(driver)
    with suppress(ValueError):
        return datetime.strptime(found[1], TIME) if found else datetime.min
    return datetime.min

"""What a worker does with one block, the same under every runner."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.geometry import Block
from pipeline.rundir import Ledger, Record
from pipeline.stages.stage import Outcome, Process, Stage
from workers.lock import TIME
from workers.memory import peak_bytes

FAILURES = "failures.jsonl"
LINE = re.compile(r"(?P<time>\S+ \S+) block (?P<block>\d+) (?P<what>begins|done|failed)")
"""What a worker's log says of a block."""


class Worker:
    """One process at work on one stage: its log, and its ledger of finished blocks."""

    def __init__(self, stage: Stage, process: Process, log: IO[str], ledger: Ledger) -> None:
        self._stage = stage
        self._process = process
        self._log = log
        self._ledger = ledger

    def do(self, index: int) -> bool:
        """Compute a block and note it as done, its files first.

        Returns:
            Whether it went well. If not, the error is in the log and among the stage's failures.
        """
        block = self._stage.grid[index]
        self._say(
            f"block {index} begins: voxels {tuple(block.write.begin)} to {tuple(block.write.end)}"
        )
        started = time.monotonic()
        try:
            outcome = self._process(block)
            files = self._stage.run.recorded(self._stage.files(block))
        except Exception as error:
            self._fail(block, error)
            return False
        seconds = round(time.monotonic() - started, 3)
        record = Record(index, files, outcome.filled, outcome.masked, seconds, peak_bytes())
        self._ledger.append(record)
        self._say(f"block {index} done in {seconds:.2f} s")
        return True

    def _fail(self, block: Block, error: Exception) -> None:
        self._say(f"block {block.index} failed\n{traceback.format_exc()}")
        entry = {
            "block": block.index,
            "voxels": [list(block.write.begin), list(block.write.end)],
            "error": f"{type(error).__name__}: {error}",
            "log": self._log.name,
        }
        with (self._stage.run.logs(self._stage.name) / FAILURES).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _say(self, text: str) -> None:
        self._log.write(f"{datetime.now().strftime(TIME)} {text}\n")


@contextmanager
def worker(stage: Stage) -> Iterator[Worker]:
    """Open a stage in this process."""
    name = f"{socket.gethostname()}-{os.getpid()}"
    logs = stage.run.logs(stage.name)
    logs.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(stage.run.done(stage.identity) / stage.grid.name, name)
    with ExitStack() as stack:
        log = stack.enter_context((logs / f"{name}.log").open("a", buffering=1))
        stack.callback(ledger.close)
        stack.enter_context(_warnings_in(log))
        try:
            process = stack.enter_context(stage.open())
        except Exception as error:
            process = _failing(error)
        yield Worker(stage, process, log, ledger)


@contextmanager
def _warnings_in(log: IO[str]) -> Iterator[None]:
    """Write what the pipeline warns of into a worker's log."""
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("pipeline")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _failing(error: Exception) -> Process:
    """Of a stage that does not open: each of its blocks fails for that reason."""

    def process(block: Block) -> Outcome:
        raise error

    return process


class Event(NamedTuple):
    """A line of a worker's log about a block."""

    time: datetime
    block: int
    what: str
    """``begins``, ``done`` or ``failed``."""
    log: str


def events(folder: Path) -> Iterator[Event]:
    """What the logs of a stage say of its blocks, one log after the other."""
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if match := LINE.match(line):
                with suppress(ValueError):  # torn by a crash
                    time = datetime.strptime(match["time"], TIME)
                    yield Event(time, int(match["block"]), match["what"], str(log))


def broken_off(found: Iterable[Event]) -> dict[int, Event]:
    """Blocks that a worker began and neither ended nor failed, and when it began."""
    begun: dict[tuple[str, int], Event] = {}
    for event in found:
        if event.what == "begins":
            begun[event.log, event.block] = event
        else:
            begun.pop((event.log, event.block), None)
    # A block may have been begun by several workers, one after the other: the last one counts.
    return {event.block: event for event in sorted(begun.values(), key=lambda each: each.time)}


def failures(folder: Path) -> dict[int, dict[str, object]]:
    """The last failure of each block of a stage, from its log folder."""
    found: dict[int, dict[str, object]] = {}
    try:
        lines = (folder / FAILURES).read_text().splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            found[entry["block"]] = {key: entry[key] for key in ("voxels", "error", "log")}
        except (ValueError, TypeError, KeyError):
            continue  # torn by a crash
    return found

"""Lines of progress: a bar in a terminal, plain text without a single escape code elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from workers import progress
from workers.progress import progress_line
from workers.quantities import duration, rate, size

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys, time
from workers import progress
from workers.cli.options import notes
progress.FIRST_LINE_S = 0.05
with progress.progress_line(notes, "edges_blockwise", 4, 24) as update:
    for done in range(1, 21):
        update(done, 1 if done > 10 else 0, "a remark")
        time.sleep(0.02)
"""
NOISY = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "COLORTERM": "truecolor", "TERM": "xterm"}


def run(environment: dict[str, str], stderr: int) -> subprocess.CompletedProcess[bytes]:
    known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "CI")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], stderr=stderr, cwd=ROOT, check=True, timeout=60,
        env=known | environment,
    )  # fmt: skip


def in_a_terminal(environment: dict[str, str]) -> str:
    """What a terminal is sent."""
    ours, theirs = pty.openpty()
    said: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                said.append(os.read(ours, 65536))
            except OSError:  # so a pseudo-terminal says that its other end is closed
                return

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        run(environment, theirs)
    finally:
        os.close(theirs)
        listener.join(10)
        os.close(ours)
    return b"".join(said).decode()


@pytest.mark.parametrize("environment", [{}, NOISY, {"CI": "true"}, {"TERM": "dumb"}])
def test_where_nothing_can_be_redrawn_lines_are_plain(environment: dict[str, str]) -> None:
    said = run(environment, subprocess.PIPE).stderr.decode()
    assert "\x1b" not in said
    assert "\r" not in said
    lines = said.splitlines()
    assert lines
    for line in lines:
        assert re.match(r"edges_blockwise: \d+/24 blocks \(\d+ %\), .*, a remark$", line), line
    assert re.search(r", [\d.]+ blocks/s, [\d.]+ s left", said)
    assert "1 failed" in lines[-1]


def test_a_dumb_terminal_gets_plain_lines() -> None:
    assert "\x1b" not in in_a_terminal({"TERM": "dumb"})


def test_a_terminal_gets_a_bar_with_rate_time_left_and_failures() -> None:
    said = in_a_terminal({"TERM": "xterm", "COLUMNS": "160"})
    assert "\x1b[" in said
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", said)
    for part in ("edges_blockwise", "24/24 blocks", "100%", "blocks/s", "1 failed", "a remark"):
        assert part in text


@contextmanager
def lines_of(total: int, before: int = 0) -> Iterator[tuple[StringIO, progress.Update]]:
    said = StringIO()
    with progress_line(Console(file=said, width=20), "stage", before, total) as update:
        yield said, update


def test_something_is_said_before_the_first_block_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.01)
    with lines_of(1000) as (said, _):
        deadline = time.monotonic() + 20
        while not said.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    first = said.getvalue().splitlines()[0]
    assert re.fullmatch(r"stage: 0/1000 blocks \(0 %\), [\d.]+ s passed", first)


def test_lines_come_less_and_less_often_and_end_with_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            return len(waits) > 20

    monkeypatch.setattr(progress, "Event", Clock)
    with lines_of(10) as (said, _):
        pass
    assert waits[:3] == [5.0, 7.5, 11.25]
    assert waits[-1] == progress.MOST_S
    assert len(said.getvalue().splitlines()) == len(waits) - 1


def test_a_quiet_console_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.01)
    with progress_line(Console(quiet=True), "stage", 0, 5) as update:
        update(1, 0)
        time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


def test_quantities_are_said_in_units_that_fit() -> None:
    assert [size(n) for n in (0, 999, 1000, 999_700, 2.5e9, 1e15)] == [
        "0 B", "999 B", "1 kB", "1 MB", "2.5 GB", "1 PB",
    ]  # fmt: skip
    assert rate(12345, "voxels") == "12345 voxels/s"
    assert [duration(n) for n in (0.04, 99.9, 100, 6000)] == ["0.0 s", "99.9 s", "1.7 min", "1.7 h"]
    assert rate(12.34, "blocks") == "12.3 blocks/s"
    assert rate(0.5, "blocks") == "30 blocks/min"
    assert rate(0.001, "steps") == "3.6 steps/h"
    assert rate(0, "steps") == "0 steps/h"


def test_a_terminal_of_a_service_that_nobody_watches_has_plain_lines() -> None:
    said = in_a_terminal({"TERM": "xterm-256color", "CI": "true"})
    assert "\x1b" not in said
    assert said

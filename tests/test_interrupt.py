"""A Ctrl-C whose exception is swallowed stops the run all the same."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Dask, Workers
from pipeline.geometry import ZYX
from tests.test_kills import ROOT, faulty
from workers.dask_cluster import DaskCluster
from workers.dask_runner import DaskRunner
from workers.interrupt import heed, interrupts_kept
from workers.runner import Runner
from workers.serial_runner import SerialRunner


class InterruptedWhenDropped:
    """Python cannot raise what comes in a ``__del__``."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def lose_an_interrupt() -> None:
    InterruptedWhenDropped()


def test_an_interrupt_that_was_lost_is_heeded_later(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with interrupts_kept():
        heed()
        lose_an_interrupt()
        with pytest.raises(KeyboardInterrupt):
            heed()
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before
    heed()
    with interrupts_kept(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err == ""


def test_who_handles_interrupts_already_goes_on_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        with interrupts_kept():
            signal.raise_signal(signal.SIGINT)
            heed()
    finally:
        signal.signal(signal.SIGINT, before)
    assert asked == [signal.SIGINT]


@pytest.mark.parametrize(
    "make",
    [
        lambda _: SerialRunner(),
        pytest.param(
            lambda folder: DaskRunner(DaskCluster(Dask(), folder / "dask")), marks=pytest.mark.slow
        ),
    ],
    ids=["serial", "dask"],
)
def test_a_runner_stops_when_an_interrupt_was_lost(
    make: Callable[[Path], Runner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # workers import this module
    stage = faulty(tmp_path / "run", "raises", once=True)
    stage.run.begin(stage.identity, stage.grid.name)
    done: list[int] = []

    def progress(count: int, failed: int) -> None:
        done.append(count)
        if len(done) == 1:
            lose_an_interrupt()

    blocks, workers = range(len(stage.grid)), Workers(block_vx=ZYX(2, 2, 2))
    with interrupts_kept(), make(tmp_path) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(stage, list(blocks), workers, progress)
    assert len(done) < len(blocks)

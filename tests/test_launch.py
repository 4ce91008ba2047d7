"""daisy workers on another host: here a network namespace, whose only way out is one cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pipeline.errors import StageError
from tests.drawn import LONG, results, run_tree, write_inputs, write_run
from tests.test_kills import is_alive, started, still_alive, wait_for
from tests.tried import Tried, same
from workers import cli
from workers.launched import stage_of

WATCHDOG_S = 60
HERE, THERE = "10.231.7.1", "10.231.7.2"


def test_a_worker_elsewhere_plans_the_same_stage(finished: Tried) -> None:
    for step in finished.plan.steps:
        stage = step.stage
        found = stage_of(finished.root, stage.name, stage.identity.fingerprint)
        assert found.identity == stage.identity
        assert found.grid == stage.grid


def test_a_worker_elsewhere_that_would_get_other_numbers_refuses(finished: Tried) -> None:
    found = finished.stage("agglomerate").identity.fingerprint
    with pytest.raises(StageError, match=f"agglomerate has fingerprint {found} on this host"):
        stage_of(finished.root, "agglomerate", "0123456789abcdef")


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["plain", "with a space, and 'quotes'"])
def test_a_launch_command_runs_every_worker(folder: str, tmp_path: Path) -> None:
    data = write_inputs(tmp_path, digest="as ingested")
    mark = tmp_path / "launched"
    tree = run_tree(data, runner="daisy")
    tree["machine"] |= {"launch": f"echo >> {mark}; {{command}}", "host": "127.0.0.2"}
    words = ["run", "all", str(write_run(tmp_path / "run.yaml", tree)), "--runs"]
    assert cli.main([*words, str(tmp_path / "undisturbed"), "--runner", "serial"]) == 0
    assert not mark.exists()
    assert cli.main([*words, str(tmp_path / folder)]) == 0
    assert len(mark.read_text().splitlines()) >= 6, "one for each stage at least"
    same(results(tmp_path / folder / "small"), results(tmp_path / "undisturbed" / "small"))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def host() -> Iterator[str]:
    """Another host, by the name of its namespace."""
    name = f"pea{os.getpid()}"
    cable = f"p{os.getpid()}"
    if shutil.which("ip") is None:
        pytest.skip("needs ip, of iproute2")
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", f"{cable}a", "type", "veth", "peer", "name", f"{cable}b")
        ip("link", "set", f"{cable}b", "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", f"{cable}a")
        ip("link", "set", f"{cable}a", "up")
        ip("-n", name, "addr", "add", f"{THERE}/24", "dev", f"{cable}b")
        ip("-n", name, "link", "set", f"{cable}b", "up")
        yield name
    finally:
        for process in processes_in(name):
            process.kill()
        with suppress(subprocess.CalledProcessError):  # the namespace takes it along, later
            ip("link", "del", f"{cable}a")
        ip("netns", "del", name)


def processes_in(name: str) -> list[psutil.Process]:
    said = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
    found = []
    for pid in said.stdout.split():
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(pid)))
    return [process for process in found if is_alive(process)]


@contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Nothing hangs: a driver that did not end is an error, and is ended."""
    try:
        yield
        process.wait(timeout=WATCHDOG_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Rehearsal:
    """A run whose workers are on the other host, and the same one undisturbed here."""

    def __init__(self, folder: Path, host: str) -> None:
        data = write_inputs(folder, (24, 128, 128), LONG, digest="as ingested")
        tree = run_tree(data, runner="daisy", max_restarts=2, timeout_s=6, block_vx=(8, 32, 32))
        tree["machine"] |= {"launch": f"ip netns exec {host} {{command}}", "host": HERE}
        self.said = folder / "said.txt"
        self.run = folder / "runs" / "small"
        self.undisturbed = folder / "undisturbed" / "small"
        self.words = ["run", "edges", str(write_run(folder / "run.yaml", tree)), "--runs"]
        for stage in ("fragments", "resolve_fragments", "edges"):
            words = ["run", stage, self.words[2], "--runner", "serial", "--runs"]
            assert cli.main([*words, str(self.undisturbed.parent)]) == 0
            if stage != "edges":
                assert cli.main([*words, str(self.run.parent)]) == 0

    def start(self) -> subprocess.Popen[bytes]:
        return started([*self.words, str(self.run.parent)], self.said)

    def reached(self) -> None:
        """Wait until both workers are there, or more: with a block, or about to ask for one."""
        wait_for(lambda: len([*self.run.glob("done/edges*/*/*.jsonl")]) > 1, WATCHDOG_S)

    def ended_well(self, driver: subprocess.Popen[bytes]) -> None:
        assert driver.returncode == 0, self.said.read_text()
        same(results(self.run), results(self.undisturbed))


def at_work(host: str) -> list[psutil.Process]:
    return [p for p in processes_in(host) if "workers.launched" in p.cmdline()]


def kill_one(host: str) -> None:
    at_work(host)[0].kill()


def stop_one(host: str) -> None:
    at_work(host)[0].suspend()


@pytest.mark.slow
@pytest.mark.parametrize("do", [kill_one, stop_one])
def test_a_worker_lost_on_another_host_changes_nothing(
    do: Callable[[str], None], tmp_path: Path, host: str
) -> None:
    here = Rehearsal(tmp_path, host)
    driver = here.start()
    with watched(driver):
        here.reached()
        do(host)
    here.ended_well(driver)


@pytest.mark.slow
def test_a_cable_that_is_cut_ends_a_run_or_not_but_never_hangs_it(
    tmp_path: Path, host: str
) -> None:
    here = Rehearsal(tmp_path, host)
    driver = here.start()
    with watched(driver):
        here.reached()
        ip("link", "set", f"p{os.getpid()}a", "down")
    said = here.said.read_text()
    assert driver.returncode == 1, said
    assert "edges_blockwise is not complete" in said
    assert "Traceback" not in said
    ip("link", "set", f"p{os.getpid()}a", "up")
    again = here.start()
    with watched(again):
        pass
    here.ended_well(again)


@pytest.mark.slow
def test_workers_elsewhere_end_with_their_driver(tmp_path: Path, host: str) -> None:
    here = Rehearsal(tmp_path, host)
    driver = here.start()
    with watched(driver):
        here.reached()
        workers = at_work(host)
        driver.kill()
    assert workers
    assert not still_alive(workers, 5)

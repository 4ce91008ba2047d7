"""A Dask cluster: what it is asked for, what it computes, and that it is gone afterwards."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from pipeline.config import Dask, Workers, load_settings
from pipeline.errors import ConfigError, DataError
from pipeline.plan import make_plan
from pipeline.stages.stage import sum_here
from tests.drawn import (
    drawn_labels,
    results,
    run_tree,
    set_at,
    write_inputs,
    write_run,
    write_volume,
)
from tests.tried import same
from workers import runners, score
from workers.dask_cluster import DaskCluster, job_cluster
from workers.dask_sum import FAN_IN, dask_sum
from workers.drive import drive
from workers.runners import runner_named

TWO = Workers(workers=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with closing(DaskCluster(Dask(), tmp_path_factory.mktemp("dask"))) as started:
        yield started


def test_a_local_cluster_listens_on_loopback_only(cluster: DaskCluster) -> None:
    cluster.client(TWO)
    for process in (psutil.Process(), *processes()):
        for connection in process.net_connections():
            if connection.status == "LISTEN":
                assert connection.laddr.ip == "127.0.0.1"
                assert connection.laddr.port != 8787


def processes() -> list[psutil.Process]:
    """Dask workers that this process has started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        if any("spawn_main" in word for word in child.cmdline()):
            found.append(child)
    return found


def where(number: int) -> dict[int, int]:
    """A part: a number, and the process that made it."""
    if number < 0:
        raise DataError(f"no part of {number}")
    return {os.getpid(): number}


def together(parts: Iterable[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for part in parts:
        for process, number in part.items():
            total[process] = total.get(process, 0) + number
    return total


@pytest.mark.parametrize("count", [0, 1, FAN_IN, FAN_IN + 1, FAN_IN**2 + 1])
def test_a_sum_on_dask_has_every_item_once(cluster: DaskCluster, count: int) -> None:
    seen: list[int] = []
    total = dask_sum(cluster, TWO, lambda done, failed, remark="": seen.append(done))
    made = total(where, together, range(count))
    assert sum(made.values()) == math.comb(count, 2)
    assert os.getpid() not in made
    assert sum(sum_here(where, together, range(count)).values()) == math.comb(count, 2)
    assert seen == sorted(seen)
    assert max(seen, default=0) <= count


def test_what_a_part_says_is_wrong_is_said(cluster: DaskCluster) -> None:
    with pytest.raises(DataError, match="no part of -1"):
        dask_sum(cluster, TWO)(where, together, [3, -1])


def test_two_volumes_have_the_same_scores_counted_here_or_on_dask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = drawn_labels((10, 30, 34), 1), drawn_labels((10, 30, 34), 2)
    monkeypatch.setattr(score, "BLOCK_VX", (4, 16, 16))
    for name, labels in (("one", one), ("other", other)):
        write_volume(tmp_path / name, labels, "labels")
    places, quiet = (tmp_path / "one", tmp_path / "other"), Console(quiet=True)
    here = score.score_volumes(*places, 8.0, 2, quiet)
    monkeypatch.setattr(runners, "WORTH_A_CLUSTER_VX", 1)
    before = processes()
    assert score.score_volumes(*places, 8.0, 2, quiet) == here
    assert processes() == before, "workers outlive their cluster"


def test_an_evaluation_is_on_dask_if_it_is_worth_it() -> None:
    few, many = runners.WORTH_A_CLUSTER_VX - 1, runners.WORTH_A_CLUSTER_VX
    assert not runners.worth_a_cluster(many, 1)
    assert not runners.worth_a_cluster(few, 2)
    assert runners.worth_a_cluster(many, 2)


def test_a_daisy_run_evaluates_on_dask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, digest="as ingested")
    tree = run_tree(tmp_path / "data.zarr")
    settings = load_settings(write_run(tmp_path / "run.yaml", tree))
    made = {}
    for name in ("serial", "daisy"):
        plan = make_plan(settings, tmp_path / name)
        with runner_named("serial", settings.machine, plan.run) as runner:
            drive(plan, plan.select("all")[:-1], runner, (), Console(quiet=True))
        monkeypatch.setattr(runners, "WORTH_A_CLUSTER_VX", 1)
        with runner_named(name, settings.machine, plan.run) as runner:
            drive(plan, plan.select("evaluate"), runner, (), Console(quiet=True))
        made[name] = results(plan.run.root)
        assert (plan.run.logs("dask") / "driver.log").parent.exists() == (name == "daisy")
    same(made["daisy"], made["serial"])
    assert capfd.readouterr() == ("", "")


# Batch systems

JOB = {
    "queue": "em", "account": "brain", "walltime": "2:00", "cores": 3, "interface": "lo",
    "job_extra": ["--gres=gpu:1"], "setup": ["module load python"],
}  # fmt: skip
DIRECTIVES = {
    "slurm": ("#SBATCH -p em", "#SBATCH -A brain", "#SBATCH -n 1", "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=12G", "#SBATCH -t 2:00", "#SBATCH --gres=gpu:1"),
    "lsf": ("#BSUB -q em", '#BSUB -P "brain"', "#BSUB -n 3", "#BSUB -R \"span[hosts=1]\"",
        "#BSUB -W 2:00", "#BSUB --gres=gpu:1"),
}  # fmt: skip


@pytest.mark.parametrize("system", DIRECTIVES)
def test_a_job_is_asked_for_as_it_is_described(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "dask_jobqueue", raising=False)
    monkeypatch.delitem(sys.modules, "dask_jobqueue.runner", raising=False)
    interrupted = signal.getsignal(signal.SIGINT)
    said = Dask.model_validate({"cluster": system, "job": JOB})
    with job_cluster(said, Workers(memory_gb=12), tmp_path) as asked:
        script = asked.job_script()
    assert signal.getsignal(signal.SIGINT) is interrupted
    lines = script.splitlines()
    for directive in DIRECTIVES[system]:
        assert directive in lines
    assert any(f"{tmp_path}/" in line and line.startswith("#") for line in lines)
    command = lines[-1]
    assert lines.index("module load python") < lines.index(command)
    assert "--nthreads 3 " in command
    assert "--nanny" in command
    assert command.rindex("--memory-limit 0") > command.index("--memory-limit 11")
    assert "--interface lo" in command


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"cluster": "pbs"}, ("machine.dask.cluster", "'pbs'")),
        ({"scheduler": "there:8786"}, ("machine.dask.scheduler", "'there:8786'")),
        ({"scheduler": "tcp://there:1", "cluster": "slurm"}, ("exclude each other",)),
        ({"job": {"queue": "em"}}, ("job needs cluster slurm or lsf",)),
        ({"cluster": "lsf", "job": {"walltime": "a day"}}, ("walltime", "'a day'")),
        ({"cluster": "lsf", "job": {"setup": ["a\nb"]}}, ("setup",)),
        ({"lost_after_s": 0}, ("machine.dask.lost_after_s", "found 0")),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(
    value: object, words: tuple[str, ...], tmp_path: Path
) -> None:
    tree = set_at(run_tree(tmp_path), "machine.dask", value)
    with pytest.raises(ConfigError) as refused:
        load_settings(write_run(tmp_path / "run.yaml", tree))
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"launch": "ssh there"}, "must hold {command} once, found 'ssh there'"),
        ({"host": "10.0.0.1"}, "host needs launch"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(
    changes: dict[str, str], word: str, tmp_path: Path
) -> None:
    tree = run_tree(tmp_path)
    tree["machine"] |= changes
    with pytest.raises(ConfigError, match=word.replace("{", r"\{")):
        load_settings(write_run(tmp_path / "run.yaml", tree))


def test_a_scheduler_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.dask_cluster.SECONDS_TO_CONNECT", 1)
    cluster = DaskCluster(Dask(scheduler="tcp://127.0.0.1:9"), tmp_path)
    with pytest.raises(ConfigError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        cluster.client(TWO)


def test_a_dashboard_without_bokeh_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bokeh"):
        DaskCluster(Dask(dashboard=True), tmp_path).client(TWO)

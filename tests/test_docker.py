"""The container files, read as Docker would; and the commands of the composition, run here."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_settings
from tests.drawn import PEA, results, run_tree, write_inputs, write_run
from tests.test_packaging import locked
from tests.tried import same

ROOT = Path(__file__).parents[1]
MACHINE = ROOT / "docker" / "machine.yaml"


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments of each line of the Dockerfile."""
    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def composition() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text()))


def test_what_is_copied_is_there_and_not_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [arguments.split()[:-1] for name, arguments in instructions() if name == "COPY"]
    for source in {each for sources in copied for each in sources}:
        assert (ROOT / source).exists()
        assert source not in ignored


def test_there_is_a_target_with_and_one_without_a_gpu() -> None:
    stages = [arguments.split() for name, arguments in instructions() if name == "FROM"]
    names = [stage[2] for stage in stages]
    assert {"cpu", "gpu"} <= set(names)
    for base, _, name in stages[1:]:
        assert base in names[: names.index(name)]
    python = re.fullmatch(r"python:(\d+\.\d+)-slim", stages[0][0])
    assert python is not None
    assert f"python={python.group(1)}" in (ROOT / "environment.yml").read_text()


def test_everything_installed_is_pinned() -> None:
    """By the lock; the project itself is installed without anything else."""
    runs = [arguments for name, arguments in instructions() if name == "RUN"]
    installs = [part for each in runs for part in each.split("&&") if "pip install" in part]
    for words in (shlex.split(each) for each in installs):
        if words[-1] == "/opt/pea":
            assert {"--no-deps", "--no-build-isolation"} <= set(words)
        else:
            assert words[-2] == "-r"
            assert words[-1].endswith(".lock")
    assert {"torch", "setuptools", "obstore", "tensorstore"} <= locked().keys()


def test_the_composition_has_two_workers_and_publishes_nothing() -> None:
    services = composition()["services"]
    assert services["worker"]["deploy"]["replicas"] == 2
    for service in services.values():
        assert "ports" not in service
        assert service["build"]["dockerfile"] == "docker/Dockerfile"
    assert services["driver"].get("entrypoint") is None, "that of the image: pea"


def test_the_driver_finds_the_scheduler(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.yaml", run_tree(tmp_path))
    machine = load_settings(path, machine=MACHINE).machine
    services = composition()["services"]
    assert machine.runner == "dask"
    assert machine.dask.scheduler == services["worker"]["command"][0]
    host, port = services["scheduler"]["command"][1:4:2]
    assert machine.dask.scheduler == f"tcp://{host}:{port}"


@pytest.mark.slow
def test_the_commands_of_the_composition_do_a_run(
    tmp_path: Path, template: tuple[Path, dict[str, str]]
) -> None:
    """Scheduler and workers as processes of this machine, on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def here(text: str) -> str:
        alone = {"scheduler": "127.0.0.1", "8786": str(port), "/tmp/dask": str(tmp_path / "dask")}  # noqa: S108
        return alone.get(text, text.replace("//scheduler:8786", f"//127.0.0.1:{port}"))

    services = composition()["services"]
    started = []
    dask = shutil.which("dask", path=str(Path(sys.executable).parent))
    assert dask is not None
    for name in ("scheduler", "worker", "worker"):
        command = [dask, services[name]["entrypoint"][1], *map(here, services[name]["command"])]
        started.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL))
        time.sleep(1)
    try:
        write_inputs(tmp_path, digest="as ingested")
        path = write_run(tmp_path / "run.yaml", run_tree(tmp_path / "data.zarr"))
        stages = ("fragments", "edges", "relabel", "evaluate")
        blocks = [f"machine.{stage}.block_vx=[8, 32, 32]" for stage in stages]
        machine = tmp_path / "machine.yaml"
        machine.write_text(here(MACHINE.read_text()))
        subprocess.run(
            [*PEA, "run", "all", str(path), *blocks, "--machine", str(machine)],
            cwd=tmp_path,
            check=True,
        )
        found = results(tmp_path / "runs" / "small")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)
    same(found, template[1])

"""The files that say what to install agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"matplotlib-base": "matplotlib"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {
        normal(name): version
        for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))
    }


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    names = [re.split(r"[=<>!\[ ]", line)[0] for line in [*project["dependencies"], *extras]]
    return {normal(name) for name in names} - {normal(project["name"])}


def conda() -> dict[str, str]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    lines = [line for line in entries if isinstance(line, str)] + pip
    pinned = (re.split("=+", line) for line in lines if "=" in line)
    return {normal(CONDA_NAMES.get(name, name)): version for name, version in pinned}


def test_every_declared_dependency_is_locked_and_in_the_conda_environment() -> None:
    assert declared() <= locked().keys()
    assert declared() <= conda().keys()


def test_the_conda_environment_has_the_locked_versions() -> None:
    versions = {name: version for name, version in conda().items() if name != "python"}
    assert versions == {name: locked()[name] for name in versions}


def test_the_lock_holds_versions_and_nothing_else() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def test_the_lock_can_be_installed_where_there_is_no_cuda() -> None:
    assert not [name for name in locked() if re.match(r"nvidia|cuda|triton", name)]


def test_every_package_of_the_project_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("pipeline", "workers")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found


BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it is here, and one released network that is none."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for top in ("pipeline", "workers"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("__pycache__"))
    weights = folder / "pipeline" / "model" / "weights"
    weights.mkdir(exist_ok=True)
    for name in ("tried.safetensors", "tried.md"):
        (weights / name).touch()
    return folder


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_released_networks_and_their_cards_are_packed(
    copied: Path, tmp_path: Path, kind: str
) -> None:
    built = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(tmp_path)],
        cwd=copied, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    path = tmp_path / built.stdout.splitlines()[-1]
    if kind == "wheel":
        names = set(zipfile.ZipFile(path).namelist())
    else:
        with tarfile.open(path) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
    weights = copied / "pipeline" / "model" / "weights"
    assert {f"pipeline/model/weights/{file.name}" for file in weights.iterdir()} <= names
    beside = [
        file.relative_to(copied).as_posix()
        for top in ("pipeline", "workers")
        for file in (copied / top).rglob("*")
        if file.suffix not in (".py", ".md", ".nbc", ".nbi") and file.is_file()
    ]
    assert set(beside) <= names, "what code reads is named in package-data"
    assert not [name for name in names if name.endswith((".nbc", ".nbi", ".h5"))]


@pytest.mark.slow
def test_a_wheel_does_the_demo_away_from_the_project(copied: Path, tmp_path: Path) -> None:
    """In an environment of its own, which has this one's libraries and not this project."""
    subprocess.run(
        [sys.executable, "-c", BUILD, "wheel", str(tmp_path)], cwd=copied, check=True,
        capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index",
         str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    # Folders named in a .pth file are searched; .pth files in them, as of an editable install, not.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def done(*words: str) -> str:
        return subprocess.run(
            words, cwd=tmp_path, env=plain, check=True, capture_output=True, text=True
        ).stdout

    where = done(str(python), "-c", "import pipeline, workers; print(pipeline.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    said = done(str(python.with_name("pea")), "demo", "--shape", "24,96,96")
    assert "VOI" in said
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000

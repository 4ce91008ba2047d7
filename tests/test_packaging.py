"""The files that say what to install agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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


def test_every_package_of_the_project_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("pipeline", "workers")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found

"""Other distributions with extensions, installed for a test."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline import extensions

SOURCE = Path(__file__).parent / "extension"
PROJECT = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]


class Installed:
    """A folder of packages that this process and all that it starts look into.

    It holds what pip would leave there; `test_extensions` compares the two.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, inherited)]))
        # A changed module may have the size and the second of the one before it.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        self.anew()

    def tiny_lab(self) -> Installed:
        shutil.copytree(
            SOURCE / "tiny_lab", self.folder / "tiny_lab", ignore=lambda *_: {"__pycache__"}
        )
        return self.distribution(PROJECT["name"], PROJECT["version"], PROJECT["entry-points"])

    def distribution(
        self, name: str, version: str, points: Mapping[str, Mapping[str, str]]
    ) -> Installed:
        """The metadata of one."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        said = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(said)
        lines = []
        for group, named in points.items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in named.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        self.anew()
        return self

    def module(self, name: str, text: str) -> Installed:
        (self.folder / f"{name}.py").write_text(text)
        self.anew()
        return self

    def change(self, module: str, old: str, new: str) -> None:
        """Another version of a module of ``tiny_lab``."""
        path = self.folder / "tiny_lab" / f"{module}.py"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        self.anew()

    def uninstall(self) -> None:
        """All of them."""
        self.anew()
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.anew()

    def anew(self) -> None:
        """Forget what this process has loaded."""
        extensions._declaration.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] in self._modules()]:
            del sys.modules[name]

    def _modules(self) -> set[str]:
        return {path.stem for path in self.folder.iterdir()}

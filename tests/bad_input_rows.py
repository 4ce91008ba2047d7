"""A row of bad or odd input: a valid small run, and how it is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr

from pipeline.errors import PipelineError
from pipeline.volume import Volume
from tests.drawn import DIRECT, run_tree, set_at
from workers import cli

Words = tuple[str, ...]


@dataclass
class Case:
    """A valid small run, to be broken: its inputs, run file and command line."""

    folder: Path
    data: Path = field(init=False)
    tree: dict[str, Any] = field(init=False)
    text: str | None = None
    """The run file itself, instead of ``tree``."""
    command: list[str] | None = None

    def __post_init__(self) -> None:
        self.data = self.folder / "data.zarr"
        self.tree = run_tree(self.data, block_vx=(16, 40, 48), retries=0)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def root(self) -> Path:
        return self.runs / "small"

    def set(self, key: str, value: Any) -> None:
        set_at(self.tree, key, value)

    def words(self, *changes: str) -> list[str]:
        """The command line, once the run file is written."""
        path = self.folder / "run.yaml"
        text = self.text if self.text is not None else yaml.safe_dump(self.tree)
        path.write_text(text.replace("{data}", str(self.data)))
        if self.command is not None:
            return self.command
        return ["run", "all", str(path), *changes, "--runs", str(self.runs)]

    def metadata(self, name: str) -> Path:
        return self.data / name / "s0" / "zarr.json"

    def change(self, name: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Edit the zarr.json of an input."""
        path = self.metadata(name)
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    def attribute(self, name: str, key: str, value: Any) -> None:
        self.change(name, lambda meta: meta["attributes"].__setitem__(key, value))

    def without(self, name: str, *keys: str) -> None:
        def edit(meta: dict[str, Any]) -> None:
            for key in keys:
                del meta["attributes"][key]

        self.change(name, edit)

    def place(self, name: str, size: list[float], offset: list[float]) -> None:
        for key in ("voxel_size", "resolution"):
            self.attribute(name, key, size)
        self.attribute(name, "offset", offset)

    def plain(self, name: str, data: np.ndarray, zarr_format: int = 2, **settings: Any) -> None:
        """Replace an input by an array as other programs write it."""
        path = self.data / name
        shutil.rmtree(path, ignore_errors=True)
        array = zarr.create_array(
            path,
            data=data,
            zarr_format=zarr_format,
            chunks=(*data.shape[:-3], 8, 16, 16)[-data.ndim :],
            config={"write_empty_chunks": True},
            **settings,
        )
        array.attrs.update({"voxel_size": [40, 8, 8], "offset": [80, 16, 8]})
        if data.ndim == 4:
            array.attrs["neighborhood"] = [list(v) for v in DIRECT][: data.shape[0]]

    def read(self, name: str) -> np.ndarray:
        volume = Volume.open(self.data / name)
        return volume.read(volume.roi)

    def shard(self, name: str) -> Path:
        """One file of voxels of an input."""
        return next(p for p in sorted((self.data / name / "s0" / "c").rglob("*")) if p.is_file())


@dataclass(frozen=True)
class Bad:
    """A row: what is wrong, how to make it so, and what must be said."""

    row: str
    what: str
    spoil: Callable[[Case], object]
    kind: type[PipelineError]
    words: Words
    scans: bool = False
    """Seen in the voxels only: blocks fail, and nothing is published."""
    changes: Words = ()
    """On the command line."""


@dataclass(frozen=True)
class Fine:
    """A row that looks bad, and must work."""

    row: str
    what: str
    spoil: Callable[[Case], object]
    check: Callable[[Case, str], None]


def key(name: str, value: Any) -> Callable[[Case], None]:
    return lambda case: case.set(name, value)


def text(content: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.text = content

    return spoil


def attribute(name: str, attr: str, value: Any) -> Callable[[Case], None]:
    return lambda case: case.attribute(name, attr, value)


def command(*words: str) -> Callable[[Case], None]:
    """Words with {data} and {folder} filled in."""

    def spoil(case: Case) -> None:
        case.command = [word.format(data=case.data, folder=case.folder) for word in words]

    return spoil


def all_of(*parts: Callable[[Case], object]) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        for part in parts:
            part(case)

    return spoil


EVALUATE = command("evaluate", "{data}/labels", "{data}/truth")


def scored(spoil: Callable[[Case], object]) -> Callable[[Case], None]:
    """`pea evaluate` of the labels against a copy of them, one of which is spoilt."""

    def both(case: Case) -> None:
        shutil.copytree(case.data / "labels", case.data / "truth")
        spoil(case)
        EVALUATE(case)

    return both


def labels_of(dtype: str, name: str = "labels") -> Callable[[Case], None]:
    return lambda case: case.plain(name, case.read(name).astype(dtype))


def with_mask(spoil: Callable[[Case], object]) -> Callable[[Case], None]:
    return all_of(lambda case: case.set("run.data.mask", str(case.data / "mask")), spoil)


def finished(case: Case) -> None:
    assert cli.main(case.words()) == 0

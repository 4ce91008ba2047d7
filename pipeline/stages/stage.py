"""What every stage has, and all that a runner needs to know of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from pipeline.errors import DataError, ExistsError, LayoutError
from pipeline.geometry import Block, BlockGrid, Roi
from pipeline.rundir import Identity, RunDirectory, table_name
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume


class Outcome(NamedTuple):
    """What came of a block."""

    filled: int
    """Voxels or rows that are not background."""
    masked: bool = False
    """The mask left nothing to do."""


Process = Callable[[Block], Outcome]
PARTS_AT_ONCE = 16
BYTES_OF_UNKNOWN_TABLES = 2 << 30


class Sum(Protocol):
    """The sum of what ``part`` makes of each item, whoever computes it.

    ``add`` may be given parts and sums, in any order and number: its result must not show it.
    """

    def __call__[Item, Part](
        self,
        part: Callable[[Item], Part],
        add: Callable[[Iterable[Part]], Part],
        items: Sequence[Item],
    ) -> Part: ...


def sum_here[Item, Part](
    part: Callable[[Item], Part],
    add: Callable[[Iterable[Part]], Part],
    items: Sequence[Item],
    progress: Callable[[int, int], None] = lambda done, failed: None,
) -> Part:
    """A sum by this process, which holds few parts at once."""
    total, done = add(()), 0
    for some in batched(items, PARTS_AT_ONCE):
        total = add([total, *map(part, some)])
        done += len(some)
        progress(done, 0)
    return total


@dataclass(frozen=True)
class Stage(ABC):
    """One pass over a volume.

        +--------- read: the block and its halo ----------+
        |        +------- write: owned alone ------+      |
        |        |                                 |      |
        +--------+---------------------------------+------+

    What ``open`` returns writes only inside ``block.write`` (or the block's own table), may run
    twice on a block, and depends on nothing but the inputs. A global step has one block.
    """

    revision: ClassVar[int]
    """Raised when the same parameters give different numbers."""

    name: str
    run: RunDirectory
    grid: BlockGrid
    upstream: tuple[Identity, ...]
    """The stages that must be complete before this one starts."""
    contents: Mapping[str, str]
    """Fingerprints of the user's arrays that are read, by their names."""

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """All that decides the numbers besides code and inputs, as plain values."""

    @property
    def identity(self) -> Identity:
        """What this stage is, as far as its numbers go."""
        before = {identity.stage: identity.fingerprint for identity in self.upstream}
        return Identity(
            self.name, self.revision, dict(self.parameters), before | dict(self.contents)
        )

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """Upper bound of what one block needs, without libraries and code.

        Where that depends on tables, an estimate from their size, once they are there.
        """

    def memory_of_tables(self, times: float) -> int:
        """So many times the size of the tables of the first stage upstream; a guess before."""
        found = self.run.table_bytes(self.upstream[0])
        return BYTES_OF_UNKNOWN_TABLES if found is None else math.ceil(times * found)

    @abstractmethod
    def open(self) -> AbstractContextManager[Process]:
        """Once per worker: load and open what all blocks share."""

    def output_specs(self) -> Mapping[str, VolumeSpec]:
        """Volumes this stage writes, by their path in ``volumes.zarr``, level included."""
        return {}

    @property
    def writes_table(self) -> bool:
        """Whether each block writes a table."""
        return True

    def finish(self, total: Sum) -> None:  # noqa: B027 - most stages have nothing to reduce
        """Once, after all blocks: reduce them. May run again.

        Args:
            total: adds up tables, perhaps elsewhere.
        """

    def remarks(self) -> list[str]:
        """What `pea plan` should say of it besides its figures."""
        return []

    def results(self) -> list[Path]:
        """The files that ``finish`` writes."""
        return []

    def prepare(self) -> None:
        """Once, before any block: create the outputs that are not there yet."""
        for name, spec in self.output_specs().items():
            path, _, level = name.rpartition("/")
            if not (self.run.volume(name) / "zarr.json").exists():
                fingerprint = {"fingerprint": self.identity.fingerprint}
                Volume.create(self.run.volume(path), spec, fingerprint, level)

    def refuse_foreign_outputs(self) -> None:
        """Raise if an output is there that is not of this stage, or was begun in other blocks.

        Raises:
            ExistsError: it was made by other parameters or inputs, or is no array; LayoutError: it
            was begun with blocks that these do not fit.
        """
        for name in self.output_specs():
            target = self.run.volume(name)
            for path in (target.parent.parent, target.parent, target):
                if path.exists() and not path.is_dir():
                    raise ExistsError(
                        f"{self.name} writes an array at {target}\nfound a file: {path}\n"
                        "Move it away, or choose another run.name."
                    )
            if not (target / "zarr.json").exists():
                continue
            volume = Volume.open(target)
            if volume.attributes.get("fingerprint") != self.identity.fingerprint:
                raise ExistsError(
                    f"{target} was made with other settings or inputs\n"
                    f"Rerun {self.name} and what depends on it: pea run ... --rerun"
                )
            shard = volume.spec.shard_vx
            if any(block % side for block, side in zip(self.grid.block_vx, shard, strict=True)):
                raise LayoutError(
                    f"{self.name} was begun with blocks of {list(shard)} voxels, now they are "
                    f"{list(self.grid.block_vx)}: {target}\n"
                    f"Finish it with block_vx={list(shard)}, or begin anew: pea drop {self.name}"
                )

    def outputs(self) -> list[Path]:
        """A file of each volume, and each other file, that is there when this stage is done."""
        arrays = [self.run.volume(name) / "zarr.json" for name in self.output_specs()]
        return [*arrays, *self.results()]

    def remove_outputs(self) -> None:
        """Delete the volumes and files of this stage."""
        for name in self.output_specs():
            Volume.remove(self.run.volume(name))

    def files(self, block: Block) -> list[Path]:
        """The files that hold what a block wrote."""
        files = [shard for v in self.output_volumes().values() for shard in v.shards(block.write)]
        return [*files, self.table(block)] if self.writes_table else files

    def output_volumes(self) -> dict[str, Volume]:
        return {
            name: Volume.open(self.run.volume(name), writable=True) for name in self.output_specs()
        }

    def table(self, block: Block) -> Path:
        """Where a block writes its table."""
        return self.run.tables(self.identity, self.grid.name) / table_name(block.index)


def quantised(affinities: np.ndarray, where: object) -> np.ndarray:
    """Affinities as uint8, ``round(255 * a)``.

    Args:
        affinities: uint8, or floats in [0, 1].

    Raises:
        DataError: NaN, or floats outside [0, 1].
    """
    if affinities.dtype == np.uint8:
        return affinities
    bad = ~((affinities >= 0) & (affinities <= 1))
    if bad.any():
        first = tuple(int(n) for n in np.argwhere(bad)[0])
        raise DataError(
            f"affinities must lie in [0, 1]: {where} has {int(bad.sum())} values that do not, "
            f"the first {affinities[first]} at {first} of the block\n"
            "Values of 0 to 255 belong in uint8."
        )
    return np.rint(affinities * np.float32(255)).astype(np.uint8)


def mask_of(mask: Volume | None, roi: Roi) -> np.ndarray:
    """Which voxels of a region exist, as bool."""
    return np.ones(tuple(roi.shape), bool) if mask is None else mask.read(roi) != 0

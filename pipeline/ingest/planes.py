"""Some planes of a source: ``START:STOP:STEP`` along z, as a source of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import ConfigError, RoiError
from pipeline.geometry import Nm
from pipeline.ingest.sources import Source

WRITTEN = re.compile(r"(\d{0,9}):(\d{0,9})(?::(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True)
class Planes:
    """Planes ``start``, ``start + step``, ... before ``stop``; None is the end."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    @classmethod
    def of(cls, text: str) -> Planes:
        """From ``START:STOP`` or ``START:STOP:STEP``; START and STOP may be left out.

        Raises:
            ConfigError: not written so, a step of 0, or no planes.
        """
        found = WRITTEN.fullmatch(text)
        if found is None:
            raise ConfigError(
                "--planes must be START:STOP or START:STOP:STEP, whole numbers from 0, STOP not "
                f"among them; found {text!r}\nEvery third plane is 0::3, the first hundred 0:100."
            )
        start, stop, step = found.groups()
        planes = cls(int(start or 0), int(stop) if stop else None, int(step or 1))
        if planes.step < 1 or (planes.stop is not None and planes.stop <= planes.start):
            raise ConfigError(
                f"--planes must name some, STOP above START and STEP above 0; found {text!r}"
            )
        return planes

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.stop is None else self.stop}:{self.step}"

    def voxel_size(self, of_all: Nm) -> Nm:
        """Of these planes; one is as thick as the step to the next."""
        return Nm(of_all.z * self.step, of_all.y, of_all.x)

    def offset(self, of_all: Nm, voxel_size_of_all: Nm) -> Nm:
        """Of the first of these planes."""
        return Nm(of_all.z + self.start * voxel_size_of_all.z, of_all.y, of_all.x)


ALL_PLANES = Planes()


def chosen_planes(source: Source, planes: Planes) -> Source:
    """A source that holds these planes only. Its place is still that of all planes.

    Raises:
        RoiError: planes that the source does not have.
        ConfigError: not every plane of affinities: their pairs along z would not be neighbours.
    """
    stop = source.num_planes if planes.stop is None else planes.stop
    if stop > source.num_planes or planes.start >= source.num_planes:
        raise RoiError(
            f"--planes must lie in 0:{source.num_planes}, found {planes}: {source.where}"
        )
    if planes.step > 1 and len(source.shape) == 4:
        raise ConfigError(
            f"--planes cannot leave out planes of affinities, whose pairs they hold: {source.where}"
            "\nGive START:STOP without STEP, or a boundary map instead."
        )
    indices = range(planes.start, stop, planes.step)

    def load(begin: int, end: int) -> np.ndarray:
        # As many planes at once as are wanted of them, so that memory does not grow with the step.
        at_once = max(1, (end - begin) // planes.step)
        parts = []
        for first in range(begin, end, at_once):
            some = indices[first : min(end, first + at_once)]
            parts.append(source.load(some[0], some[-1] + 1)[..., :: planes.step, :, :])
        return np.concatenate(parts, axis=-3)

    return replace(
        source,
        where=f"{source.where}[{planes}]",
        shape=(*source.shape[:-3], len(indices), *source.shape[-2:]),
        load=load,
    )

"""From a run file to its stages, with what each of them costs. Reads metadata, no voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import RoiNm, Settings, Workers
from pipeline.content import content_fingerprint
from pipeline.errors import (
    ConfigError,
    DtypeError,
    ExistsError,
    LayoutError,
    MetadataError,
    RoiError,
    ShapeError,
)
from pipeline.geometry import ZYX, BlockGrid, Nm, Offsets, Roi, describe, voxels
from pipeline.rundir import Identity, RunDirectory
from pipeline.segment.downsample import halved_axes
from pipeline.segment.fragments import FragmentRule
from pipeline.stages.agglomerate import Agglomerate, RelabelBlockwise
from pipeline.stages.downsample import DownsampleBlockwise
from pipeline.stages.edges import EdgesBlockwise
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.fragments import FragmentsBlockwise, ResolveFragments
from pipeline.stages.stage import Stage
from pipeline.volume import Volume, VolumeSpec

COARSEST_SIDE_VX = 64
"""The pyramid ends with the level whose sides are all at most this long."""


@dataclass(frozen=True)
class Step:
    """A stage and who computes it."""

    stage: Stage
    workers: Workers


@dataclass(frozen=True)
class Plan:
    """The stages of a run, each after those it needs."""

    settings: Settings
    run: RunDirectory
    steps: tuple[Step, ...]

    def select(self, name: str) -> tuple[Step, ...]:
        """The steps that a name on the command line stands for.

        Raises:
            ConfigError: no such stage in this run.
        """
        if name == "all":
            return self.steps
        chosen = tuple(
            s for s in self.steps if s.stage.name == name or s.stage.identity.stage == name
        )
        chosen = chosen or tuple(s for s in self.steps if s.stage.name.rpartition("_")[0] == name)
        if not chosen:
            names = ", ".join(step.stage.name for step in self.steps)
            hint = "\nScores need run.data.labels." if name == "evaluate" else ""
            raise ConfigError(f"a stage must be one of: all, {names}; found {name!r}{hint}")
        return chosen

    def dependants(self, names: set[str]) -> tuple[Step, ...]:
        """The named stages and all that need them, in order."""
        reached = set(names)
        for step in self.steps:
            if any(identity.stage in reached for identity in step.stage.upstream):
                reached.add(step.stage.name)
        return tuple(step for step in self.steps if step.stage.name in reached)


def make_plan(settings: Settings, runs: Path) -> Plan:
    """The stages of a run, with everything checked that metadata can show.

    Raises:
        PipelineError: of the kind that fits, naming the array or key, before anything is written.
    """
    run, data = settings.run, settings.run.data
    where = RunDirectory(runs / run.name)
    if data.affinities is None:
        raise ConfigError(
            "run.data.affinities must name an array of affinities to start from\n"
            "Make one from affinities, a boundary map or an interior map: pea ingest SOURCE DEST"
        )
    refuse_nested(where.root, (data.affinities, data.labels, data.mask))
    affinities = Volume.open(data.affinities)
    offsets = checked_affinities(affinities, data.offsets)
    size = affinities.spec.voxel_size_nm
    roi = region(affinities, data.roi)
    inputs = {"affinities": content_fingerprint(affinities, where.root)}
    if data.mask is not None:
        mask = checked_partner(Volume.open(data.mask), size, roi, "mask")
        if mask.dtype.kind not in "bui":
            raise DtypeError(
                f"a mask must hold integers or bool, found {mask.dtype}: {data.mask}\n"
                "Voxels to segment are those that are not 0."
            )
        if not mask.roi.contains(roi):
            raise RoiError(
                f"a mask must cover the region: {data.mask}\nthe mask has "
                f"{describe(mask.roi, size)}\nthe region is {describe(roi, size)}"
            )
        inputs["mask"] = content_fingerprint(mask, where.root)
    region_parameters = {
        "roi": [list(roi.begin), list(roi.shape)],
        "voxel_size_nm": size.numbers(),
    }

    def labels_spec(meaning: str, workers: Workers) -> VolumeSpec:
        return VolumeSpec(
            shape=tuple(roi.shape),
            dtype="uint64",
            voxel_size_nm=size,
            offset_nm=Nm(*(b * s for b, s in zip(roi.begin, size, strict=True))),
            meaning=meaning,
            shard_vx=workers.block_vx,
        )

    machine = settings.machine
    steps: list[Step] = []

    def add(
        kind: Callable[..., Stage],
        name: str,
        workers: Workers,
        upstream: tuple[Identity, ...],
        parameters: Mapping[str, Any],
        grid: BlockGrid,
        external: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Identity:
        before = {identity.stage: identity.fingerprint for identity in upstream}
        revision = kind.revision  # type: ignore[attr-defined]
        identity = Identity(name, revision, dict(parameters), before | dict(external or {}))
        stage = kind(
            name=name, run=where, grid=grid, identity=identity, upstream=upstream, **fields
        )
        check_memory(stage, workers)
        steps.append(Step(stage, workers))
        return identity

    def whole(of: Roi) -> BlockGrid:
        return BlockGrid(of, ZYX.of(of.shape))

    rule = FragmentRule(
        size,
        run.fragments.per_section,
        run.fragments.narrow_nm,
        run.fragments.wide_nm,
        run.fragments.wide_share,
    )
    fragments = add(
        FragmentsBlockwise,
        "fragments_blockwise",
        machine.fragments,
        (),
        region_parameters | run.fragments.model_dump(),
        BlockGrid(roi, machine.fragments.block_vx, rule.halo_below_vx, rule.halo_above_vx),
        inputs,
        affinities=data.affinities,
        mask=data.mask,
        rule=rule,
        basins=labels_spec("basins", machine.fragments),
    )
    resolved = add(
        ResolveFragments, "resolve_fragments", machine.agglomerate, (fragments,), {}, whole(roi)
    )
    edges = add(
        EdgesBlockwise,
        "edges_blockwise",
        machine.edges,
        (resolved,),
        {"offsets": offsets.numbers()},
        BlockGrid(roi, machine.edges.block_vx, offsets.halo_below_vx, offsets.halo_above_vx),
        {"affinities": inputs["affinities"]},
        affinities=data.affinities,
        offsets=offsets,
        fragments=labels_spec("fragments", machine.edges),
    )
    tree = add(
        Agglomerate,
        "agglomerate",
        machine.agglomerate,
        (edges,),
        {"method": run.agglomerate.method},
        whole(roi),
    )
    cut: dict[str, Any] = {
        "threshold": run.agglomerate.threshold,
        "dust_vx": run.agglomerate.dust_vx,
    }
    finer = add(
        RelabelBlockwise,
        "relabel_blockwise",
        machine.relabel,
        (tree,),
        cut,
        BlockGrid(roi, machine.relabel.block_vx),
        segmentation=labels_spec("segmentation", machine.relabel),
        **cut,
    )
    for level, (factors, spec) in enumerate(
        pyramid(labels_spec("segmentation", machine.downsample)), start=1
    ):
        finer = add(
            DownsampleBlockwise,
            f"downsample_blockwise_{level}",
            machine.downsample,
            (finer,),
            {"factors": list(factors)},
            BlockGrid(Roi((0, 0, 0), spec.shape), machine.downsample.block_vx),
            level=level,
            factors=factors,
            spec=spec,
        )
    if data.labels is not None:
        truth = checked_partner(Volume.open(data.labels), size, roi, "labels")
        if truth.dtype.kind != "u":
            raise DtypeError(
                f"labels must be unsigned integers, found {truth.dtype}: {data.labels}\n"
                "Ingest them: pea ingest SOURCE DEST --as labels"
            )
        add(
            Evaluate,
            "evaluate",
            machine.evaluate,
            (tree,),
            cut | {"thresholds": list(run.evaluate.thresholds)},
            BlockGrid(roi.intersect(truth.roi), machine.evaluate.block_vx),
            {"labels": content_fingerprint(truth, where.root)},
            truth=data.labels,
            thresholds=run.evaluate.thresholds,
            **cut,
        )
    return Plan(settings, where, tuple(steps))


def refuse_nested(root: Path, inputs: Sequence[Path | None]) -> None:
    """Raise if a run would write into its inputs, or read what it writes.

    Raises:
        ExistsError: naming both paths.
    """
    place = root.resolve()
    if root.exists() and not root.is_dir():
        raise ExistsError(
            f"a run directory must be a directory, found a file: {root}\n"
            "Choose another run.name, or another place with --runs."
        )
    for path in inputs:
        if path is None:
            continue
        source = path.resolve()
        if place.is_relative_to(source) or source.is_relative_to(place):
            raise ExistsError(
                f"a run directory and its inputs must lie apart: {root}\nfound the input {path}\n"
                "Choose another run.name, or another place with --runs."
            )


def checked_affinities(volume: Volume, given: Offsets | None) -> Offsets:
    """The offsets of an array of affinities.

    Raises:
        ShapeError, DtypeError, MetadataError, ConfigError: it cannot be one.
    """
    spec, path = volume.spec, volume.path
    if spec.channels is None:
        raise ShapeError(
            f"affinities have axes (channel, z, y, x), found shape {spec.shape}: {path}\n"
            "A boundary or interior map becomes affinities by pea ingest --as boundary|interior."
        )
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise DtypeError(
            f"affinities must be uint8, or floats in [0, 1]; found {volume.dtype}: {path}"
        )
    if given and spec.offsets and given != spec.offsets:
        raise MetadataError(
            f"offsets contradict each other: {path}\nits attribute neighborhood is "
            f"{spec.offsets.numbers()}\nrun.data.offsets is {given.numbers()}"
        )
    offsets = spec.offsets or given
    if offsets is None:
        raise MetadataError(
            f"offsets of the channels are not known: {path} has no attribute neighborhood\n"
            "Give run.data.offsets: channel c at voxel v relates v and v + offset."
        )
    if spec.channels != len(offsets):
        raise ShapeError(
            f"affinities need one channel for each offset: {path}\n"
            f"found {spec.channels} channels, {len(offsets)} offsets {offsets.numbers()}"
        )
    # A section has no pairs along z, and is a volume all the same; a long offset is a mistake.
    for vector in offsets.vectors[Offsets.NUM_DIRECT :]:
        if any(abs(n) >= side for n, side in zip(vector, spec.shape[1:], strict=True)):
            raise ConfigError(
                f"offsets must be shorter than the volume, found {list(vector)}: "
                f"{path} has sides {spec.shape[1:]}"
            )
    return offsets


def checked_partner(
    volume: Volume, voxel_size_nm: Nm, roi: Roi, what: str, other: str = "affinities"
) -> Volume:
    """A volume on the grid of another.

    Raises:
        MetadataError: other voxels; RoiError: no voxel in common; ShapeError: channels.
    """
    spec, path = volume.spec, volume.path
    if spec.channels is not None:
        raise ShapeError(f"{what} must have axes (z, y, x), found shape {spec.shape}: {path}")
    if spec.voxel_size_nm != voxel_size_nm:
        raise MetadataError(
            f"{what} and {other} must have one voxel size: {path}\n"
            f"{what} {spec.voxel_size_nm} nm, {other} {voxel_size_nm} nm"
        )
    if volume.roi.intersect(roi).empty:
        raise RoiError(
            f"{what} and the region must overlap: {path}\n{what} cover "
            f"{describe(volume.roi, voxel_size_nm)}\nthe region is {describe(roi, voxel_size_nm)}"
        )
    return volume


def region(volume: Volume, given: RoiNm | None) -> Roi:
    """The region of a run, in world voxels.

    Raises:
        RoiError: not whole voxels, empty, or not inside the volume.
    """
    if given is None:
        return volume.roi
    size = volume.spec.voxel_size_nm
    begin, shape = (
        voxels(length, size, f"run.data.roi.{name}")
        for length, name in ((given.offset, "offset"), (given.shape, "shape"))
    )
    roi = Roi(begin, shape)
    if min(shape) < 1 or not volume.roi.contains(roi):
        raise RoiError(
            f"run.data.roi must lie inside the affinities: {volume.path}\n"
            f"the region is {describe(roi, size)}\nthe affinities have {describe(volume.roi, size)}"
        )
    return roi


def pyramid(spec: VolumeSpec) -> list[tuple[ZYX, VolumeSpec]]:
    """The coarser levels of a volume, with the factors that lead to each."""
    levels = []
    while max(spec.shape) > COARSEST_SIDE_VX:
        factors = halved_axes(spec.voxel_size_nm)
        if all(f == 1 or side == 1 for f, side in zip(factors, spec.shape, strict=True)):
            break
        spec = replace(
            spec,
            shape=tuple(-(-side // f) for side, f in zip(spec.shape, factors, strict=True)),
            voxel_size_nm=Nm(*(s * f for s, f in zip(spec.voxel_size_nm, factors, strict=True))),
        )
        levels.append((factors, spec))
    return levels


def check_memory(stage: Stage, workers: Workers) -> None:
    """Refuse a block that does not fit into its worker.

    Raises:
        LayoutError: with both figures.
    """
    if stage.memory_bytes > workers.memory_gb * 1e9:
        raise LayoutError(
            f"{stage.name} needs {stage.memory_bytes / 1e9:.1f} GB per block of "
            f"{list(stage.grid.block_vx)} voxels, its workers have {workers.memory_gb:g} GB\n"
            "Make machine.*.block_vx smaller, or machine.*.memory_gb larger."
        )

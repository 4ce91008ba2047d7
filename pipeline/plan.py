"""From a run file to its stages, with what each of them costs. Reads metadata, no voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import config
from pipeline.config import Settings, Workers
from pipeline.errors import ConfigError, LayoutError
from pipeline.evaluate.border import Border
from pipeline.geometry import ZYX, BlockGrid, Offsets, Roi, nanometres
from pipeline.inputs import named_region, open_inputs
from pipeline.plan_predict import prediction
from pipeline.rundir import Identity, RunDirectory
from pipeline.segment.downsample import halved_axes
from pipeline.segment.fragments import FragmentRule
from pipeline.segment.segments import Rule, method_named
from pipeline.segment.solvers import library
from pipeline.spec import VolumeSpec
from pipeline.stages.agglomerate import Agglomerate, MulticutBlockwise, RelabelBlockwise
from pipeline.stages.downsample import DownsampleBlockwise
from pipeline.stages.edges import EdgesBlockwise, HistogramsBlockwise, SumEdges
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.fragments import FragmentsBlockwise, ResolveFragments
from pipeline.stages.stage import Stage

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
    run, machine = settings.run, settings.machine
    where = RunDirectory(runs / run.name)
    given = open_inputs(run.data, where.root)
    roi, size, affinities = given.roi, given.voxel_size_nm, given.source.path
    whole = BlockGrid(roi, ZYX.of(roi.shape))
    labels = VolumeSpec(
        shape=tuple(roi.shape),
        dtype="uint64",
        voxel_size_nm=size,
        offset_nm=nanometres(roi.begin, size),
        meaning="labels",
    )

    def output(meaning: str, workers: Workers) -> VolumeSpec:
        return replace(labels, meaning=meaning, shard_vx=workers.block_vx)

    def contents(*names: str) -> dict[str, str]:
        return {name: given.contents[name] for name in names if name in given.contents}

    rule = FragmentRule(
        size,
        run.fragments.per_section,
        run.fragments.narrow_nm,
        run.fragments.wide_nm,
        run.fragments.wide_share,
    )
    predicted = prediction(settings, where, given)
    before: tuple[Identity, ...] = ()
    offsets = given.offsets or Offsets()
    if predicted is not None:
        affinities, offsets = where.volume("affinities"), predicted.offsets
        before = (predicted.identity,)
    fragments = FragmentsBlockwise(
        name="fragments_blockwise",
        run=where,
        grid=BlockGrid(roi, machine.fragments.block_vx, rule.halo_below_vx, rule.halo_above_vx),
        upstream=before,
        contents=contents("affinities", "mask"),
        affinities=affinities,
        mask=given.mask.path if given.mask else None,
        rule=rule,
        basins=output("basins", machine.fragments),
    )
    resolved = ResolveFragments(
        name="resolve_fragments", run=where, grid=whole, upstream=(fragments.identity,), contents={}
    )
    edges = EdgesBlockwise(
        name="edges_blockwise",
        run=where,
        grid=BlockGrid(roi, machine.edges.block_vx, offsets.halo_below_vx, offsets.halo_above_vx),
        upstream=(resolved.identity, *before),
        contents=contents("affinities"),
        affinities=affinities,
        offsets=offsets,
        fragments=output("fragments", machine.edges),
    )
    summed = SumEdges(
        name="sum_edges", run=where, grid=whole, upstream=(edges.identity,), contents={}
    )
    how = agglomeration(run.agglomerate, roi, offsets)
    prepared: list[Step] = []
    if method_named(how.method).histograms:
        histograms = HistogramsBlockwise(
            name="histograms_blockwise",
            run=where,
            grid=BlockGrid(roi, machine.edges.block_vx, Offsets().halo_below_vx),
            upstream=(edges.identity, *before),
            contents=contents("affinities"),
            affinities=affinities,
        )
        prepared = [Step(histograms, machine.edges)]
    elif how.method == "multicut" and how.domains is not None:
        domains = MulticutBlockwise(
            name="multicut_blockwise",
            run=where,
            grid=how.domains,
            upstream=(summed.identity,),
            contents={},
            rule=how,
        )
        prepared = [Step(domains, machine.agglomerate)]
    tree = Agglomerate(
        name="agglomerate",
        run=where,
        grid=whole,
        upstream=(summed.identity, *(step.stage.identity for step in prepared)),
        contents={},
        rule=how,
    )
    relabel = RelabelBlockwise(
        name="relabel_blockwise",
        run=where,
        grid=BlockGrid(roi, machine.relabel.block_vx),
        upstream=(tree.identity, summed.identity),
        contents={},
        rule=how,
        segmentation=output("segmentation", machine.relabel),
    )
    steps = [Step(predicted, machine.predict)] if predicted is not None else []
    steps += [
        Step(fragments, machine.fragments),
        Step(resolved, machine.agglomerate),
        Step(edges, machine.edges),
        Step(summed, machine.agglomerate),
        *prepared,
        Step(tree, machine.agglomerate),
        Step(relabel, machine.relabel),
    ]
    finer: Stage = relabel
    for level, (factors, spec) in enumerate(
        pyramid(output("segmentation", machine.downsample)), start=1
    ):
        finer = DownsampleBlockwise(
            name=f"downsample_blockwise_{level}",
            run=where,
            grid=BlockGrid(Roi((0, 0, 0), spec.shape), machine.downsample.block_vx),
            upstream=(finer.identity,),
            contents={},
            level=level,
            factors=factors,
            spec=spec,
        )
        steps.append(Step(finer, machine.downsample))
    if given.truth is not None:
        scored = roi.intersect(given.truth.roi)
        if run.evaluate.roi is not None:
            what = "the region of the run, where there are labels"
            scored = named_region(run.evaluate.roi, size, "run.evaluate.roi", scored, what)
        halo = Border.of(run.evaluate.border_nm, size).halo_vx
        swept = {"threshold": run.evaluate.thresholds, "beta": run.evaluate.betas, None: ()}
        scores = Evaluate(
            name="evaluate",
            run=where,
            grid=BlockGrid(scored, machine.evaluate.block_vx, halo, halo),
            upstream=(tree.identity, summed.identity),
            contents=contents("labels"),
            truth=given.truth.path,
            border_nm=run.evaluate.border_nm,
            rule=how,
            values=swept[how.parameter],
        )
        steps.append(Step(scores, machine.evaluate))
    for step in steps:
        check_memory(step.stage, step.workers)
    return Plan(settings, where, tuple(steps))


def agglomeration(chosen: config.Agglomerate, roi: Roi, offsets: Offsets) -> Rule:
    """The rule of a run.

    Raises:
        ConfigError: a method that needs long-range affinities, and there are none; or a solver that
        is not installed.
    """
    if method_named(chosen.method).long_range and len(offsets) == Offsets.NUM_DIRECT:
        raise ConfigError(
            f"run.agglomerate.method {chosen.method} needs affinities of long-range offsets, found "
            f"the direct neighbours only\n"
            "Predict more (run.predict.offsets), or choose multicut or mean_affinity."
        )
    if "solver" in method_named(chosen.method).settings:
        library(chosen.solver)
    domains = None if chosen.domain_vx is None else BlockGrid(roi, chosen.domain_vx)
    return Rule(domains=domains, **chosen.model_dump(exclude={"domain_vx"}))


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
            voxel_size_nm=nanometres(factors, spec.voxel_size_nm),
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
            "Make machine.*.block_vx smaller, or machine.*.memory_gb larger; of a prediction, "
            "run.predict.patch_vx."
        )

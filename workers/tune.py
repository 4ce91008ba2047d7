"""Searches the settings that segment best, on a region kept for that.

Everything lies in ``tune/`` of the run directory: a run that predicts the region's affinities, if
the run itself has none of it; a run for each setting of fragments; and what came of it. They are
ordinary runs of the ordinary stages, so a tuning that was stopped goes on, and one with more
settings adds to what is there. Methods and their parameters are scored from tables.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.candidates import (
    FRAGMENT_KEYS,
    agglomerate_candidates,
    chosen_settings,
    fragment_candidates,
    fragment_run,
    offsets_to_predict,
    prediction_run,
)
from pipeline.config import Agglomerate, Settings, dump_settings
from pipeline.errors import ConfigError
from pipeline.evaluate.contingency import Contingency
from pipeline.evaluate.landscape import Curve, Measure, Point, best_of_each
from pipeline.evaluate.scores import HEADLINE, Scores
from pipeline.evaluate.sweep import Swept, sweep
from pipeline.geometry import Nm, Offsets, Roi, describe, voxels
from pipeline.graph import FragmentSizes, Histograms, RegionGraph
from pipeline.inputs import named_region, open_inputs, refuse_overlaps
from pipeline.location import Location
from pipeline.plan import Plan, Step, agglomeration, make_plan
from pipeline.plan_predict import checkpoint_path
from pipeline.rundir import RunDirectory, write_json
from pipeline.segment.segments import Rule, merge_tree, segments_at, segments_of
from pipeline.stages.agglomerate import RelabelBlockwise
from pipeline.stages.downsample import DownsampleBlockwise
from pipeline.stages.edges import EdgesBlockwise, read_graph, read_histograms
from pipeline.stages.evaluate import read_overlaps
from pipeline.stages.predict import PredictBlockwise
from pipeline.tables import replacing
from workers.drive import drive, stale
from workers.export import region_of
from workers.lock import locked
from workers.progress import progress_line
from workers.runner import Runner
from workers.state import State, state_of

VALIDATION = "run.train.validation.roi"


@dataclass(frozen=True)
class Tuned:
    """What came of a tuning."""

    run: RunDirectory
    """Of the runs that were tried."""
    best: Sequence[Point]
    """Of each method, best first: the first is chosen."""
    settings: Settings
    """The run with what was chosen."""

    @property
    def chosen(self) -> Path:
        """The run file."""
        return self.run.root / "chosen.yaml"

    @property
    def scores(self) -> Path:
        return self.run.root / "landscape.json"

    @property
    def picture(self) -> Path:
        return self.run.root / "landscape.png"


def tune(
    settings: Settings,
    runs: Path,
    runner_in: Callable[[RunDirectory], Runner],
    console: Console,
    by: Measure = "voi",
    roi: str | None = None,
    rerun: bool = False,
) -> Tuned:
    """Score every candidate of ``run.tune``, and write ``chosen.yaml`` and the landscape.

    Args:
        runner_in: makes the runner, whose logs belong to a run directory.
        by: what is judged, its mean over a window of each parameter: see ``evaluate.landscape``.
        roi: the region, as ``pea export`` takes it; that of the validation if left out.
        rerun: do stages again that are out of date.

    Raises:
        PipelineError: of the kind that fits; nothing is half-written.
    """
    where = RunDirectory(runs / settings.run.name)
    tuning = RunDirectory(where.root / "tune")
    region, size = region_to_tune(settings, where, roi)
    with locked(tuning), runner_in(tuning) as runner:

        def drive_stages(plan: Plan, steps: Sequence[Step]) -> None:
            drive(plan, steps, runner, stale(plan) if rerun else (), console)

        affinities, offsets = affinities_to_tune(settings, runs, region, size, drive_stages, tuning)
        methods = agglomerate_candidates(settings.run, offsets)
        left_out = set(settings.run.tune.methods) - {each.method for each in methods}
        if left_out:
            console.print(
                f"not tried, without long-range affinities: {', '.join(sorted(left_out))}"
            )
        fragments, plans = fragment_candidates(settings.run), []
        for number, candidate in enumerate(fragments, start=1):
            said = ", ".join(f"{key} {getattr(candidate, key):g}" for key in FRAGMENT_KEYS)
            console.print(f"fragments {number} of {len(fragments)}: {said}")
            tried = fragment_run(settings, candidate, region, size, affinities)
            plan = make_plan(tried, tuning.root)
            drive_stages(plan, [s for s in plan.steps if not isinstance(s.stage, UNSCORED)])
            plans.append(plan)
        curves = scored(settings, plans, methods, console)
        best = best_of_each(curves, by)
        tuned = Tuned(tuning, best, chosen_settings(settings, best[0], offsets))
        about = {
            "run": settings.run.name,
            "region": describe(region, size),
            "truth": str(settings.run.data.labels),
            "affinities": str(affinities),
            "border_nm": settings.run.evaluate.border_nm,
            "merge_small_vx": settings.run.agglomerate.merge_small_vx,
            "dust_vx": settings.run.agglomerate.dust_vx,
        }
        write(tuned, curves, by, about)
    return tuned


UNSCORED = (RelabelBlockwise, DownsampleBlockwise)
"""Stages that no score depends on."""


def region_to_tune(settings: Settings, where: RunDirectory, roi: str | None) -> tuple[Roi, Nm]:
    """The region in world voxels, and their size.

    Raises:
        ConfigError: no region, or no labels; RoiError: it is not inside the volume, or overlaps the
        region of the training or the test.
    """
    run = settings.run
    if run.data.labels is None:
        raise ConfigError("tuning needs labels to score with; run.data.labels is not given")
    unbounded = run.data.model_copy(update={"roi": None, "mask": None, "labels": None})
    source = open_inputs(unbounded, where.root).source
    size = source.spec.voxel_size_nm
    training = run.train
    if roi is not None:
        name, region = "--roi", region_of(source, roi)
    elif training is not None and training.validation is not None:
        name, given = VALIDATION, training.validation.roi
        region = named_region(given, size, name, source.roi, f"the volume: {source.path}")
    else:
        raise ConfigError(
            f"tuning needs a region that nothing else was chosen or trained on: {VALIDATION}, or "
            "--roi Z:Z,Y:Y,X:X in nm"
        )
    kept = {"run.data.test_roi": run.data.test_roi}
    if training is not None:
        kept["run.train.roi"] = training.roi
    for key, given_roi in kept.items():
        if given_roi is not None:
            begin, shape = (
                voxels(length, size, key) for length in (given_roi.offset, given_roi.shape)
            )
            refuse_overlaps({name: region, key: Roi(begin, shape)}, size)
    return region, size


def affinities_to_tune(
    settings: Settings,
    runs: Path,
    region: Roi,
    size: Nm,
    drive_stages: Callable[[Plan, Sequence[Step]], None],
    tuning: RunDirectory,
) -> tuple[Location, Offsets]:
    """Where affinities of the region lie: given, predicted by the run, or predicted now."""
    own = make_plan(settings, runs)
    predicted = own.steps[0].stage
    if not isinstance(predicted, PredictBlockwise):
        given = next(s.stage for s in own.steps if isinstance(s.stage, EdgesBlockwise))
        return given.affinities, given.offsets
    checkpoint = checkpoint_path(settings, own.run)
    wanted = offsets_to_predict(settings.run, checkpoint)
    covered = predicted.grid.total.contains(region)
    enough = set(wanted.vectors) <= set(predicted.offsets.vectors)
    if covered and enough and state_of(predicted).state is State.DONE:
        return own.run.volume("affinities"), predicted.offsets
    plan = make_plan(prediction_run(settings, region, size, checkpoint), tuning.root)
    drive_stages(plan, plan.select("predict_blockwise"))
    return plan.run.volume("affinities"), wanted


def scored(
    settings: Settings, plans: Sequence[Plan], methods: Sequence[Agglomerate], console: Console
) -> list[Curve]:
    """Every method on the fragments of every run, from their tables."""
    tried = settings.run.tune
    values = {"threshold": tried.thresholds, "beta": tried.betas, None: ()}
    curves = []
    with progress_line(console, "score", 0, len(plans) * len(methods), "curves") as progress:
        for plan in plans:
            tables = Tables.of(plan)
            for method in methods:
                rule = agglomeration(method, tables.region, tables.offsets)
                curves.append(tables.curve(rule, values[rule.parameter]))
                progress(len(curves), 0)
    return curves


@dataclass(frozen=True)
class Tables:
    """What a run knows of its fragments."""

    region: Roi
    offsets: Offsets
    fragments: Mapping[str, float]
    """The settings that made them."""
    graph: RegionGraph
    sizes: FragmentSizes
    histograms: Histograms
    truth: Contingency

    @classmethod
    def of(cls, plan: Plan) -> Tables:
        """Read from a run whose scores are done."""
        stages = {step.stage.name: step.stage for step in plan.steps}
        edges = stages["edges_blockwise"]
        assert isinstance(edges, EdgesBlockwise)
        graph, sizes = read_graph(plan.run, stages["sum_edges"].identity)
        fragments = plan.settings.run.fragments
        return cls(
            edges.grid.total,
            edges.offsets,
            {key: getattr(fragments, key) for key in FRAGMENT_KEYS},
            graph,
            sizes,
            read_histograms(plan.run, stages["histograms_blockwise"].identity),
            read_overlaps(plan.run, stages["evaluate"].identity).contingency,
        )

    def curve(self, rule: Rule, values: Sequence[float]) -> Curve:
        """The scores of a method at values of its parameter, if it has one."""
        tree = merge_tree(rule, self.graph, self.sizes, self.histograms)
        parameter = rule.parameter
        if parameter is None:
            segments = segments_of(rule, tree, self.sizes, self.graph)
            found: list[Swept] = [Scores.of(self.truth.relabel(segments)).as_dict()]
        else:
            others = segments_at(rule, values, tree, self.sizes, self.graph)
            found = sweep(self.truth, parameter, others)
        said = {key: value for key, value in rule.decides_tree.items() if key != parameter}
        return Curve(self.fragments, said, parameter, found)


def write(tuned: Tuned, curves: Sequence[Curve], by: Measure, about: Mapping[str, Any]) -> None:
    """Write the landscape, its picture, and last the run file."""
    from pipeline.report.landscape import draw_landscape  # matplotlib: slow to load

    chosen = tuned.best[0]
    write_json(
        tuned.scores,
        {
            "by": by,
            "convention": HEADLINE,
            **about,
            "chosen": chosen.as_dict(by),
            "best_of_each_method": [point.as_dict(by) for point in tuned.best],
            "curves": [curve.as_dict() for curve in curves],
        },
    )
    draw_landscape(curves, tuned.best, by, tuned.picture, f"{about['run']}: {about['region']}")
    head = f"# Chosen by pea tune: lowest {by} over a window of parameters, in {about['region']}.\n"
    with replacing(tuned.chosen) as partial:
        partial.write_text(head + dump_settings(tuned.settings))


def next_line(tuned: Tuned, runs: Path) -> str:
    """The command that segments with what was chosen."""
    outdated = stale(make_plan(tuned.settings, runs))
    words = ["pea", "run", "all", str(tuned.chosen), *(["--rerun"] if outdated else [])]
    return shlex.join([*words, *([] if runs == Path("runs") else ["--runs", str(runs)])])

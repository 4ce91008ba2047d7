"""The report of a run, gathered from its directory and its inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console

from pipeline.config import dump_settings
from pipeline.errors import NotFoundError
from pipeline.geometry import Roi, nanometres
from pipeline.plan import Plan, Step
from pipeline.report.charts import STYLE, new_figure, svg, training_charts
from pipeline.report.mistakes import Kind, Mistake, mistakes
from pipeline.report.page import Report, page
from pipeline.report.sections import common
from pipeline.report.sweep import CHARTS
from pipeline.tables import read_rows, replacing
from pipeline.volume import Volume
from workers.overview import blocks_done
from workers.picture import middle_sections, region_of, volumes_of
from workers.quantities import duration, size
from workers.state import State, state_of

SECTION_SIDE_VX = 320
"""What is larger is cropped around the middle."""
MISTAKES_SHOWN = 4
"""Splits, and as many merges."""


def write_report(plan: Plan) -> Path:
    """Write ``report.html`` of what there is of a run.

    Returns:
        Its path.

    Raises:
        NotFoundError: there is no such run; another PipelineError: a file of it is damaged.
    """
    if not plan.run.root.exists():
        raise NotFoundError(f"there is no run at {plan.run.root}\nMake it: pea run all")
    text = page(report_of(plan))
    with replacing(plan.run.report) as partial:
        partial.write_text(text, encoding="utf-8")
    return plan.run.report


def report_or_warning(plan: Plan, console: Console) -> None:
    """Write the report of a run that is done, which no problem of the report makes undone."""
    try:
        console.print(f"report: {write_report(plan)}")
    except Exception as error:
        console.print(f"WARNING: there is no report: {type(error).__name__}: {error}")


def report_of(plan: Plan) -> Report:
    """What the report says of a run."""
    run, scores = plan.run, _json(plan.run.scores, {})
    volumes, region = volumes_of(plan), region_of(plan)
    shared, covered = common(volumes, region) if volumes else ({}, region)
    labelled = {"segmentation", "truth"} <= shared.keys()
    rows = read_rows(run.checkpoints / "training.jsonl")
    starts = _json(run.root / "provenance.json", [])
    last = starts[-1] if starts else {}
    return Report(
        title=plan.settings.run.name,
        facts=list(_facts(plan, region, last)),
        sections=middle_sections(shared, covered, SECTION_SIDE_VX, (0, 1, 2)) if shared else (),
        mistakes=list(_mistakes(plan, shared, covered)) if labelled else (),
        scores=scores,
        sweep=_sweep_charts(scores) if scores else {},
        training=training_charts(rows) if len(rows) > 1 else {},
        stages=_stage_rows(plan),
        provenance=list(_provenance(plan, starts)),
        versions={name: said for name, said in last.get("versions", {}).items() if said},
        inputs=list(_inputs(plan)),
        settings=dump_settings(plan.settings),
    )


def _facts(plan: Plan, region: Roi, last: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    stages = {step.stage.name: step.stage for step in plan.steps}
    spec = stages["relabel_blockwise"].output_specs()["segmentation/s0"]
    whole = stages["relabel_blockwise"].grid.total
    extent = (length / 1000 for length in nanometres(whole.shape, spec.voxel_size_nm))
    yield "voxels", f"{_sides(spec.voxel_size_nm.numbers())} nm (z, y, x)"
    yield "region", f"{_sides(whole.shape)} voxels, {_sides(f'{e:.3g}' for e in extent)} µm"
    if region != whole:
        yield "scored", f"{_sides(region.shape)} voxels"
    said = {**stages["agglomerate"].parameters, **stages["relabel_blockwise"].parameters}
    yield (
        "agglomeration",
        ", ".join(str(v) if k == "method" else f"{k} {v}" for k, v in said.items()),
    )
    if last:
        yield "started", str(last["started"]).replace("T", " ")


def _mistakes(plan: Plan, volumes: dict[str, Volume], region: Roi) -> Iterator[Mistake]:
    kinds: tuple[Kind, ...] = ("merges", "splits")
    for kind in kinds:
        entries = _json(plan.run.objects, {}).get(kind, [])[:MISTAKES_SHOWN]
        yield from mistakes(kind, entries, volumes, region)


def _sweep_charts(scores: Mapping[str, Any]) -> dict[str, str]:
    drawn: dict[str, str] = {}
    swept = [key for key in ("threshold", "beta") if f"{key}s" in scores]
    if not swept:
        return drawn
    with mpl.rc_context(STYLE):
        for title, chart in CHARTS.items():
            figure = new_figure(5.2, 4.6)
            chart(figure.subplots(), scores[f"{swept[0]}s"], scores, swept[0])
            drawn[title] = svg(figure, chart.__name__)
    return drawn


def _stage_rows(plan: Plan) -> list[dict[str, Any]]:
    """Time and memory of each stage, in words, with shares of the largest for bars."""
    measured = [_measured(step) for step in plan.steps]
    longest = max((each["seconds"] for each in measured), default=0) or 1
    largest = max((each["peak_bytes"] for each in measured), default=0) or 1
    return [
        {
            **each,
            "time": duration(each["seconds"]) if each["seconds"] else "",
            "time_share": round(each["seconds"] / longest, 3),
            "work": duration(each["work_seconds"]) if each["work_seconds"] else "",
            "memory": size(each["peak_bytes"]) if each["peak_bytes"] else "",
            "memory_share": round(each["peak_bytes"] / largest, 3),
        }
        for each in measured
    ]


def _measured(step: Step) -> dict[str, Any]:
    stage, state = step.stage, state_of(step.stage)
    notes = stage.run.completion(stage.identity) if state.state is State.DONE else None
    layout = notes["layout"] if notes else stage.grid.name
    records = stage.run.records(stage.identity, layout).values()
    done, total = blocks_done(step, state), len(stage.grid)
    masked = f", {notes['masked']} masked" if notes and notes["masked"] else ""
    disk = sum(length for record in records for length, _ in record.files.values())
    return {
        "name": stage.name,
        "state": state.state.value,
        "blocks": (f"{total}" if done == total else f"{done} of {total}") + masked,
        "block_vx": _sides(stage.grid[0].write.shape),
        "workers": min(step.workers.workers, total),
        "seconds": notes["seconds"] if notes else 0.0,
        "work_seconds": math.fsum(record.seconds for record in records),
        "peak_bytes": max((record.peak_bytes for record in records), default=0),
        "bound": size(stage.memory_bytes),
        "disk": size(disk) if disk else "",
    }


def _provenance(plan: Plan, starts: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for start in starts[-1:]:
        yield "command", " ".join([Path(start["command"][0]).name, *start["command"][1:]])
        yield "commit", start.get("commit") or "not known: not a checkout"
        yield "host", f"{start['host']}, Python {start['python']}"
        yield "starts", f"{len(starts)}, the first {starts[0]['started'].replace('T', ' ')}"
    yield "directory", str(plan.run.root)
    fingerprints = (f"{step.stage.name} {step.stage.identity.fingerprint}" for step in plan.steps)
    yield "fingerprints", ", ".join(fingerprints)


def _inputs(plan: Plan) -> Iterator[tuple[str, str, str]]:
    data = plan.settings.run.data
    found = {name: said for step in plan.steps for name, said in step.stage.contents.items()}
    for name, fingerprint in found.items():
        place = next(
            (getattr(step.stage, name) for step in plan.steps if hasattr(step.stage, name)),
            getattr(data, name, ""),
        )
        yield name, str(place), str(fingerprint)


def _sides(values: Any) -> str:
    return " x ".join(str(value) for value in values)


def _json(path: Path, otherwise: Any) -> Any:
    """What a file holds, or something else where there is none."""
    return json.loads(path.read_text()) if path.exists() else otherwise

"""What a tuning tries, as settings of runs of its own, and what it chooses, as a run file's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Header
from pipeline.config import (
    Agglomerate,
    Evaluate,
    Fragments,
    Predict,
    RoiNm,
    Run,
    Settings,
    checked_settings,
)
from pipeline.errors import ConfigError
from pipeline.evaluate.landscape import Point
from pipeline.geometry import Nm, Offsets, Roi, nanometres
from pipeline.location import Location
from pipeline.plan_predict import predicted_offsets
from pipeline.segment.segments import method_named

FRAGMENT_KEYS = ("narrow_nm", "wide_nm", "wide_share")


def fragment_candidates(run: Run) -> list[Fragments]:
    """Every combination of the settings of fragments that are tried."""
    own, tried = run.fragments, run.tune
    wide, share = own.wide_nm, own.wide_share
    values = (
        tried.narrow_nm or (own.narrow_nm,),
        tried.wide_nm or sorted({round(wide * 2 / 3, 3), wide, round(wide * 3 / 2, 3)}),
        tried.wide_share
        or sorted({max(0.0, round(share - 0.2, 3)), share, min(1.0, round(share + 0.2, 3))}),
    )
    return [
        own.model_copy(update=dict(zip(FRAGMENT_KEYS, each, strict=True)))
        for each in product(*values)
    ]


def agglomerate_candidates(run: Run, offsets: Offsets) -> list[Agglomerate]:
    """Every method with every combination of those of its settings that are tried.

    Args:
        offsets: of the affinities; methods that these are not enough for are left out.

    Raises:
        ConfigError: no method is left.
    """
    tried = run.tune
    direct = len(offsets) == Offsets.NUM_DIRECT
    methods = [
        method for method in tried.methods if not (direct and method_named(method).long_range)
    ]
    if not methods:
        raise ConfigError(
            f"run.tune.methods needs affinities of long-range offsets: {list(tried.methods)}\n"
            "found the direct neighbours only\n"
            "Predict more (run.predict.offsets), or add mean_affinity or multicut."
        )
    lists: dict[str, Sequence[object]] = {
        "quantile": tried.quantiles,
        "weighting": tried.weightings,
    }
    found = []
    for method in methods:
        keys = [key for key in method_named(method).settings if key in lists]
        own: dict[str, Any] = {"method": method}
        if method != run.agglomerate.method:
            own["options"] = {}
        if method_named(method).long_range:
            own["domain_vx"] = None
        for values in product(*(lists[key] for key in keys)):
            update = own | dict(zip(keys, values, strict=True))
            found.append(run.agglomerate.model_copy(update=update))
    return found


def offsets_to_predict(run: Run, checkpoint: Path) -> Offsets:
    """The run's own offsets; where methods need long-range ones, those of the training as well.

    Of embeddings only those that ``run.predict.crop_vx`` allows are added.

    Raises:
        CheckpointError: as ``Header.read``; ConfigError: as ``predicted_offsets``.
    """
    header = Header.read(checkpoint)
    own = predicted_offsets(run.predict.offsets, header, checkpoint)
    needed = any(method_named(method).long_range for method in run.tune.methods)
    if len(own) > Offsets.NUM_DIRECT or not needed:
        return own
    embedded, crop = header.network.head == "embedding", run.predict.crop_vx
    fitting = (
        vector
        for vector in header.offsets.vectors[Offsets.NUM_DIRECT :]
        if not embedded or all(abs(n) <= most for n, most in zip(vector, crop, strict=True))
    )
    return Offsets((*own.vectors, *fitting))


def prediction_run(settings: Settings, roi: Roi, size: Nm, checkpoint: Path) -> Settings:
    """A run that predicts the affinities of a region."""
    run = settings.run
    data = run.data.model_copy(update={"roi": region_nm(roi, size), "labels": None})
    predict = run.predict.model_copy(
        update={
            "checkpoint": str(checkpoint),
            "offsets": offsets_to_predict(run, checkpoint),
            "embeddings": False,
        }
    )
    plain = {"agglomerate": Agglomerate(), "evaluate": Evaluate()}
    update = {"name": "affinities", "data": data, "train": None, "predict": predict, **plain}
    return settings.model_copy(update={"run": run.model_copy(update=update)})


def fragment_run(
    settings: Settings, fragments: Fragments, roi: Roi, size: Nm, affinities: Location
) -> Settings:
    """A run that makes fragments, their graph and histograms, and counts them against the truth.

    Its own method is one that needs all of these; the scores of all others follow from its tables.
    """
    run = settings.run
    values = (repr(getattr(fragments, key)) for key in FRAGMENT_KEYS)
    name = "narrow-{}_wide-{}_share-{}".format(*values)
    given: dict[str, Any] = {"affinities": affinities, "roi": region_nm(roi, size)}
    if run.data.affinities is None:
        given["offsets"] = None  # predicted affinities carry their own
    update = {
        "name": name,
        "data": run.data.model_copy(update=given),
        "train": None,
        "predict": Predict(),
        "fragments": fragments,
        "agglomerate": Agglomerate(method="quantile"),
        "evaluate": Evaluate(thresholds=(0.5,), border_nm=run.evaluate.border_nm),
    }
    return settings.model_copy(update={"run": run.model_copy(update=update)})


def region_nm(roi: Roi, size: Nm) -> RoiNm:
    """A region as a run file has it."""
    return RoiNm(offset=nanometres(roi.begin, size), shape=nanometres(roi.shape, size))


def chosen_settings(settings: Settings, chosen: Point, offsets: Offsets) -> Settings:
    """The run, with what a tuning chose.

    Args:
        offsets: of the affinities that it was chosen on. A run that predicts gets them if the
            method looks at more than the direct ones.
    """
    tree = settings.model_dump()
    curve = chosen.curve
    tree["run"]["fragments"].update(curve.fragments)
    tree["run"]["agglomerate"].update({"options": {}} | dict(curve.agglomerate))
    if curve.parameter is not None:
        tree["run"]["agglomerate"][curve.parameter] = chosen.value
    if method_named(curve.agglomerate["method"]).long_range:
        tree["run"]["agglomerate"]["domain_vx"] = None
        if settings.run.data.affinities is None:
            tree["run"]["predict"]["offsets"] = offsets.numbers()
    return checked_settings(tree, "the tuned run")

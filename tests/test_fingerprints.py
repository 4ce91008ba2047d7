"""Which settings decide the numbers of which stages: what a fingerprint knows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pipeline.config import (
    Agglomerate,
    Data,
    Evaluate,
    Fragments,
    Run,
    Tune,
    checked_settings,
)
from pipeline.errors import ConfigError
from pipeline.geometry import Nm, nanometres
from pipeline.plan import Plan, make_plan
from pipeline.segment.segments import BUILT_IN, Rule
from tests.nifty_stand_in import nifty_stood_in, without_nifty
from tests.scenes import DIRECT, FLOATS, LONG, MEDIUM, PLAIN, SMALL, Bench, Scene

FIRST_TOUCHED = {
    "data.affinities": ("other", "fragments_blockwise"),
    "data.offsets": ([*DIRECT, (0, 0, -5)], "edges_blockwise"),
    "data.labels": ("other", "evaluate"),
    "data.mask": ("mask", "fragments_blockwise"),
    "data.roi": ("roi", "fragments_blockwise"),
    "data.raw": ("mask", ()),  # any volume; it is only shown
    "data.raw_range": ([0, 7], ()),
    "data.test_roi": ("roi", ()),  # training keeps off it
    "fragments.per_section": (True, "fragments_blockwise"),
    "fragments.narrow_nm": (5.0, "fragments_blockwise"),
    "fragments.wide_nm": (10.0, "fragments_blockwise"),
    "fragments.wide_share": (0.41, "fragments_blockwise"),
    "agglomerate.method": ("multicut", "agglomerate"),
    "agglomerate.threshold": (0.46, ("relabel_blockwise", "evaluate")),
    "agglomerate.quantile": (85, "agglomerate"),
    "agglomerate.beta": (0.4, "agglomerate"),
    "agglomerate.weighting": ("contacts", "agglomerate"),
    "agglomerate.solver": ("nifty", "agglomerate"),
    "agglomerate.domain_vx": ([4, 6, 50], "agglomerate"),
    "agglomerate.merge_small_vx": (5, ("relabel_blockwise", "evaluate")),
    "agglomerate.dust_vx": (1, ("relabel_blockwise", "evaluate")),
    "evaluate.thresholds": ([0.2, 0.4], "evaluate"),
    "evaluate.betas": ([0.2, 0.4], "evaluate"),
    "evaluate.border_nm": (8.0, "evaluate"),
    "evaluate.roi": ("roi", "evaluate"),
    "tune.narrow_nm": ([5.0], ()),  # only `pea tune` looks at these
    "tune.wide_nm": ([10.0], ()),
    "tune.wide_share": ([0.2], ()),
    "tune.methods": (["multicut"], ()),
    "tune.thresholds": ([0.2], ()),
    "tune.quantiles": ([75], ()),
    "tune.betas": ([0.2], ()),
    "tune.weightings": (["contacts"], ()),
}
USED_BY = {
    "agglomerate.threshold": {"mean_affinity", "quantile"},
    "agglomerate.quantile": {"quantile"},
    "agglomerate.beta": {"multicut", "lifted_multicut"},
    "agglomerate.weighting": {"multicut", "lifted_multicut"},
    "agglomerate.solver": {"multicut", "lifted_multicut"},
    "agglomerate.domain_vx": {"multicut"},
    "evaluate.thresholds": {"mean_affinity", "quantile"},
    "evaluate.betas": {"multicut", "lifted_multicut"},
}
"""Settings that some methods do not look at."""
METHODS = tuple(BUILT_IN)


def test_every_setting_that_decides_numbers_is_listed_here():
    sections = {"data": Data, "fragments": Fragments, "agglomerate": Agglomerate}
    sections |= {"evaluate": Evaluate, "tune": Tune}
    elsewhere = {"predict"}  # tests/test_predict.py
    decide_a_checkpoint = {"network", "train"}
    others = {"name"} | elsewhere | decide_a_checkpoint
    assert sections.keys() | others == Run.model_fields.keys()
    every = {f"{name}.{key}" for name, kind in sections.items() for key in kind.model_fields}
    of_extensions = {"agglomerate.options"}  # tests/test_extensions.py
    assert every == FIRST_TOUCHED.keys() | of_extensions


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Plan]]:
    """Plans of one method, with one setting changed; the affinities do not carry their offsets."""
    here = Bench(tmp_path_factory.mktemp("fingerprints"), PLAIN)
    root = here.folder / "data.zarr"
    few, (labels, place) = PLAIN.affinities()[:4], PLAIN.truth()
    here.write(root / "bare", few, PLAIN.begin)
    few[0, 1, 1, 1] ^= 1
    here.write(root / "other_affinities", few, PLAIN.begin)
    labels[0, 0, 0] ^= np.uint64(1)
    here.write(root / "other_labels", labels, place)

    def plan(method: str, key: str | None = None) -> Plan:
        tree = here.tree(MEDIUM)
        tree["run"]["agglomerate"]["method"] = method
        tree["run"]["data"]["affinities"] = str(root / "bare")
        tree["run"]["data"]["offsets"] = [*DIRECT, (0, 0, -3)]
        if key is not None:
            section, name = key.split(".")
            value = FIRST_TOUCHED[key][0]
            if value == "other":
                value = str(root / f"other_{name}")
            elif value == "mask":
                value = str(root / "mask")
            elif value == "roi":
                begin, shape, size = PLAIN.begin, (6, 14, 130), Nm.of(PLAIN.size_nm)
                if section == "evaluate":
                    begin, shape = tuple(map(max, PLAIN.begin, place)), (2, 4, 10)
                value = {
                    "offset": [str(n) for n in nanometres(begin, size)],
                    "shape": [str(n) for n in nanometres(shape, size)],
                }
            tree["run"].setdefault(section, {})[name] = value
        return make_plan(checked_settings(tree, "the test"), here.folder / "runs")

    with nifty_stood_in():
        yield plan


def fingerprints(plan: Plan) -> dict[str, str]:
    return {step.stage.name: step.stage.identity.fingerprint for step in plan.steps}


@pytest.mark.parametrize("key", FIRST_TOUCHED)
def test_a_setting_changes_the_fingerprint_of_the_stages_it_decides_and_of_no_other(plans, key):
    for method in sorted(USED_BY.get(key, {"mean_affinity"})):
        touched = FIRST_TOUCHED[key][1]
        plan = plans(method)
        expected = {touched} if isinstance(touched, str) else set(touched)
        for step in plan.steps:
            if {identity.stage for identity in step.stage.upstream} & expected:
                expected.add(step.stage.name)
        before, after = fingerprints(plan), fingerprints(plans(method, key))
        assert {stage for stage in before if before[stage] != after[stage]} == expected, method


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_other_methods_decide_nothing(plans, method):
    # Domains of a lifted multicut are refused.
    unused = [key for key, methods in USED_BY.items() if method not in methods]
    if method == "lifted_multicut":
        unused.remove("agglomerate.domain_vx")
    assert unused
    for key in unused:
        assert fingerprints(plans(method)) == fingerprints(plans(method, key)), key


def test_methods_that_look_at_long_range_affinities_are_refused_without(tmp_path):
    here = Bench(tmp_path, FLOATS)
    for method in METHODS:
        tree = here.tree(MEDIUM)
        tree["run"]["agglomerate"]["method"] = method
        settings = checked_settings(tree, "the test")
        if method in ("lifted_multicut", "mutex_watershed"):
            with pytest.raises(ConfigError, match=f"{method} needs .* long-range"):
                make_plan(settings, tmp_path / "runs")
        else:
            make_plan(settings, tmp_path / "runs")


def test_a_solver_that_is_not_installed_is_refused_by_those_that_need_it(tmp_path):
    here = Bench(tmp_path, PLAIN)
    for method in METHODS:
        tree = here.tree(MEDIUM)
        tree["run"]["agglomerate"] |= {"method": method, "solver": "nifty"}
        settings = checked_settings(tree, "the test")
        with without_nifty(), pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "nifty", None)
            if "solver" in Rule(method).decides_tree:
                with pytest.raises(ConfigError, match=r"run\.agglomerate\.solver nifty"):
                    make_plan(settings, tmp_path / "runs")
            else:
                make_plan(settings, tmp_path / "runs")


def test_a_voxel_size_belongs_to_the_fingerprint(tmp_path):
    one = Bench(tmp_path / "one", PLAIN)
    other = Bench(tmp_path / "other", Scene((4, 4, 4), LONG, PLAIN.fragments))
    for first, second in zip(one.plan(SMALL).steps, other.plan(SMALL).steps, strict=True):
        assert first.stage.identity.fingerprint != second.stage.identity.fingerprint

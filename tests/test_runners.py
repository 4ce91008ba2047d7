"""On disk, through the whole chain: one run file has one result, whoever computes it.

Small volumes are segmented with several blocks, orders and runners. Every array, table and score
that follows from the fragments is compared with the whole-volume twins of ``oracles``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.config import (
    Dask,
    checked_settings,
)
from pipeline.errors import ConfigError
from pipeline.plan import make_plan
from pipeline.tables import read_table
from tests.scenes import MEDIUM, SCENES, SMALL, WHOLE, Bench, ShuffledRunner, identity_of
from workers.daisy_runner import DaisyRunner
from workers.dask_cluster import DaskCluster
from workers.dask_runner import DaskRunner
from workers.drive import drive
from workers.serial_runner import SerialRunner


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """The bench of a scene, by its name; made once."""
    benches: dict[str, Bench] = {}

    def of(name: str) -> Bench:
        if name not in benches:
            benches[name] = Bench(tmp_path_factory.mktemp(name), SCENES[name])
        return benches[name]

    return of


# Stages need not agree: an edge block then reads fragments of several fragment blocks, and so on.
MIXED = {
    "fragments": (2, 7, 50),
    "edges": (3, 5, 44),
    "relabel": (7, 4, 65),
    "downsample": (2, 3, 17),
    "evaluate": (5, 14, 31),
}
slow = pytest.mark.slow


@pytest.fixture
def dask(tmp_path: Path) -> DaskRunner:
    """On a cluster of this machine."""
    return DaskRunner(DaskCluster(Dask(), tmp_path / "dask"))


@pytest.mark.parametrize(
    ("scene", "runner", "blocks", "workers"),
    [
        pytest.param("plain", SerialRunner(), SMALL, 1, id="plain-serial-small"),
        pytest.param("plain", SerialRunner(), MEDIUM, 1, id="plain-serial-medium"),
        pytest.param("plain", SerialRunner(), WHOLE, 1, id="plain-serial-whole"),
        pytest.param("plain", DaisyRunner(), MEDIUM, 2, id="plain-daisy2-medium"),
        pytest.param("plain", "dask", MEDIUM, 2, id="plain-dask2-medium"),
        pytest.param("masked", SerialRunner(), MEDIUM, 1, id="masked-serial-medium"),
        pytest.param("floats", ShuffledRunner(), MEDIUM, 1, id="floats-shuffled-medium"),
        pytest.param("quantile", ShuffledRunner(), MEDIUM, 1, id="quantile-shuffled"),
        pytest.param("multicut", SerialRunner(), WHOLE, 1, id="multicut-serial"),
        pytest.param("multicut", DaisyRunner(), MEDIUM, 2, id="multicut-daisy2"),
        pytest.param("quantile", DaisyRunner(), MIXED, 2, id="quantile-daisy2", marks=slow),
        pytest.param("quantile", "dask", SMALL, 2, id="quantile-dask2", marks=slow),
        pytest.param("multicut", ShuffledRunner(), SMALL, 1, id="multicut-shuffled", marks=slow),
        pytest.param("multicut", "dask", MEDIUM, 2, id="multicut-dask2", marks=slow),
        pytest.param("plain", ShuffledRunner(), SMALL, 1, id="plain-shuffled", marks=slow),
        pytest.param("plain", ShuffledRunner(), MIXED, 1, id="plain-mixed", marks=slow),
        pytest.param("plain", SerialRunner(), (2, 3, 20), 1, id="plain-smallest", marks=slow),
        pytest.param("plain", DaisyRunner(), MIXED, 1, id="plain-daisy1", marks=slow),
        pytest.param("plain", DaisyRunner(), SMALL, 4, id="plain-daisy4", marks=slow),
        pytest.param("plain", "dask", MIXED, 1, id="plain-dask1", marks=slow),
        pytest.param("masked", SerialRunner(), WHOLE, 1, id="masked-whole", marks=slow),
        pytest.param("masked", ShuffledRunner(), MIXED, 1, id="masked-mixed", marks=slow),
        pytest.param("masked", SerialRunner(), (2, 3, 20), 1, id="masked-smallest", marks=slow),
        pytest.param("masked", DaisyRunner(), MEDIUM, 1, id="masked-daisy1", marks=slow),
        pytest.param("masked", DaisyRunner(), MIXED, 2, id="masked-daisy2", marks=slow),
        pytest.param("masked", DaisyRunner(), SMALL, 4, id="masked-daisy4", marks=slow),
        pytest.param("masked", "dask", SMALL, 4, id="masked-dask4", marks=slow),
        pytest.param("floats", SerialRunner(), WHOLE, 1, id="floats-whole", marks=slow),
        pytest.param("floats", SerialRunner(), SMALL, 1, id="floats-small", marks=slow),
        pytest.param("floats", DaisyRunner(), MIXED, 4, id="floats-daisy4", marks=slow),
        pytest.param("floats", "dask", MIXED, 2, id="floats-dask2", marks=slow),
    ],
)
def test_a_run_has_one_result_for_every_tiling_order_and_runner(
    bench, dask, scene, runner, blocks, workers
):
    here = bench(scene)
    result = here.run(dask if runner == "dask" else runner, blocks, workers)
    result.assert_equals(here.expected)
    assert len(here.expected.merges) > 20
    parameter = here.scene.parameter
    swept = result.scores[f"{parameter}s"]
    found = {str(scores[parameter]): scores for scores in swept}
    found[str(here.scene.value)] = result.scores
    assert found.keys() == here.expected.scores.keys()
    for value, scores in here.expected.scores.items():
        for name, score in scores.items():
            assert found[value][name] == pytest.approx(score, abs=1e-9), (value, name)
    for name, best in result.scores["best"].items():
        assert best == min(swept, key=lambda s, name=name: s[name])
    # Not only to 1e-9: the file of one scene has the same bits whatever made it.
    first = here.folder / "scores.json"
    if first.exists():
        assert result.scores == json.loads(first.read_text())
    first.write_text(json.dumps(result.scores))


def test_blocks_outside_the_mask_are_counted_and_not_computed(bench):
    here = bench("masked")
    plan = here.plan((2, 4, 40))
    drive(plan, plan.steps[:3], SerialRunner(), [], Console(quiet=True))
    valid = here.scene.mask()[here.scene.region] != 0
    begin = here.scene.roi[0]
    for stage in ("fragments_blockwise", "edges_blockwise"):
        (step,) = plan.select(stage)
        empty = [
            block.index
            for block in step.stage.grid
            if not valid[
                tuple(
                    slice(a - o, b - o)
                    for a, b, o in zip(block.write.begin, block.write.end, begin, strict=True)
                )
            ].any()
        ]
        records = plan.run.records(step.stage.identity, step.stage.grid.name)
        assert 0 < len(empty) < len(step.stage.grid) == len(records)
        assert [index for index, record in sorted(records.items()) if record.masked] == empty
        assert plan.run.completion(step.stage.identity)["masked"] == len(empty)
    tables = plan.run.complete_tables(identity_of(plan, "fragments_blockwise"))
    assert all(len(read_table(tables[index])["loose"]) == 0 for index in empty)


def test_a_result_of_nothing_but_background_raises_an_alarm(bench, tmp_path):
    here = bench("plain")
    here.write(tmp_path / "empty", np.zeros(here.scene.shape, np.uint8), here.scene.begin)
    tree = here.tree(WHOLE)
    tree["run"]["data"]["mask"] = str(tmp_path / "empty")
    plan = make_plan(checked_settings(tree, "the test"), tmp_path)
    text = io.StringIO()
    drive(plan, plan.steps, SerialRunner(), [], Console(file=text, width=200))
    for stage in ("fragments_blockwise", "edges_blockwise", "relabel_blockwise"):
        assert f"WARNING: {stage} wrote nothing but background" in text.getvalue()


def test_a_stage_whose_inputs_are_not_there_is_refused_and_leaves_nothing(bench):
    plan = bench("plain").plan(WHOLE)
    with pytest.raises(ConfigError, match="edges_blockwise needs resolve_fragments"):
        drive(plan, plan.select("edges_blockwise"), SerialRunner(), [], Console(quiet=True))
    assert not (plan.run.root / "volumes.zarr").exists()
    drive(plan, plan.steps[:2], SerialRunner(), [], Console(quiet=True))
    drive(plan, plan.select("edges_blockwise"), SerialRunner(), [], Console(quiet=True))


def test_blocks_workers_and_the_name_of_a_run_do_not_belong_to_the_fingerprint(bench):
    here = bench("plain")
    one, other = here.plan(SMALL, workers=1), here.plan(MIXED, workers=7)
    assert one.run.root != other.run.root
    assert [step.stage.identity for step in one.steps] == [
        step.stage.identity for step in other.steps
    ]

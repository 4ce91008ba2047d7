"""Extensions of other distributions: backbones, agglomerations and formats, used as ours are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.checkpoint import Header
from pipeline.config import Network, checked_settings, load_settings
from pipeline.errors import ConfigError, ExtensionError, StageError
from pipeline.geometry import Nm, Offsets
from pipeline.graph import Assignment, MergeTree
from pipeline.model.backbone import build
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.output import Output
from pipeline.model.predictor import Predictor
from pipeline.plan import make_plan
from pipeline.segment import segments
from pipeline.segment.edges import fragment_sizes, region_edges
from pipeline.segment.fragments import FragmentRule, fragments
from pipeline.segment.segments import Method, Rule, merge_tree, segments_at, segments_of
from tests.drawn import (
    LONG,
    PEA,
    drawn_affinities,
    drawn_labels,
    results,
    run_tree,
    set_at,
    write_inputs,
    write_run,
    write_volume,
)
from tests.extended import PROJECT, SOURCE, Installed
from tests.predicted import drawn_raw
from tests.test_training import SHAPE, VALIDATED, planes
from tests.test_training import tree_of as training_tree
from tests.test_tune import LIST, REGION, landscape, tuned
from tests.test_tune import tree_of as tuning_tree
from tests.tried import same
from workers import cli
from workers.dask_worker import Call, do_block
from workers.launched import stage_of

QUIET = Console(quiet=True)
DILATED = {
    "backbone": "dilated", "options": {"dilations": [1, 2]}, "features": [6], "pools": [],
    "embedding": 5, "norm_momentum": 0.1,
}  # fmt: skip
LINKAGE = {"method": "single_linkage", "options": {"min_contacts": 3}, "threshold": 0.3}


def test_pip_installs_the_example_as_these_tests_do(lab: Installed, tmp_path: Path) -> None:
    copy, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(SOURCE, copy)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--target", str(target), str(copy)],
        check=True, capture_output=True,
    )  # fmt: skip
    ours, theirs = (
        {
            str(path.relative_to(folder)): sorted(path.read_text().split())
            for pattern in ("*/*.py", "*.dist-info/entry_points.txt")
            for path in folder.glob(pattern)
        }
        for folder in (lab.folder, target)
    )
    assert ours == theirs
    assert len(ours) == 6


# A backbone


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "data.zarr"
    write_volume(folder / "raw", drawn_raw(SHAPE), "raw")
    write_volume(folder / "labels", drawn_labels(SHAPE, spacing=12), "labels")
    return folder


def whole_tree(data: Path, runner: str = "serial") -> dict[str, Any]:
    """A training of two steps, and a run with what came of it."""
    run = training_tree(data, steps=2, validation={"roi": planes(VALIDATED), "every": 2})
    run["network"] = DILATED
    run["agglomerate"] = LINKAGE | {"threshold": 0.05}  # embeddings of two steps differ little
    run["evaluate"] = {"thresholds": [0.0, 0.05, 0.3]}
    run["predict"] |= {"device": "cpu"}
    stages = ("predict", "fragments", "edges", "relabel", "downsample", "evaluate")
    blocks = {name: {"workers": 2, "block_vx": [8, 32, 32], "retries": 0} for name in stages}
    return {"run": run, "machine": {"runner": runner, "train_workers": 0, **blocks}}


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["daisy", "dask"])
def test_a_foreign_backbone_is_trained_and_predicts_the_same_with_any_workers(
    lab: Installed, images: Path, tmp_path: Path, runner: str, capsys
) -> None:
    one = write_run(tmp_path / "one.yaml", whole_tree(images))
    runs = ["--runs", str(tmp_path / "runs")]
    assert cli.main(["train", str(one), *runs]) == 0
    assert cli.main(["run", "all", str(one), *runs]) == 0, capsys.readouterr().err
    shutil.copytree(tmp_path / "runs/tiny/checkpoints", tmp_path / "other/tiny/checkpoints")
    two = write_run(tmp_path / "two.yaml", whole_tree(images, runner))
    assert cli.main(["run", "all", str(two), "--runs", str(tmp_path / "other")]) == 0
    same(results(tmp_path / "other/tiny"), results(tmp_path / "runs/tiny"))
    scores = json.loads((tmp_path / "runs/tiny/scores.json").read_text())
    assert scores["method"] == "single_linkage"
    assert len({each["voi"] for each in scores["thresholds"]}) > 1
    (start, *_) = json.loads((tmp_path / "runs/tiny/provenance.json").read_text())
    assert start["versions"]["tiny-lab"] == PROJECT["version"]


def test_a_raised_revision_of_a_backbone_is_named_as_the_cause(
    lab: Installed, images: Path, tmp_path: Path, capsys
) -> None:
    path = write_run(tmp_path / "one.yaml", whole_tree(images))
    words = [str(path), "--runs", str(tmp_path / "runs")]
    assert cli.main(["train", *words]) == 0
    assert cli.main(["run", "predict_blockwise", *words]) == 0
    before = results(tmp_path / "runs/tiny")
    lab.change("backbone", "revision=1", "revision=2")
    lab.change("dilated", "nn.ELU()", "nn.ReLU()")
    capsys.readouterr()
    assert cli.main(["run", "predict_blockwise", *words]) == 1
    assert "revision of dilated: 1 -> 2" in capsys.readouterr().err
    assert cli.main(["train", *words]) == 1
    assert "revision of dilated: 1 -> 2" in capsys.readouterr().err
    assert cli.main(["run", "predict_blockwise", *words, "--rerun"]) == 0
    after = results(tmp_path / "runs/tiny")
    assert before != after


def test_our_own_network_has_no_revision_and_no_options() -> None:
    network = Network()
    assert not {"backbone", "options"} & network.decides.keys()
    assert network.revisions == {}
    with pytest.raises(ExtensionError, match="backbone resunet: there are none, found width"):
        Network(options={"width": 3})


def test_predicting_changes_nothing_of_a_foreign_network(lab: Installed) -> None:
    """Not even where it has names that the folding of our own looks for."""
    network = Network.model_validate(DILATED)
    module = build(network, 3).eval()
    module.norm, module.pyramid = module.body[1], torch.nn.ModuleList([module.head])
    module.norm.running_mean.uniform_(-1, 1)
    raw = torch.rand((1, 1, 5, 9, 11))
    with torch.inference_mode():
        expected = module(raw).full[0]
    found = Predictor(module, "embedding", Offsets()).output(raw[0, 0].numpy())
    torch.testing.assert_close(found, expected)
    assert len(module.pyramid) == 1


def test_a_checkpoint_says_which_backbone_it_is_of(
    lab: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network.model_validate(DILATED)
    module = build(network, 3)
    path = tmp_path / "weights.safetensors"
    Checkpoint(Header(network, Offsets(), 1, {}, {}), module.state_dict()).write(path)
    read = Checkpoint.read(path)
    assert read.header.network == network
    raw = torch.rand((1, 1, 4, 6, 8))
    assert torch.equal(read.module()(raw).full, module.eval()(raw).full)
    lab.uninstall()
    with pytest.raises(ExtensionError, match=r"(?s)weights.safetensors .*'dilated'.*pip install"):
        Checkpoint.read(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("self.head(self.body(raw))", "self.body(raw)", r"shapes .*\(1, 5, 4.*found .*\(1, 6, 4"),
        ("pyramid=()", "pyramid=(raw,)", "shapes"),
        ("return Output(self.head(self.body(raw)), pyramid=())", "return raw", "found Tensor"),
    ],
)
def test_a_backbone_that_returns_something_else_is_refused(
    lab: Installed, old: str, new: str, says: str
) -> None:
    lab.change("dilated", old, new)
    module = build(Network.model_validate(DILATED), 3)
    with pytest.raises(ExtensionError, match=says):
        module(torch.rand((1, 1, 4, 6, 8)))


def test_a_backbone_must_be_a_module(lab: Installed) -> None:
    lab.change("backbone", "return Dilated(", "return tuple(")
    lab.change(
        "backbone", "network.features[0], Options(**network.options).dilations, channels", ""
    )
    with pytest.raises(ExtensionError, match=r"torch\.nn\.Module, found tuple"):
        build(Network.model_validate(DILATED), 3)


def test_a_backbone_gets_the_pyramid_that_the_network_has(lab: Installed) -> None:
    """Of every coarser level that ``pools`` tell of an embedding is due."""
    lab.change("dilated", "pyramid=()", "pyramid=(self.head(self.body(raw))[..., ::2, ::2],)")
    network = Network.model_validate(DILATED | {"features": [6, 8], "pools": [[1, 2, 2]]})
    output = build(network, 3)(torch.rand((2, 1, 4, 6, 8)))
    assert isinstance(output, Output)
    lab.change("dilated", "pyramid=(self.head(self.body(raw))[..., ::2, ::2],)", "pyramid=()")
    with pytest.raises(ExtensionError, match=r"\(2, 5, 4, 3, 4\)"):
        build(network, 3)(torch.rand((2, 1, 4, 6, 8)))


def test_a_plan_with_a_foreign_backbone_loads_no_torch(
    lab: Installed, images: Path, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "one.yaml", whole_tree(images))
    runs = ["--runs", str(tmp_path / "runs")]
    assert cli.main(["train", str(path), *runs]) == 0
    program = (
        "import sys; from workers.cli import main; status = main(sys.argv[1:]);"
        "print('torch' in sys.modules, 'tiny_lab' in sys.modules); sys.exit(status)"
    )
    done = subprocess.run(
        [PEA[0], "-c", program, "plan", str(path), *runs],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False True"


# An agglomeration


def drawn(seed: int):
    """The tables of fragments of noisy cells."""
    affinities = drawn_affinities(drawn_labels((5, 17, 20), seed, spacing=6), LONG, seed)
    found = fragments(affinities, FragmentRule(Nm.of([40, 8, 8]), per_section=False))
    return region_edges(affinities, found, Offsets.of(LONG)), fragment_sizes(found)


def connected(graph, sizes, threshold: float, min_contacts: int) -> np.ndarray:
    """Segments of single linkage, by SciPy: what is connected by contacts below the threshold."""
    score = 1 - graph.direct_sum / (255.0 * np.maximum(graph.direct_count, 1))
    kept = (graph.direct_count >= min_contacts) & (score < threshold)
    u, v = (np.searchsorted(sizes.fragment, end[kept]) for end in (graph.u, graph.v))
    edges = coo_array((np.ones(len(u)), (u, v)), shape=(len(sizes), len(sizes)))
    _, label = connected_components(edges, directed=False)
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return sizes.fragment[first][inverse]


@pytest.mark.parametrize("seed", range(5))
def test_the_example_is_single_linkage(lab: Installed, seed: int) -> None:
    graph, sizes = drawn(seed)
    rule = Rule("single_linkage", options={"min_contacts": 4})
    tree = merge_tree(rule, graph, sizes)
    counts = set()
    for threshold, found in segments_at(rule, (0.0, 0.1, 0.3, 0.5, 0.8, 1.0), tree, sizes):
        expected = connected(graph, sizes, threshold, 4)
        assert np.array_equal(found.segment, expected)
        counts.add(len(np.unique(expected)))
    assert len(counts) > 3


def test_a_foreign_agglomeration_is_swept_and_fingerprinted_as_ours(
    lab: Installed, tmp_path: Path, capsys
) -> None:
    data = write_inputs(tmp_path, digest="drawn")
    tree = run_tree(data)
    tree["run"]["agglomerate"] = LINKAGE
    words = [str(write_run(tmp_path / "run.yaml", tree)), "--runs", str(tmp_path / "runs")]
    assert cli.main(["plan", *words]) == 0
    assert "single_linkage, options {'min_contacts': 3}, revision of" in capsys.readouterr().out
    assert cli.main(["run", "all", *words]) == 0
    scores = json.loads((tmp_path / "runs/small/scores.json").read_text())
    assert scores["options"] == {"min_contacts": 3}
    assert len({each["voi"] for each in scores["thresholds"]}) > 1
    # Another threshold needs no other tree; another option or revision does.
    assert cli.main(["run", "all", *words, "run.agglomerate.threshold=0.4"]) == 1
    assert "agglomerate" not in capsys.readouterr().err.split("relabel")[0]
    assert cli.main(["run", "all", *words, "run.agglomerate.options.min_contacts=9"]) == 1
    assert "options: {'min_contacts': 3} -> {'min_contacts': 9}" in capsys.readouterr().err
    lab.change("agglomeration", "revision=1", "revision=2")
    assert cli.main(["run", "all", *words]) == 1
    assert "revision of single_linkage: 1 -> 2" in capsys.readouterr().err
    assert cli.main(["run", "all", *words, "--rerun"]) == 0


def test_a_worker_with_another_revision_or_without_the_extension_refuses_to_work(
    lab: Installed, tmp_path: Path
) -> None:
    tree = set_at(run_tree(write_inputs(tmp_path, digest="drawn")), "run.agglomerate", LINKAGE)
    path, root = write_run(tmp_path / "run.yaml", tree), tmp_path / "runs/small"
    assert cli.main(["run", "all", str(path), "--runs", str(root.parent)]) == 0
    (step,) = make_plan(load_settings(path), root.parent).select("agglomerate")
    fingerprint = step.stage.identity.fingerprint
    assert stage_of(root, "agglomerate", fingerprint).identity == step.stage.identity
    call = Call("once", step.stage, fingerprint, str(Path.cwd()), 60)
    lab.change("agglomeration", "revision=1", "revision=2")
    with pytest.raises(StageError, match=f"{fingerprint} on the driver's"):
        stage_of(root, "agglomerate", fingerprint)
    with pytest.raises(StageError, match=f"{fingerprint} in the driver"):
        do_block(call, 0)
    lab.uninstall()
    with pytest.raises(ConfigError, match="'single_linkage'"):
        stage_of(root, "agglomerate", fingerprint)


def test_a_foreign_agglomeration_is_tuned_as_ours(lab: Installed, tmp_path: Path) -> None:
    data = write_inputs(tmp_path, offsets=LONG, digest="drawn")
    methods = ["single_linkage", "mean_affinity", "multicut"]
    tree = tuning_tree(data, methods=methods, wide_nm=[12.0], weightings=["none"])
    tree["run"]["agglomerate"] = {**LINKAGE, "domain_vx": [8, 16, 16]}
    found = tuned(tree, tmp_path / "runs")
    curves = {curve["agglomerate"]["method"]: curve for curve in landscape(found)["curves"]}
    assert set(curves) == set(methods)
    assert curves["single_linkage"]["agglomerate"]["options"] == {"min_contacts": 3}
    assert "options" not in curves["mean_affinity"]["agglomerate"]
    assert curves["single_linkage"]["scores"] != curves["mean_affinity"]["scores"]
    chosen = run_tree(data, name="again", block_vx=(16, 40, 48))
    chosen["run"]["data"]["roi"] = REGION
    chosen["run"]["fragments"] = curves["single_linkage"]["fragments"]
    chosen["run"]["agglomerate"] = curves["single_linkage"]["agglomerate"]
    chosen["run"]["evaluate"] = {"thresholds": LIST}
    path = write_run(tmp_path / "again.yaml", chosen)
    assert cli.main(["run", "all", str(path), "--runs", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "again/scores.json").read_text())
    assert scores["thresholds"] == curves["single_linkage"]["scores"]


@given(st.integers(0, 3), st.sampled_from(["beta", None]))
def test_partitions_of_extensions_may_have_a_beta_or_nothing(seed, parameter) -> None:
    """All fragments up to a share of their list are one segment."""
    graph, sizes = drawn(seed)

    def lower_part(found, rule) -> Assignment:
        last = int((rule.beta if parameter else 0.5) * len(found.sizes))
        names = found.sizes.fragment.copy()
        names[:last] = names[0]
        return Assignment(found.sizes.fragment, names)

    with pytest.MonkeyPatch.context() as patch:
        method = Method(lower_part, parameter, revision=3)
        patch.setattr(segments, "method_named", lambda name: method)
        rule = Rule("lower", beta=0.25)
        assert rule.decides_tree == {"method": "lower"} | ({"beta": 0.25} if parameter else {})
        assert rule.revisions == {"revision of lower": 3}
        tree = merge_tree(rule, graph, sizes)
        found = segments_of(rule, tree, sizes)
        joined = int((0.25 if parameter else 0.5) * len(sizes))
        assert len(np.unique(found.segment)) == len(sizes) - joined + 1
        if parameter:
            swept = dict(segments_at(rule, (0.1, 0.9), tree, sizes, graph))
            for beta, each in swept.items():
                last = int(beta * len(sizes))
                assert len(np.unique(each.segment)) == len(sizes) - max(0, last - 1)


def test_histograms_are_of_methods_that_are_called_once() -> None:
    with pytest.raises(ValueError, match="betas gets no histograms"):
        Method(lambda found, rule: None, "beta", histograms=True)


WRONG = {
    "falling scores": lambda f: MergeTree(f[:2], f[2:4], np.array([0.5, 0.4])),
    "a fragment merged twice": lambda f: MergeTree(f[:2], f[[3, 3]], np.array([0.1, 0.4])),
    "fragments of nobody": lambda f: MergeTree(f[:1], f[:1] * 0 + 999_999, np.zeros(1)),
    "a partition where a tree is due": lambda f: Assignment(f, f),
    "nothing": lambda f: None,
}
WRONG_PARTITIONS = {
    "a fragment too few": lambda f: Assignment(f[1:], f[1:]),
    "segments named after the largest": lambda f: Assignment(f, f * 0 + f[-1]),
    "segments named after nobody": lambda f: Assignment(f, f * 0 + 999_999),
    "a tree where a partition is due": lambda f: MergeTree(f[:1], f[1:2], np.zeros(1)),
}


@pytest.mark.parametrize("what", [*WRONG, *WRONG_PARTITIONS])
def test_what_an_extension_must_not_make_is_refused(what: str, monkeypatch) -> None:
    graph, sizes = drawn(1)
    parameter = "threshold" if what in WRONG else None
    wrong = (WRONG | WRONG_PARTITIONS)[what]
    method = Method(lambda found, rule: wrong(found.sizes.fragment), parameter)
    monkeypatch.setattr(segments, "method_named", lambda name: method)
    with pytest.raises(ExtensionError, match="agglomeration wrong must make"):
        merge_tree(Rule("wrong"), graph, sizes)


# What is not there, or not what it should be


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.network", DILATED),
        ("run.agglomerate", LINKAGE),
        ("run.tune.methods", ["mean_affinity", "single_linkage"]),
    ],
)
def test_an_extension_that_is_not_installed_is_said(
    packages: Installed, key: str, value: object, tmp_path: Path, capsys
) -> None:
    tree = set_at(run_tree(tmp_path), key, value)
    with pytest.raises(ConfigError) as caught:
        checked_settings(tree, "run.yaml")
    said = str(caught.value)
    noun, built_in = ("backbone", "resunet") if "network" in key else ("agglomeration", "multicut")
    for part in (f"the {noun} must be", built_in, "installed (none)", "pip install", f"{noun}s"):
        assert part in said
    assert len(said.splitlines()) <= 4
    packages.tiny_lab()
    checked_settings(tree, "run.yaml")
    other = yaml.safe_load(yaml.safe_dump(tree).replace("dilated", "x").replace("single_", "x"))
    with pytest.raises(ConfigError, match=r"installed \((dilated|single_linkage)\)"):
        checked_settings(other, "run.yaml")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("run.network", DILATED | {"options": {"dilations": [0]}}, r"from 1, found \[0\]"),
        ("run.network", DILATED | {"options": {"widht": 3}}, "keyword argument 'widht'"),
        ("run.agglomerate", LINKAGE | {"options": {"min_contacts": "x"}}, "from 1, found x"),
        ("run.agglomerate", LINKAGE | {"method": "multicut"}, "there are none, found min_contacts"),
    ],
)
def test_options_are_checked_by_their_extension(lab, key, value, says, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"options of the \w+ \w+: .*{says}"):
        checked_settings(set_at(run_tree(tmp_path), key, value), "run.yaml")


def test_extensions_that_cannot_be_used_are_said(lab: Installed, tmp_path: Path) -> None:
    """The others are, and runs that need none do not look."""
    group = "pea_connectomics.agglomerations"
    lab.module("broken", "raise RuntimeError('no licence')\n")
    lab.module("plain", "number = 3\n")
    points = {
        "broken": "broken:x",
        "gone": "nowhere:x",
        "absent": "plain:x",
        "plain": "plain:number",
    }
    lab.distribution("bad-lab", "2.0", {group: points})
    lab.distribution("second-lab", "1.0", {group: {"single_linkage": "plain:number"}})
    for name, says in {
        "broken": "broken of bad-lab 2.0 cannot be loaded: RuntimeError: no licence",
        "gone": "ModuleNotFoundError: No module named 'nowhere'",
        "absent": "AttributeError",
        "plain": "plain of pea_connectomics.agglomerations must lead to a Method, found int",
        "single_linkage": "one distribution, found it in second-lab 1.0, tiny-lab 0.1",
    }.items():
        tree = set_at(run_tree(tmp_path), "run.agglomerate.method", name)
        with pytest.raises(ConfigError, match=says):
            checked_settings(tree, "run.yaml")
    checked_settings(run_tree(tmp_path), "run.yaml")


def test_versions_name_distributions_with_extensions(lab: Installed) -> None:
    done = subprocess.run([*PEA, "--version"], capture_output=True, text=True, check=True)
    assert f"tiny-lab {PROJECT['version']}, an extension" in done.stdout.splitlines()

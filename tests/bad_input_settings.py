"""Rows of bad settings: regions, blocks, run files, machines and outputs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable

import numpy as np

from pipeline.errors import ConfigError, ExistsError, LayoutError, NotFoundError, RoiError
from tests.bad_input_rows import Bad, Case, all_of, command, finished, key, text
from tests.drawn import SHAPE, write_volume
from workers import cli


def half_finished(case: Case) -> None:
    """Stop after the arrays were made and before the first block: no affinities to read."""
    case.attribute("affinities", "content_digest", "of what it should hold")
    hidden = case.folder / "hidden"
    shutil.move(case.shard("affinities").parents[3], hidden)
    case.set("run.data.labels", None)
    assert cli.main(case.words()) == 1
    shutil.move(hidden, case.data / "affinities" / "s0" / "c")


def foreign_output(name: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        write_volume(case.root / "volumes.zarr" / name, np.ones(SHAPE, np.uint64), "mine")

    return spoil


def occupied(relative: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        path = case.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")

    return spoil


def inside_input(case: Case) -> None:
    case.command = [*case.words()[:-1], str(case.data / "affinities")]


def around_input(case: Case) -> None:
    """A run directory that holds its own input: dropping must never reach it."""
    shutil.copytree(case.data, case.root / "data.zarr")
    case.set("run.data.affinities", str(case.root / "data.zarr" / "affinities"))


BOMB = "run: &a0 [x, x]\n" + "".join(
    f"k{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 12)
)
DEEP = "run: " + "[" * 5000 + "]" * 5000

REFUSED_SETTINGS = [
    Bad("1", "no run file", command("run", "all", "{folder}/no.yaml"), NotFoundError, ("no.yaml",)),
    Bad("1", "run file is a folder", command("plan", "{folder}"), ConfigError, ("run file",)),
    Bad("30", "a region outside", key("run.data.roi", {"offset": [0, 0, 0], "shape": [40, 8, 8]}),
        RoiError, ("(0, 0, 0)", "(80, 16, 8)", "inside the affinities")),
    Bad("30", "a region too large", key("run.data.roi",
        {"offset": [80, 16, 8], "shape": [4000, 80, 80]}), RoiError, ("4080",)),
    Bad("30", "an empty region", key("run.data.roi", {"offset": [80, 16, 8], "shape": [0, 80, 80]}),
        RoiError, ("inside the affinities",)),
    Bad("30", "a negative region", key("run.data.roi",
        {"offset": [80, 16, 8], "shape": [-40, 80, 80]}), RoiError, ("inside the affinities",)),
    Bad("30", "scores of a region outside", key("run.evaluate.roi",
        {"offset": [0, 0, 0], "shape": [40, 8, 8]}), RoiError, ("run.evaluate.roi", "labels")),
    Bad("31", "a region between voxels", key("run.data.roi",
        {"offset": [80, 17, 8], "shape": [40, 80, 80]}), RoiError,
        ("run.data.roi.offset", "whole voxels", "nearest")),
    Bad("31", "a region of NaN", key("run.data.roi",
        {"offset": [80, math.nan, 8], "shape": [40, 80, 80]}), ConfigError,
        ("run.data.roi.offset",)),
    Bad("31", "a region of 1e300 nm", key("run.data.roi",
        {"offset": [80, 16, 8], "shape": [40, 1e300, 80]}), ConfigError, ("run.data.roi.shape",)),
    Bad("32", "another block in a half-finished stage",
        all_of(half_finished, key("machine.fragments.block_vx", [16, 24, 48])), LayoutError,
        ("fragments_blockwise", "[16, 40, 48]", "[16, 24, 48]", "pea drop")),
    Bad("32", "a block of no size", key("machine.edges.block_vx", [8, 0, 32]), ConfigError,
        ("machine.edges.block_vx", "[8, 0, 32]")),
    Bad("32", "a block of two sides", key("machine.edges.block_vx", [8, 8]), ConfigError,
        ("machine.edges.block_vx", "three whole numbers")),
    Bad("32", "a block beyond memory", key("machine.fragments.block_vx", [4096, 4096, 4096]),
        LayoutError, ("GB", "fragments_blockwise", "memory_gb")),
    Bad("32", "a block of 1e400", key("machine.edges.block_vx", [8, 8, 10**400]), ConfigError,
        ("machine.edges.block_vx",)),
    Bad("47", "an unknown key", key("run.agglomerate.treshold", 0.5), ConfigError,
        ("run.agglomerate.treshold: no such key, did you mean run.agglomerate.threshold?",)),
    Bad("47", "an unknown section", key("model", {}), ConfigError, ("model: no such key",)),
    Bad("47", "no name", lambda c: c.tree["run"].pop("name"), ConfigError,
        ("run.name: must be given",)),
    Bad("47", "no affinities", lambda c: c.tree["run"]["data"].pop("affinities"), ConfigError,
        ("run.data.affinities", "pea ingest")),
    Bad("47", "nothing", text(""), ConfigError, ("mapping",)),
    Bad("47", "an unknown key on the command line", key("run.name", "small"), ConfigError,
        ("run.fragments.narow_nm: no such key",), changes=("run.fragments.narow_nm=3",)),
    Bad("47", "a change without a value", key("run.name", "small"), ConfigError, ("KEY=VALUE",),
        changes=("run.name",)),
    Bad("47", "a change below a value", key("run.name", "small"), ConfigError,
        ("name has no keys below it",), changes=("run.name.x=3",)),
    Bad("47", "a change that is no YAML", key("run.name", "small"), ConfigError, ("YAML",),
        changes=("run.name=[",)),
    Bad("48", "a threshold of text", key("run.agglomerate.threshold", "high"), ConfigError,
        ("run.agglomerate.threshold", "'high'")),
    Bad("48", "a list for a section", key("run.agglomerate", [1]), ConfigError,
        ("run.agglomerate",)),
    Bad("48", "null for a section", key("machine.edges", None), ConfigError, ("machine.edges",)),
    Bad("48", "a number for a path", key("run.data.affinities", 7), ConfigError,
        ("run.data.affinities", "7")),
    Bad("48", "yes for a number", key("machine.edges.workers", True), ConfigError,
        ("machine.edges.workers",)),
    Bad("48", "another method", key("run.agglomerate.method", "magic"), ConfigError,
        ("mean_affinity", "'magic'")),
    Bad("48", "another runner", key("machine.runner", "spark"), ConfigError, ("serial", "'spark'")),
    Bad("48", "a list of runs", text("- run\n- machine\n"), ConfigError, ("mapping",)),
    Bad("48", "bytes", all_of(lambda c: (c.folder / "b.yaml").write_bytes(b"\xff\xfe\x00"),
        command("plan", "{folder}/b.yaml")), ConfigError, ("b.yaml",)),
    Bad("49", "a key twice", text("run:\n  name: a\n  name: b\n"), ConfigError, ("'name'",
        "twice")),
    Bad("50", "a tag that makes objects", text('run: !!python/object/apply:os.system ["true"]\n'),
        ConfigError, ("YAML", "python/object")),
    Bad("51", "an alias bomb", text(BOMB), ConfigError, ("aliases",)),
    Bad("51", "deep nesting", text(DEEP), ConfigError, ("deep",)),
    Bad("51", "deep nesting on the command line", key("run.name", "small"), ConfigError, ("deep",),
        changes=("run.name=" + "[" * 3000,)),
    Bad("51", "a file of megabytes", text("run: " + "x" * 3_000_000), ConfigError, ("100000",)),
    Bad("52", "a name with ..", key("run.name", "../other"), ConfigError, ("run.name", "../other")),
    Bad("52", "an absolute name", key("run.name", "/etc/x"), ConfigError, ("run.name",)),
    Bad("52", "a name from the environment", key("run.name", "${HOME}"), ConfigError,
        ("run.name",)),
    Bad("66", "a threshold below 0", key("run.agglomerate.threshold", -0.1), ConfigError,
        ("run.agglomerate.threshold", "-0.1")),
    Bad("66", "a threshold above 1", key("run.agglomerate.threshold", 1.5), ConfigError, ("1.5",)),
    Bad("66", "a threshold of NaN", key("run.agglomerate.threshold", math.nan), ConfigError,
        ("run.agglomerate.threshold", "nan")),
    Bad("66", "thresholds out of order", key("run.evaluate.thresholds", [0.5, 0.2]), ConfigError,
        ("run.evaluate.thresholds", "ascending")),
    Bad("66", "a threshold twice", key("run.evaluate.thresholds", [0.5, 0.5]), ConfigError,
        ("repeats",)),
    Bad("66", "no thresholds", key("run.evaluate.thresholds", []), ConfigError,
        ("run.evaluate.thresholds",)),
    Bad("66", "NaN among thresholds", key("run.evaluate.thresholds", [0.1, math.nan]), ConfigError,
        ("run.evaluate.thresholds",)),
    Bad("67", "a swept beta of 0", key("run.evaluate.betas", [0, 0.5]), ConfigError,
        ("run.evaluate.betas", "greater than 0")),
    Bad("67", "a swept beta of 1", key("run.evaluate.betas", [0.5, 1.0]), ConfigError,
        ("run.evaluate.betas", "less than 1")),
    Bad("67", "betas out of order", key("run.evaluate.betas", [0.5, 0.2]), ConfigError,
        ("run.evaluate.betas", "ascending")),
    Bad("67", "no betas", key("run.evaluate.betas", []), ConfigError, ("run.evaluate.betas",)),
    Bad("67", "NaN among betas", key("run.evaluate.betas", [0.1, math.nan]), ConfigError,
        ("run.evaluate.betas",)),
    Bad("66", "a negative border", key("run.evaluate.border_nm", -1.0), ConfigError,
        ("run.evaluate.border_nm", "-1")),
    Bad("66", "a border of NaN", key("run.evaluate.border_nm", math.nan), ConfigError,
        ("run.evaluate.border_nm", "nan")),
    Bad("66", "a border of a millimetre", key("run.evaluate.border_nm", 1e6), ConfigError,
        ("run.evaluate.border_nm", "1000")),
    Bad("66", "a quantile that is not offered", key("run.agglomerate.quantile", 60), ConfigError,
        ("run.agglomerate.quantile", "75", "60")),
    Bad("66", "a beta of 0", key("run.agglomerate.beta", 0.0), ConfigError,
        ("run.agglomerate.beta", "greater than 0")),
    Bad("66", "a beta of 1", key("run.agglomerate.beta", 1), ConfigError,
        ("run.agglomerate.beta", "less than 1")),
    Bad("66", "a beta of NaN", key("run.agglomerate.beta", math.nan), ConfigError,
        ("run.agglomerate.beta", "nan")),
    Bad("66", "no methods to tune", key("run.tune.methods", []), ConfigError,
        ("run.tune.methods", "one or more")),
    Bad("66", "a method to tune twice", key("run.tune.methods", ["multicut", "multicut"]),
        ConfigError, ("run.tune.methods", "repeats")),
    Bad("66", "widths to tune out of order", key("run.tune.wide_nm", [30.0, 20.0]), ConfigError,
        ("run.tune.wide_nm", "ascending")),
    Bad("66", "another weighting", key("run.agglomerate.weighting", "size"), ConfigError,
        ("run.agglomerate.weighting", "populations", "'size'")),
    Bad("66", "another solver", key("run.agglomerate.solver", "gurobi"), ConfigError,
        ("run.agglomerate.solver", "bioimage_cpp", "'gurobi'")),
    Bad("66", "domains of no size", key("run.agglomerate.domain_vx", [8, 0, 8]), ConfigError,
        ("run.agglomerate.domain_vx", "[8, 0, 8]")),
    Bad("66", "domains of two sides", key("run.agglomerate.domain_vx", [64, 64]), ConfigError,
        ("run.agglomerate.domain_vx", "three whole numbers")),
    Bad("66", "domains of a lifted multicut", all_of(
        key("run.agglomerate.method", "lifted_multicut"),
        key("run.agglomerate.domain_vx", [64, 64, 64])), ConfigError,
        ("domain_vx must be null for lifted_multicut", "[64, 64, 64]")),
    Bad("66", "a lifted multicut of direct neighbours",
        key("run.agglomerate.method", "lifted_multicut"), ConfigError,
        ("lifted_multicut needs", "long-range", "run.predict.offsets")),
    Bad("66", "a mutex watershed of direct neighbours",
        key("run.agglomerate.method", "mutex_watershed"), ConfigError,
        ("mutex_watershed needs", "long-range", "multicut")),
    Bad("66", "negative small segments", key("run.agglomerate.merge_small_vx", -1), ConfigError,
        ("merge_small_vx", "-1")),
    Bad("66", "negative dust", key("run.agglomerate.dust_vx", -1), ConfigError, ("dust_vx",)),
    Bad("66", "dust beyond uint64", key("run.agglomerate.dust_vx", 10**30), ConfigError,
        ("dust_vx",)),
    Bad("66", "a negative sigma", key("run.fragments.wide_nm", -1), ConfigError, ("wide_nm",)),
    Bad("68", "no workers", key("machine.fragments.workers", 0), ConfigError,
        ("machine.fragments.workers", "found 0")),
    Bad("68", "minus one worker", key("machine.fragments.workers", -1), ConfigError, ("found -1",)),
    Bad("68", "half a worker", key("machine.fragments.workers", 0.5), ConfigError, ("0.5",)),
    Bad("69", "negative memory", key("machine.fragments.memory_gb", -2), ConfigError,
        ("machine.fragments.memory_gb", "-2")),
    Bad("69", "infinite memory", key("machine.fragments.memory_gb", math.inf), ConfigError,
        ("inf",)),
    Bad("69", "no time", key("machine.fragments.timeout_s", 0), ConfigError, ("timeout_s",)),
    Bad("69", "endless time", key("machine.fragments.timeout_s", 1e300), ConfigError,
        ("timeout_s",)),
    Bad("70", "an array of others", foreign_output("basins"), ExistsError, ("basins", "--rerun")),
    Bad("70", "an array of others further on", foreign_output("fragments"), ExistsError,
        ("fragments", "edges_blockwise")),
    Bad("70", "a file for the run directory", occupied("runs/small"), ExistsError, ("small",
        "file")),
    Bad("70", "a file for the runs", occupied("runs"), ExistsError, ("runs", "file")),
    Bad("70", "a file for the volumes", occupied("runs/small/volumes.zarr"), ExistsError,
        ("volumes.zarr",)),
    Bad("70", "a file for an array", occupied("runs/small/volumes.zarr/basins"), ExistsError,
        ("basins",)),
    Bad("70", "a run inside its input", inside_input, ExistsError, ("apart", "affinities")),
    Bad("70", "an input inside its run", around_input, ExistsError, ("apart", "affinities")),
    Bad("70", "other settings", all_of(finished, key("run.fragments.wide_share", 0.1)), ConfigError,
        ("wide_share: 0.4 -> 0.1", "--rerun")),
]  # fmt: skip

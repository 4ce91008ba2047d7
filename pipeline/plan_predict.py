"""The stage that predicts affinities, where a run starts from raw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.checkpoint import Header
from pipeline.config import Settings
from pipeline.errors import ConfigError, NotFoundError
from pipeline.geometry import BlockGrid, Offsets, nanometres
from pipeline.hardware import NO_GPU, Hardware, bf16_refusal, present
from pipeline.inputs import Inputs
from pipeline.patches import PatchGrid
from pipeline.raw import RawScale
from pipeline.rundir import RunDirectory
from pipeline.spec import VolumeSpec
from pipeline.stages.predict import PredictBlockwise, file_digest

WEIGHTS = Path(__file__).parent / "model" / "weights"


def prediction(settings: Settings, where: RunDirectory, given: Inputs) -> PredictBlockwise | None:
    """The stage, or None if the affinities are given.

    Raises:
        NotFoundError: no checkpoint; CheckpointError: a file that is none; LayoutError: a patch
        that does not fit the network; ConfigError: offsets that cannot be had; DtypeError: raw.
    """
    if given.offsets is not None:
        return None
    predict, workers = settings.run.predict, settings.machine.predict
    path = checkpoint_path(settings, where)
    header = Header.read(path)
    offsets = predicted_offsets(predict.offsets, header, path)
    patches = PatchGrid(given.source.roi, predict.patch_vx, predict.crop_vx, header.network.factor)
    if header.network.head == "embedding":
        patches.refuse_long(offsets)
    grid = BlockGrid(patches.cover(given.roi), workers.block_vx)
    spec = VolumeSpec(
        shape=(len(offsets), *grid.total.shape),
        dtype="uint8",
        voxel_size_nm=given.voxel_size_nm,
        offset_nm=nanometres(grid.total.begin, given.voxel_size_nm),
        meaning="affinities",
        shard_vx=workers.block_vx,
        offsets=offsets,
    )
    embeddings = replace(
        spec,
        shape=(header.network.embedding, *grid.total.shape),
        dtype="float16",
        meaning="embeddings",
        offsets=None,
    )
    if predict.embeddings and header.network.head != "embedding":
        raise ConfigError(f"run.predict.embeddings must be false: {path} has affinities directly")
    stage = PredictBlockwise(
        name="predict_blockwise",
        run=where,
        grid=grid,
        upstream=(),
        contents={name: given.contents[name] for name in ("raw", "mask") if name in given.contents}
        | {"checkpoint": file_digest(path)},
        raw=given.source.path,
        scale=RawScale.of(given.source, settings.run.data.raw_range),
        mask=given.mask.path if given.mask else None,
        checkpoint=path,
        network=header.network,
        patches=patches,
        offsets=offsets,
        precision=predict.precision,
        threads=predict.threads,
        hardware=present(predict.device),
        affinities=spec,
        embeddings=embeddings if predict.embeddings else None,
    )
    return as_finished(stage, any_device=predict.device == "auto") or as_possible(stage)


def checkpoint_path(settings: Settings, where: RunDirectory) -> Path:
    """Where ``run.predict.checkpoint`` lies.

    Raises:
        NotFoundError: it is not there; ConfigError: ``released`` without a name.
    """
    predict = settings.run.predict
    name = predict.checkpoint
    begun = where.checkpoints.exists()
    if name == "released" or (name in ("best", "last") and predict.released and not begun):
        if predict.released is None:
            raise ConfigError("run.predict.checkpoint is released, so run.predict.released is due")
        path, hint = WEIGHTS / f"{predict.released}.safetensors", released_hint()
    elif name in ("best", "last"):
        path = where.checkpoints / f"{name}.safetensors"
        hint = (
            "Train one: pea train RUN.yaml\n"
            f"Or name another: run.predict.checkpoint=PATH. {released_hint()}"
        )
    else:
        path, hint = Path(name), "Give run.predict.checkpoint: best, last, released or a path."
    if not path.is_file():
        raise NotFoundError(f"no checkpoint at {path}\n{hint}")
    return path


def released_hint() -> str:
    names = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    return f"Released are (run.predict.released): {', '.join(names) or 'none'}."


def predicted_offsets(given: Offsets | None, header: Header, path: Path) -> Offsets:
    """The offsets to predict.

    Raises:
        ConfigError: a network of affinities was not trained on them.
    """
    if given is None:
        return header.offsets
    missing = [list(v) for v in given.vectors if v not in header.offsets.vectors]
    if header.network.head == "affinity" and missing:
        raise ConfigError(
            f"run.predict.offsets must be among those the network was trained on: {path}\n"
            f"not among them are {missing}, it has {header.offsets.numbers()}\n"
            "A network of embeddings takes any."
        )
    return given


def as_finished(stage: PredictBlockwise, any_device: bool) -> PredictBlockwise | None:
    """The stage on the hardware that finished it: its affinities can be used on any."""
    run = stage.run
    if run.completion(stage.identity) is not None:
        return stage
    for former in run.former_identities(stage.identity):
        said = former.get("parameters", {})
        hardware = Hardware(*(str(said.get(key)) for key in ("device", "processor", "torch")))
        same = replace(stage, hardware=hardware)
        if run.completion(same.identity) is not None and (
            any_device or hardware.device == stage.hardware.device
        ):
            return same
    return None


def as_possible(stage: PredictBlockwise) -> PredictBlockwise:
    """The stage, if it can be computed here.

    Raises:
        ConfigError: it needs a GPU, or a CPU with bf16.
    """
    hardware = stage.hardware
    if hardware.device == "cuda" and hardware.processor == NO_GPU:
        raise ConfigError("run.predict.device is cuda, and this machine has no GPU that is known")
    if stage.precision == "bf16" and not hardware.multiplies_bf16():
        raise ConfigError(bf16_refusal("run.predict.precision"))
    return stage

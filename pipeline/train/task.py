"""What a training starts from: volumes and regions, opened and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import Header
from pipeline.config import Run, Train
from pipeline.content import content_fingerprint
from pipeline.errors import ConfigError, LayoutError
from pipeline.geometry import Nm, Offsets, Roi
from pipeline.inputs import checked_labels, named_region, refuse_nested, refuse_overlaps
from pipeline.patches import PatchGrid
from pipeline.raw import RawScale
from pipeline.rundir import Identity, RunDirectory
from pipeline.stages.predict import file_digest
from pipeline.train.batches import TrainingData
from pipeline.volume import Volume

REVISION = 1
"""Raised when the same settings train another network."""


@dataclass(frozen=True)
class Task:
    """A training that can begin."""

    run: Run
    where: RunDirectory
    data: TrainingData
    raw: Volume
    labels: Volume
    validation_roi: Roi | None
    """In world voxels."""
    voxel_size_nm: Nm
    identity: Identity
    """All that decides the weights, besides the kind of the machine."""

    @property
    def patches(self) -> PatchGrid:
        """Of the validation: those that ``pea run`` would predict."""
        predict = self.run.predict
        return PatchGrid(self.raw.roi, predict.patch_vx, predict.crop_vx, self.run.network.factor)

    @property
    def validation_offsets(self) -> Offsets:
        return self.run.predict.offsets or self.train.offsets

    @property
    def train(self) -> Train:
        assert self.run.train is not None
        return self.run.train


def open_task(run: Run, where: RunDirectory) -> Task:
    """Open what a training needs; only metadata is read.

    Raises:
        PipelineError: of the kind that fits, naming the array or key.
    """
    train, data = run.train, run.data
    if train is None:
        raise ConfigError("run.train must say how to train, and at least where: run.train.roi")
    if data.raw is None or data.labels is None:
        missing = "raw" if data.raw is None else "labels"
        raise ConfigError(f"training needs raw and labels; run.data.{missing} is not given")
    refuse_nested(where.root, (data.raw, data.labels))
    raw = Volume.open(data.raw)
    size = raw.spec.voxel_size_nm
    labels = checked_labels(Volume.open(data.labels), size, raw.roi, "labels", "raw")
    labelled = raw.roi.intersect(labels.roi)
    regions = {"run.train.roi": train.roi}
    if train.validation is not None:
        regions["run.train.validation.roi"] = train.validation.roi
    both = f"both raw and labels: {data.raw} and {data.labels}"
    rois = {
        name: named_region(given, size, name, labelled, both) for name, given in regions.items()
    }
    if data.test_roi is not None:
        rois["run.data.test_roi"] = named_region(
            data.test_roi, size, "run.data.test_roi", raw.roi, f"the raw: {data.raw}"
        )
    refuse_overlaps(rois, size)
    crop, factor = train.crop_vx, run.network.factor
    if any(side % n for side, n in zip(crop, factor, strict=True)):
        nearest = [max(n, round(s / n) * n) for s, n in zip(crop, factor, strict=True)]
        raise LayoutError(
            f"run.train.crop_vx must be multiples of {list(factor)}, which the network halves its "
            f"way down to; found {list(crop)}\nThe nearest is {nearest}."
        )
    for vector in train.offsets.vectors:
        if any(abs(n) >= side for n, side in zip(vector, crop, strict=True)):
            raise ConfigError(
                f"run.train.offsets must be shorter than run.train.crop_vx: {list(vector)} leaves "
                f"no pair in {list(crop)}"
            )
    contents = {
        name: content_fingerprint(volume, where.root)
        for name, volume in (("raw", raw), ("labels", labels))
    }
    if train.initial is not None:
        refuse_other_network(run, train.initial)
        contents["initial"] = file_digest(train.initial)
    scale = RawScale.of(raw, data.raw_range)
    identity = Identity(
        "train",
        REVISION,
        {
            "network": run.network.decides,
            **run.network.revisions,
            "train": train.model_dump(mode="json", exclude={"checkpoint_every", "initial"}),
            "raw_range": [scale.low, scale.high],
        },
        contents,
    )
    task = Task(
        run,
        where,
        TrainingData(data.raw, data.labels, scale, rois["run.train.roi"]),
        raw,
        labels,
        rois.get("run.train.validation.roi"),
        size,
        identity,
    )
    if task.validation_roi is not None and run.network.head == "embedding":
        task.patches.refuse_long(task.validation_offsets)
    return task


def refuse_other_network(run: Run, initial: Path) -> None:
    """Raise unless a checkpoint fits the network of a run.

    Raises:
        NotFoundError, CheckpointError: the file; ConfigError: it holds another network.
    """
    assert run.train is not None
    header = Header.read(initial)
    ours, theirs = run.network.model_dump(), header.network.model_dump()
    different = [f"{key}: {theirs[key]} -> {ours[key]}" for key in ours if ours[key] != theirs[key]]
    if run.network.head == "affinity" and header.offsets != run.train.offsets:
        different.append(f"offsets: {header.offsets.numbers()} -> {run.train.offsets.numbers()}")
    if different:
        raise ConfigError(
            f"run.train.initial must hold the network of run.network: {initial}\n"
            + "\n".join(different)
        )

"""Small volumes and runs drawn from a seed, for tests that break them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.ndimage import gaussian_filter

from pipeline.geometry import ZYX, Nm, Offsets
from pipeline.segment.affinities import affinities_from_labels
from pipeline.spec import VolumeSpec
from pipeline.tables import read_table
from pipeline.volume import Volume

DIRECT = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*DIRECT, (-2, 0, 0), (0, -5, 0), (0, 0, -7), (-1, -3, 2), (2, 3, -4))
SIZE_NM = (40, 8, 8)
SHAPE = (12, 40, 44)
OFFSET_NM = (80, 16, 8)
PEA = (sys.executable, "-c", "from workers.cli import entry; entry()")


def drawn_labels(shape: Sequence[int] = SHAPE, seed: int = 5, spacing: int = 9) -> np.ndarray:
    """Cells around random points, uint64 from 1."""
    rng = np.random.default_rng(seed)
    count = max(2, int(np.prod(shape)) // spacing**3)
    points = rng.uniform(0, 1, (count, 3)) * shape
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    nearest = np.full(shape, np.inf)
    labels = np.zeros(shape, np.uint64)
    for number, point in enumerate(points, start=1):
        distance = (((places - point) * (2, 1, 1)) ** 2).sum(-1)
        labels[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    return labels


def drawn_affinities(
    labels: np.ndarray, offsets: Sequence[Sequence[int]] = DIRECT, seed: int = 5
) -> np.ndarray:
    """Noisy uint8 affinities of labels."""
    rng = np.random.default_rng(seed)
    exact = affinities_from_labels(labels, Offsets.of(offsets)).astype(np.float32)
    noisy = gaussian_filter(exact, (0, 0.5, 1, 1)) + rng.normal(0, 25, exact.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def write_volume(
    path: Path,
    data: np.ndarray,
    meaning: str,
    offsets: Sequence[Sequence[int]] | None = None,
    shard_vx: Sequence[int] = (8, 32, 32),
    **attributes: Any,
) -> Volume:
    """An array of this pipeline, at ``OFFSET_NM``."""
    spec = VolumeSpec(
        shape=data.shape,
        dtype=str(data.dtype),
        voxel_size_nm=Nm.of(SIZE_NM),
        offset_nm=Nm.of(OFFSET_NM),
        meaning=meaning,
        shard_vx=ZYX.of(shard_vx),
        offsets=Offsets.of(offsets) if offsets else None,
    )
    volume = Volume.create(path, spec, attributes)
    volume.write(volume.roi, data)
    return volume


def write_inputs(
    folder: Path,
    shape: Sequence[int] = SHAPE,
    offsets: Sequence[Sequence[int]] = DIRECT,
    digest: str | None = None,
    seed: int = 5,
) -> Path:
    """``data.zarr`` with affinities, labels and mask.

    Args:
        digest: as `pea ingest` notes it; then files are not read for the fingerprint.
    """
    root = folder / "data.zarr"
    truth = drawn_labels(shape, seed)
    noted = {"content_digest": digest} if digest else {}
    affinities = drawn_affinities(truth, offsets, seed)
    write_volume(root / "affinities", affinities, "affinities", offsets, **noted)
    write_volume(root / "labels", truth, "labels", **noted)
    mask = np.ones(truth.shape, np.uint8)
    mask[:, :4, :4] = 0
    write_volume(root / "mask", mask, "mask", **noted)
    return root


def run_tree(
    root: Path,
    name: str = "small",
    block_vx: Sequence[int] = (8, 32, 32),
    workers: int = 2,
    runner: str = "serial",
    **stage: Any,
) -> dict[str, Any]:
    """A run file as plain values; ``stage`` goes to every stage of the machine."""
    each = {"workers": workers, "block_vx": list(block_vx), **stage}
    stages = ("fragments", "edges", "relabel", "downsample", "evaluate")
    return {
        "run": {
            "name": name,
            "data": {"affinities": str(root / "affinities"), "labels": str(root / "labels")},
            "evaluate": {"thresholds": [0.2, 0.5, 0.8]},
        },
        "machine": {"runner": runner} | {stage: dict(each) for stage in stages},
    }


def write_run(path: Path, tree: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(tree)))
    return path


def set_at(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Set ``a.b.c`` in nested mappings, in place."""
    *parts, last = key.split(".")
    node = tree
    for part in parts:
        node = node.setdefault(part, {})
    node[last] = value
    return tree


def files_state(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and digest of every file, except the lock, the logs and what is known of the inputs."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (".lock", "inputs.json")
        and "logs" not in path.relative_to(folder).parts
    }


def results(run: Path) -> dict[str, str]:
    """Digest of every array, of the gathered tables and of the scores of a run.

    Tables of single blocks are left to the arrays and tables made from them; the merge tree, the
    resolved fragments and all scores are compared in full.
    """
    found = {}
    for array in sorted((run / "volumes.zarr").glob("*/s*")):
        volume = Volume.open(array).at_origin()
        data = volume.read(volume.roi)
        found[f"{array.parent.name}/{array.name}"] = digest_of(data)
    for table in sorted((run / "tables").glob("*/*/*.npz")):
        columns = read_table(table)
        parts = [digest_of(columns[name]) for name in sorted(columns)]
        found[str(table.relative_to(run / "tables"))] = "".join(parts)
    if (run / "scores.json").exists():
        scores = json.loads((run / "scores.json").read_text())
        found["scores"] = json.dumps(scores, sort_keys=True)
    return found


def digest_of(data: np.ndarray) -> str:
    described = f"{data.dtype} {data.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(data).tobytes()).hexdigest()[:16]

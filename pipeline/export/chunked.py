"""N5 and Neuroglancer precomputed, through tensorstore. Both count axes x, y, z."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DtypeError
from pipeline.export.cut import Count, Cut
from pipeline.geometry import ZYX, BlockGrid, Nm, Roi, slices
from pipeline.location import needed
from pipeline.segment.downsample import halved_axes

CHUNK_VX = 64
SHARD_CHUNKS_BITS = 6
"""A shard of precomputed has 4 x 4 x 4 chunks: one file for 256 x 256 x 256 voxels."""


def write_n5(path: Path, cut: Cut, count: Count) -> None:
    """A container with the level ``s0``, so that Neuroglancer, Fiji and CellMap know its place."""
    sides = [min(CHUNK_VX, side) for side in cut.shape[-3:][::-1]]
    channels = len(cut.shape) == 4
    array = created(
        cut,
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": f"{path.resolve()}/s0/"},
            "metadata": {
                "dimensions": list(cut.shape[::-1]),
                "blockSize": [*sides, 1] if channels else sides,
                "dataType": cut.dtype.name,
                "compression": {"type": "gzip", "level": 1},
            },
        },
    )
    size, offset = cut.voxel_size_nm.numbers(), cut.offset_nm.numbers()
    space = {
        "axes": ["x", "y", "z", "c"] if channels else ["x", "y", "z"],
        "units": ["nm", "nm", "nm", ""] if channels else ["nm", "nm", "nm"],
        "resolution": [*size[::-1], 1] if channels else size[::-1],
        "pixelResolution": {"dimensions": size[::-1], "unit": "nm"},
    }
    transform = {
        "axes": ["z", "y", "x"], "units": ["nm", "nm", "nm"], "scale": size, "translate": offset,
    }  # fmt: skip
    add_members(path / "s0" / "attributes.json", **space, transform=transform, **cut.neighborhood())
    group = {"n5": "2.5.1", "scales": [[1, 1, 1]], **space}
    (path / "attributes.json").write_text(json.dumps(group))
    for block in cut.blocks():
        voxels = cut.read(block.write)
        array[tuple(slices(block.write, cut.roi.begin))[::-1]].write(voxels.T).result()
        count(voxels.size)


def write_precomputed(path: Path, cut: Cut, count: Count) -> None:
    """All scales down to 64 voxels: of labels the most frequent, of images the mean."""
    root = {"driver": "file", "path": f"{path.resolve()}/"}
    channels = cut.shape[0] if len(cut.shape) == 4 else 1
    kind = {
        "type": "segmentation" if cut.is_labels else "image",
        "data_type": cut.dtype.name,
        "num_channels": channels,
    }

    def scale(roi: Roi, size: Nm) -> Any:
        metadata = scale_metadata(roi, size, cut.is_labels and cut.dtype.itemsize >= 4)
        return created(
            cut,
            {
                "driver": "neuroglancer_precomputed",
                "kvstore": root,
                "multiscale_metadata": kind,
                "scale_metadata": metadata,
            },
        )

    array, roi, size = scale(cut.roi, cut.voxel_size_nm), cut.roi, cut.voxel_size_nm
    add_members(path / "info", **cut.neighborhood())
    for box in shards(array, roi):
        voxels = cut.read(box)
        array[index(box)].write(as_xyzc(voxels)).result()
        count(voxels.size)
    tensorstore = needed("tensorstore", "N5 and precomputed")
    while max(roi.shape) > CHUNK_VX:
        factors = halved_axes(size)
        if all(f == 1 or side == 1 for f, side in zip(factors, roi.shape, strict=True)):
            break
        finer = tensorstore.downsample(
            array, [*factors[::-1], 1], "mode" if cut.is_labels else "mean"
        )
        roi = Roi(finer.domain.inclusive_min[2::-1], finer.domain.shape[2::-1])
        size = Nm(*(s * f for s, f in zip(size, factors, strict=True)))
        array = scale(roi, size)
        for box in shards(array, roi):
            # Written as one shard, read chunk by chunk: eight times as many voxels are behind it.
            with tensorstore.Transaction() as whole:
                for chunk in BlockGrid(box, ZYX(CHUNK_VX, CHUNK_VX, CHUNK_VX)):
                    part = index(chunk.write)
                    array.with_transaction(whole)[part].write(finer[part].read().result()).result()


def scale_metadata(roi: Roi, size: Nm, compressed: bool) -> dict[str, Any]:
    """A scale of a precomputed volume, sharded, so that its files are few."""
    chunks = [-(-side // CHUNK_VX) for side in roi.shape]
    bits = sum(math.ceil(math.log2(count)) for count in chunks)
    inside = min(SHARD_CHUNKS_BITS, bits)
    xyz = size.numbers()[::-1]
    encoding: dict[str, Any] = {"encoding": "raw"}
    if compressed:
        encoding = {
            "encoding": "compressed_segmentation",
            "compressed_segmentation_block_size": [8, 8, 8],
        }
    return {
        "key": "_".join(str(side) for side in xyz),
        "size": [int(side) for side in roi.shape[::-1]],
        "voxel_offset": [int(place) for place in roi.begin[::-1]],
        "resolution": xyz,
        "chunk_size": [CHUNK_VX] * 3,
        **encoding,
        "sharding": {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": inside,
            "minishard_bits": 0,
            "shard_bits": bits - inside,
            "hash": "identity",
            "minishard_index_encoding": "gzip",
            "data_encoding": "gzip",
        },
    }


def shards(array: Any, roi: Roi) -> list[Roi]:
    """The region of each file of a scale."""
    sides = ZYX.of(array.chunk_layout.write_chunk.shape[2::-1])
    return [block.write for block in BlockGrid(roi, sides)]


def index(roi: Roi) -> tuple[slice, ...]:
    """A region of a precomputed volume, whose places are world voxels."""
    return slices(roi)[::-1]


def as_xyzc(voxels: np.ndarray) -> np.ndarray:
    """``(z, y, x)`` or ``(c, z, y, x)`` with the axes of a precomputed volume."""
    return voxels.T if voxels.ndim == 4 else voxels.T[..., np.newaxis]


def created(cut: Cut, spec: dict[str, Any]) -> Any:
    """A new array.

    Raises:
        DtypeError: the format has no such type.
    """
    tensorstore = needed("tensorstore", "N5 and precomputed")
    try:
        return tensorstore.open(spec, create=True, open=True).result()
    except ValueError as error:
        if cut.dtype.name not in str(error):
            raise
        raise DtypeError(
            f"{spec['driver']} has no voxels of {cut.dtype}: {cut.volume.path}\nExport it as HDF5."
        ) from error


def add_members(file: Path, **members: Any) -> None:
    """Put more into a JSON object."""
    file.write_text(json.dumps(json.loads(file.read_text()) | members))

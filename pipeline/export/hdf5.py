"""HDF5 in the layouts of two challenges."""

from __future__ import annotations

from pathlib import Path

import h5py

from pipeline.export.cut import Count, Cut
from pipeline.geometry import slices

CHUNK_VX = 64
CREMI_NAMES = {
    "raw": "volumes/raw",
    "labels": "volumes/labels/neuron_ids",
    "segmentation": "volumes/labels/neuron_ids",
    "fragments": "volumes/labels/fragments",
    "mask": "volumes/labels/mask",
    "affinities": "volumes/affinities",
    "embeddings": "volumes/embeddings",
}
SNEMI3D_NAME = "main"


def write_hdf5(path: Path, cut: Cut, name: str, count: Count) -> None:
    """One data set, chunked and compressed, with resolution and offset (z, y, x, in nm)."""
    chunks = tuple(min(CHUNK_VX, side) for side in cut.shape[-3:])
    with h5py.File(path, "w") as file:
        file.attrs["file_format"] = "0.2"
        dataset = file.create_dataset(
            name,
            shape=cut.shape,
            dtype=cut.dtype,
            chunks=chunks if len(cut.shape) == 3 else (1, *chunks),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        dataset.attrs.update(cut.attributes())
        for block in cut.blocks():
            voxels = cut.read(block.write)
            dataset[(..., *slices(block.write, cut.roi.begin))] = voxels
            count(voxels.size)

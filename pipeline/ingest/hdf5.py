"""HDF5: one data set of a file, and nothing outside that file.

A link, a virtual data set or external storage can name any other file of the machine; all of them
are refused, not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import FormatError, NotFoundError
from pipeline.ingest.lengths import check_axes, place_from_attributes
from pipeline.ingest.sources import Source, reading


@contextmanager
def hdf5_source(path: Path, dataset: str | None) -> Iterator[Source]:
    """A data set of an HDF5 file; the only one with three or four axes if none is named.

    Voxel size and offset are the attributes of CREMI, ``resolution`` (or ``voxel_size``) and
    ``offset``, on the data set.

    Raises:
        FormatError: not HDF5, damaged, or data that lie in another file.
        NotFoundError: no such data set, or several and none named; lists them.
    """
    with reading(path):
        file = h5py.File(path, "r")
    with file:
        with reading(path):
            name = dataset.strip("/") if dataset is not None else _only_dataset(file, path)
            found = _dataset(file, name, path)
            where = f"{path}:{name}"
            _check_inside(found, where)
            attributes = dict(found.attrs)
            check_axes(
                [str(axis) for axis in np.atleast_1d(attributes.get("axis_names", []))], where
            )
        yield Source(
            where=where,
            file=path.name,
            dataset=name,
            shape=tuple(found.shape or ()),
            dtype=found.dtype.newbyteorder("="),
            load=lambda begin, end: np.asarray(found[..., begin:end, :, :]),
            place=lambda: place_from_attributes(attributes, where),
            attributes=attributes,
        )


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    node = file
    for part in name.split("/"):
        key = part.encode()
        # Not `part in node`: that opens the target of a link.
        if part in ("", ".") or not isinstance(node, h5py.Group) or not node.id.links.exists(key):
            raise NotFoundError(f"no data set {name} in {path}\n{_listing(file)}")
        if node.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
            raise FormatError(
                f"{path}:{name} must lie in the file itself, {part} is a soft or external link\n"
                f"Name its target, or copy the data into one file. {_listing(file)}"
            )
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise NotFoundError(f"{name} in {path} is a group, not a data set\n{_listing(file)}")
    return node


def _check_inside(dataset: h5py.Dataset, where: str) -> None:
    if dataset.is_virtual or dataset.external:
        kind = "a virtual data set" if dataset.is_virtual else "in external storage"
        raise FormatError(
            f"{where} must hold its own voxels, it is {kind}, which may read other files\n"
            "Copy it into an ordinary data set."
        )


def _only_dataset(file: h5py.File, path: Path) -> str:
    names = [
        name for name, dataset in _datasets(file).items() if len(dataset.shape or ()) in (3, 4)
    ]
    if len(names) != 1:
        raise NotFoundError(
            f"{path} has {len(names)} data sets with three or four axes; name one with --dataset\n"
            f"{_listing(file)}"
        )
    return names[0]


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}

    def note(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node

    file.visititems(note)  # follows no soft or external link
    return found


def _listing(file: h5py.File) -> str:
    shown = [f"{name} {dataset.shape} {dataset.dtype}" for name, dataset in _datasets(file).items()]
    return "It has: " + (", ".join(shown) or "no data sets")

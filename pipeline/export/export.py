"""A region of a volume into one file or folder, block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ExistsError
from pipeline.export.chunked import write_n5, write_precomputed
from pipeline.export.cut import Count, Cut, must_look, narrowed
from pipeline.export.formats import Format
from pipeline.export.hdf5 import CREMI_NAMES, SNEMI3D_NAME, write_hdf5
from pipeline.export.tiff import check_tiff, write_sections, write_stack
from pipeline.geometry import Roi
from pipeline.location import local
from pipeline.publish import clear_unfinished, published
from pipeline.volume import Volume


def export(
    volume: Volume,
    destination: Path,
    form: Format,
    *,
    roi: Roi | None = None,
    dtype: str | None = None,
    dense: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Cut:
    """Write a volume for another program.

    The output appears under its name when it is whole; after an error nothing is there. A block of
    voxels is in memory at a time, of TIFF a slab of whole planes.

    Args:
        volume: of this pipeline or another, in Zarr.
        roi: in world voxels; all of it if omitted.
        dtype: of labels: uint16, uint32 or uint64.
        dense: number labels 1, 2, ... in ascending order of their ids; 0 stays 0.
        overwrite: replace an earlier output of the same format.
        progress: called with the voxels done and the voxels there are.

    Returns:
        What was written.

    Raises:
        PipelineError: the format cannot hold it, ids do not fit, or something is in the way.
    """
    check_free(local(destination), volume, form, overwrite)
    cut = Cut(volume, volume.roi if roi is None else roi, volume.dtype)
    total = cut.num_voxels * (volume.spec.channels or 1) * (1 + must_look(cut, dtype, dense))
    done = 0

    def count(voxels: int) -> None:
        nonlocal done
        done += voxels
        if progress is not None:
            progress(done, total)

    cut = narrowed(cut, dtype, dense, count)
    if form in (Format.TIFF, Format.SECTIONS):
        check_tiff(cut)
    with published(destination) as path:
        write(path, cut, form, count)
    return cut


def write(path: Path, cut: Cut, form: Format, count: Count) -> None:
    """Write a format."""
    match form:
        case Format.CREMI:
            name = CREMI_NAMES.get(cut.meaning, f"volumes/{cut.meaning}")
            write_hdf5(path, cut, name, count)
        case Format.SNEMI3D:
            write_hdf5(path, cut, SNEMI3D_NAME, count)
        case Format.TIFF:
            write_stack(path, cut, count)
        case Format.SECTIONS:
            write_sections(path, cut, count)
        case Format.PRECOMPUTED:
            write_precomputed(path, cut, count)
        case Format.N5:
            write_n5(path, cut, count)


def check_free(path: Path, volume: Volume, form: Format, overwrite: bool) -> None:
    """Refuse to write over the volume itself, or over what is there.

    What a crash left is cleared first, so that an output it was about to replace is there again.

    Raises:
        ExistsError: one of these, or --overwrite of something that is no output of this format.
    """
    clear_unfinished(path)
    if isinstance(volume.path, Path):
        here, there = path.resolve(), volume.path.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise ExistsError(
                f"a volume and its export must be apart, one lies in the other:\n{there}\n{here}"
            )
    if not path.exists():
        return
    if not overwrite:
        raise ExistsError(
            f"there is already something at {path}\nChoose another name, or --overwrite it."
        )
    if not is_output(path, form):
        raise ExistsError(
            f"--overwrite replaces what `pea export` wrote as {form}, this is something else: "
            f"{path}\nRemove it yourself."
        )


def is_output(path: Path, form: Format) -> bool:
    """Whether something looks like an output of a format."""
    match form:
        case Format.PRECOMPUTED:
            return (path / "info").is_file()
        case Format.N5:
            return (path / "attributes.json").is_file()
        case Format.SECTIONS:
            names = [entry.name for entry in path.iterdir()] if path.is_dir() else [""]
            return all(name.startswith("z") and name.endswith(".tif") for name in names)
        case _:
            return path.is_file()

"""Commands that bring volumes in, take them out and compare them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.errors import ConfigError, PipelineError
from pipeline.geometry import Nm
from workers.cli.options import Runs, console, notes
from workers.score_table import convention_lines, object_lines, score_line

MAX_BORDER_NM = 1000
"""As ``run.evaluate.border_nm``."""


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="HDF5, TIFF, a folder of TIFF or PNG; Zarr, N5 or Neuroglancer precomputed, also "
            "their URL: s3://, gs://, http(s)://."
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST.zarr/NAME", help="The volume to make.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(help="Which array of HDF5, Zarr or N5; which scale of precomputed."),
    ] = None,
    kind: Annotated[
        Literal["raw", "labels", "mask", "affinities", "boundary", "interior"] | None,
        typer.Option(
            "--as", help="What the values are. Boundary and interior maps become affinities."
        ),
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Of the source, in nm.")
    ] = None,
    offset: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Of the first plane taken, in nm.")
    ] = None,
    planes: Annotated[
        str | None,
        typer.Option(
            metavar="START:STOP:STEP",
            help="Some planes only, as 0:100; every third is 0::3, and makes voxels thicker.",
        ),
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Label to map to 0; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Bring a volume of your own into Zarr, with its voxel size."""
    from pipeline.ingest import Planes
    from pipeline.ingest import ingest as bring_in
    from pipeline.location import location
    from workers.progress import progress_line
    from workers.runner import Progress

    with ExitStack() as shown:
        update: list[Progress] = []

        def progress(done: int, total: int) -> None:
            if not update:
                line = progress_line(notes, "ingest", 0, total, "planes")
                update.append(shown.enter_context(line))
            update[0](done, 0)

        report = bring_in(
            location(source),
            destination,
            dataset=dataset,
            kind=kind,
            voxel_size=lengths(voxel_size, "--voxel-size"),
            offset=lengths(offset, "--offset"),
            background=[label(text) for text in background or ()],
            planes=Planes() if planes is None else Planes.of(planes),
            overwrite=overwrite,
            progress=progress,
        )
    for line in report.lines():
        console.print(line)


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|VOLUME", help="A run file or run directory, or a Zarr volume or its URL."
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file or folder to write.")],
    volume: Annotated[
        str | None,
        typer.Option(help="Of a run: fragments, affinities, raw, ...; segmentation if omitted."),
    ] = None,
    form: Annotated[
        Literal["cremi", "snemi3d", "tiff", "sections", "precomputed", "n5"] | None,
        typer.Option("--format", help="Instead of what OUT's suffix tells; .h5 is cremi."),
    ] = None,
    roi: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="A part: begin and end in nm.")
    ] = None,
    dtype: Annotated[
        Literal["uint16", "uint32", "uint64"] | None, typer.Option(help="Of labels.")
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Number labels 1, 2, ... in the order of their ids.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Write a volume for another program: HDF5, TIFF, N5, Neuroglancer precomputed."""
    from pipeline.export import export as write_out
    from pipeline.export import format_of
    from workers.export import named_volume, region_of
    from workers.progress import progress_line

    chosen = format_of(output, form)
    found = named_volume(what, volume, runs)
    region = region_of(found, roi)
    with progress_line(notes, "export", 0, 100, "%") as line:
        cut = write_out(
            found,
            output,
            chosen,
            roi=region,
            dtype=dtype,
            dense=dense,
            overwrite=overwrite,
            progress=lambda done, total: line(100 * done // total, 0),
        )
    console.print(
        f"wrote {output}, as {chosen}: {cut.meaning}, shape {cut.shape}, {cut.dtype}, "
        f"voxel size {cut.voxel_size_nm} nm, offset {cut.offset_nm} nm"
    )
    if chosen in ("tiff", "sections") and any(cut.offset_nm):
        console.print("TIFF holds no offset: to ingest it again, give this one as --offset")


def evaluate(
    segmentation: Annotated[Path, typer.Argument(metavar="SEG", help="A Zarr array of labels.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Another; 0 is unknown.")],
    border: Annotated[
        float,
        typer.Option(
            metavar="NM", help="Leave out voxels that near to another true object in their section."
        ),
    ] = 0.0,
    objects: Annotated[
        bool, typer.Option("--objects", help="Say where the worst splits and merges are.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: all conventions defined, the worst objects.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that count large volumes; the CPUs at hand."),
    ] = None,
) -> None:
    """Score a segmentation by several conventions; the first is scikit-image, truth 0 ignored."""
    from workers.score import cpus_at_hand, score_volumes

    if not 0 <= border <= MAX_BORDER_NM:
        raise ConfigError(f"--border must be 0 to {MAX_BORDER_NM} nm, found {border:g}")
    scores = score_volumes(segmentation, truth, border, workers or cpus_at_hand(), notes)
    if as_json:
        console.print(json.dumps(scores, indent=2))
        return
    console.print(score_line(scores))
    for line in convention_lines(scores["conventions"]):
        console.print(line)
    for line in object_lines(scores) if objects else ():
        console.print(line)


def lengths(text: str | None, option: str) -> Nm | None:
    """Three lengths from ``Z,Y,X``."""
    if text is None:
        return None
    try:
        return Nm.of(text.split(","))
    except PipelineError as error:
        raise ConfigError(f"{option}: {error}") from None


def label(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**64:
        raise ConfigError(f"--background must be a label from 0 to 2^64 - 1, found {text!r}")
    return int(text)

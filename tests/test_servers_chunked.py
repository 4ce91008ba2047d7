"""N5 and Neuroglancer precomputed on servers, also such as refuse, fail or die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import FormatError, NotFoundError, PipelineError
from pipeline.export.export import export
from pipeline.export.formats import Format
from pipeline.geometry import ZYX
from pipeline.ingest import ingest
from pipeline.location import Location, location
from pipeline.volume import Volume
from tests.drawn import SHAPE, drawn_affinities, drawn_labels, write_volume
from tests.served import Fault, buckets_at, served

FILES = ("labels.n5", "labels.precomputed", "affinities.n5", "affinities.precomputed")
KINDS = {"n5": Format.N5, "precomputed": Format.PRECOMPUTED}
SCHEMES = ("http", "s3", "gs")
SHARD = ZYX(4, 64, 64)
"""Voxels are read and written in three slabs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served: labels and affinities, in Zarr and as exported from there."""
    root = tmp_path_factory.mktemp("served")
    labels = drawn_labels(SHAPE)
    for name, data in {"labels": labels, "affinities": drawn_affinities(labels)}.items():
        volume = write_volume(root / "bucket" / "data.zarr" / name, data, name)
        for suffix, form in KINDS.items():
            export(volume, root / "bucket" / f"{name}.{suffix}", form)
    return root


class Server:
    """A server whose faults are chosen while it runs."""

    def __init__(self) -> None:
        self.fault: Callable[[str], Fault | None] = lambda path: None
        self.asked: list[str] = []
        self.address = ""

    def answer(self, path: str) -> Fault | None:
        self.asked.append(path)
        return self.fault(path)

    def url(self, scheme: str, name: str, bucket: str = "bucket") -> Location:
        base = self.address if scheme == "http" else f"{scheme}:/"
        return location(f"{base}/{bucket}/{name}")


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr("pipeline.location.RETRIES", {"max_retries": 1})
    monkeypatch.setattr("pipeline.ingest.stores.RETRIES", {"max_retries": 1})
    with served(folder, made.answer) as address:
        made.address = address
        for name, value in buckets_at(address, folder).items():
            monkeypatch.setenv(name, value)
        yield made


every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_fault_of = pytest.mark.parametrize(
    "scheme", ["http", "s3", pytest.param("gs", marks=pytest.mark.slow)]
)
every_file = pytest.mark.parametrize("name", FILES)
every_array = pytest.mark.parametrize("name", [*FILES, "data.zarr/labels"])


@every_scheme
@every_file
def test_what_is_ingested_from_a_server_is_what_lies_on_the_disk(
    server: Server, folder: Path, tmp_path: Path, scheme: str, name: str
) -> None:
    kind = name.partition(".")[0]
    there = ingest(server.url(scheme, name), tmp_path / "out.zarr" / "there", kind=kind)
    here = ingest(folder / "bucket" / name, tmp_path / "out.zarr" / "here", kind=kind)
    assert (there.content_digest, there.spec) == (here.content_digest, here.spec)
    original = Volume.open(folder / "bucket" / "data.zarr" / kind)
    found = Volume.open(there.destination)
    assert found.roi == original.roi
    assert np.array_equal(found.read(found.roi), original.read(original.roi))


@every_scheme
def test_a_name_without_a_suffix_is_told_by_what_lies_there(
    server: Server, folder: Path, tmp_path: Path, scheme: str
) -> None:
    for suffix in KINDS:
        link = folder / "bucket" / f"plain-{suffix}"
        if not link.exists():
            link.symlink_to(folder / "bucket" / f"labels.{suffix}")
        report = ingest(
            server.url(scheme, link.name), tmp_path / "out.zarr" / suffix, kind="labels"
        )
        assert report.spec.shape == SHAPE


@every_scheme
@every_file
@pytest.mark.parametrize("where", ["bucket", "key", "data set"])
def test_what_is_not_there_is_said(
    server: Server, tmp_path: Path, scheme: str, name: str, where: str
) -> None:
    bucket, dataset = ("other" if where == "bucket" else "bucket"), None
    if where == "key":
        name = f"no-{name}"
    elif where == "data set":
        dataset = "nothing"
    place = server.url(scheme, name, bucket)
    with pytest.raises(NotFoundError) as caught:
        ingest(place, tmp_path / "out.zarr" / "labels", dataset=dataset)
    assert str(place) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def chunks(path: str) -> bool:
    """Whether a request is for voxels."""
    return not path.endswith((".json", "info", ".zarray", ".zgroup"))


@every_fault_of
@pytest.mark.parametrize("fault", ["refuse", "fail", "cut"])
@every_array
def test_a_server_that_fails_halfway_leaves_nothing(
    server: Server, tmp_path: Path, scheme: str, name: str, fault: Fault
) -> None:
    """Metadata and the first planes come; then no voxels come as they should any more."""

    def written(done: int, total: int) -> None:
        assert done < total
        server.fault = lambda path: fault if chunks(path) else None

    place = server.url(scheme, name)
    with pytest.raises(PipelineError, match="server") as caught:
        ingest(place, tmp_path / "out.zarr" / "labels", shard_vx=SHARD, progress=written)
    assert str(place) in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@every_fault_of
@pytest.mark.parametrize("fault", ["fail", "cut"])
@every_array
def test_a_server_that_fails_from_the_start_is_said(
    server: Server, tmp_path: Path, scheme: str, name: str, fault: Fault
) -> None:
    server.fault = lambda path: fault
    place = server.url(scheme, name)
    with pytest.raises(PipelineError, match=r"cannot be read"):
        ingest(place, tmp_path / "out.zarr" / "labels")
    assert list(tmp_path.iterdir()) == []


@every_scheme
def test_a_request_that_fails_once_is_tried_again(
    server: Server, folder: Path, tmp_path: Path, scheme: str
) -> None:
    failed: set[str] = set()

    def once(path: str) -> Fault | None:
        if path in failed or not chunks(path):
            return None
        failed.add(path)
        return "fail"

    server.fault = once
    report = ingest(server.url(scheme, "labels.n5"), tmp_path / "out.zarr" / "labels")
    found = Volume.open(report.destination)
    original = Volume.open(folder / "bucket" / "data.zarr" / "labels")
    assert failed
    assert np.array_equal(found.read(found.roi), original.read(original.roi))


def test_files_that_a_bucket_will_not_tell_of_are_not_there(server: Server, tmp_path: Path) -> None:
    """S3 answers 403 for what is not there, to all who may not list the bucket."""
    server.fault = lambda path: "refuse" if ".z" in path or "zarr.json" in path else None
    for name in FILES[:2]:
        report = ingest(server.url("s3", name), tmp_path / "out.zarr" / name, kind="labels")
        assert report.spec.shape == SHAPE


def test_a_server_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("location", "ingest.stores"):
        monkeypatch.setattr(f"pipeline.{module}.RETRIES", {"max_retries": 1})
    for name in FILES[:2]:
        with pytest.raises(PipelineError, match="cannot be read"):
            ingest(location(f"http://127.0.0.1:1/{name}"), tmp_path / "out.zarr" / "raw")
    assert list(tmp_path.iterdir()) == []


def test_damaged_voxels_on_a_server_are_an_error(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    files = [path for path in (folder / "bucket/labels.n5").rglob("*") if path.is_file()]
    (chunk,) = (path for path in files if chunks(path.name))
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(FormatError, match="or it is damaged"):
            ingest(server.url("http", "labels.n5"), tmp_path / "out.zarr" / "labels")
    finally:
        chunk.write_bytes(whole)
    assert not (tmp_path / "out.zarr").exists()

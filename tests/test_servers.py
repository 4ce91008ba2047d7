"""Arrays on servers: read by runs and by ingest as those on a disk; and never written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.content import content_fingerprint
from pipeline.errors import ConfigError, DataError, NotFoundError, PipelineError
from pipeline.geometry import Roi
from pipeline.ingest import ingest
from pipeline.location import Url, local, location
from pipeline.volume import Volume
from tests.drawn import PEA, results, run_tree, set_at, write_inputs, write_run
from tests.served import buckets_at, served
from tests.tried import Tried, same
from workers import cli

SERVERS = ("s3://bucket", "gs://bucket", "http")
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served; ``bucket`` holds inputs with the digests of ingest, ``bare`` without."""
    root = tmp_path_factory.mktemp("served")
    write_inputs(root / "bucket", digest="as ingested")
    write_inputs(root / "bare")
    return root


@pytest.fixture(params=SERVERS)
def server(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of the bucket."""
    with served(folder) as address:
        for name, value in buckets_at(address, folder).items():
            monkeypatch.setenv(name, value)
        yield f"{address}/bucket" if request.param == "http" else request.param


def test_a_volume_on_a_server_is_the_one_on_the_disk(server: str, folder: Path) -> None:
    for name in ("affinities", "labels"):
        there = Volume.open(location(f"{server}/data.zarr/{name}"))
        here = Volume.open(folder / "bucket" / "data.zarr" / name)
        assert there.spec == here.spec
        assert there.attributes == here.attributes
        part = Roi((3, 5, 7), (7, 30, 33))
        assert np.array_equal(there.read(part), here.read(part))
        assert content_fingerprint(there, folder) == content_fingerprint(here, folder)


@pytest.mark.parametrize("runner", ["serial", pytest.param("daisy", marks=pytest.mark.slow)])
def test_a_run_reads_its_inputs_from_a_server(
    server: str, runner: str, tmp_path: Path, template: tuple[Path, dict[str, str]]
) -> None:
    """Bit for bit what it makes of arrays on a disk; the workers of daisy open it themselves."""
    tree = run_tree(Path("unused"), runner=runner)
    for name in ("affinities", "labels"):
        set_at(tree, f"run.data.{name}", f"{server}/data.zarr/{name}")
    path = write_run(tmp_path / "run.yaml", tree)
    assert cli.main(["run", "all", str(path), "--runs", str(tmp_path / "runs")]) == 0
    found = results(tmp_path / "runs" / "small")
    same(found, template[1])


def test_zarr_is_ingested_from_a_server(server: str, folder: Path, tmp_path: Path) -> None:
    there = location(f"{server}/data.zarr")
    report = ingest(there, tmp_path / "out.zarr" / "labels", dataset="labels")
    here = ingest(folder / "bucket" / "data.zarr", tmp_path / "out.zarr" / "same", dataset="labels")
    assert (report.content_digest, report.spec) == (here.content_digest, here.spec)
    assert report.warnings == ()


def test_what_is_not_there_is_said(server: str, tmp_path: Path) -> None:
    for name in ("data.zarr/none", "none.zarr"):
        with pytest.raises(NotFoundError, match=f"no volume at .*{name}"):
            Volume.open(location(f"{server}/{name}"))
    with pytest.raises(NotFoundError, match="no Zarr, N5 or precomputed volume"):
        ingest(location(f"{server}/none"), tmp_path / "out.zarr" / "raw")
    assert list(tmp_path.iterdir()) == []


def test_a_lost_chunk_on_a_server_is_an_error(server: str, folder: Path, tmp_path: Path) -> None:
    volume = Volume.open(location(f"{server}/data.zarr/mask"))
    shard = folder / "bucket" / "data.zarr" / "mask" / "s0" / "c" / "0" / "0" / "0"
    kept = shard.rename(tmp_path / "kept")
    try:
        with pytest.raises(DataError, match=r"damaged or missing chunk in .*mask"):
            volume.read(volume.roi)
    finally:
        kept.rename(shard)


def test_a_server_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.location.RETRIES", {"max_retries": 0})
    with pytest.raises(PipelineError, match="cannot be read"):
        Volume.open(location("http://127.0.0.1:1/data.zarr"))


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_content_in_a_bucket_is_told_by_its_entity_tags(
    scheme: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(folder) as address:
        for name, value in buckets_at(address, folder).items():
            monkeypatch.setenv(name, value)
        raw, labels = (
            Volume.open(location(f"{scheme}://bare/data.zarr/{name}"))
            for name in ("affinities", "labels")
        )
        one = content_fingerprint(labels, tmp_path)
        assert one == content_fingerprint(labels, tmp_path)
        assert one != content_fingerprint(raw, tmp_path)
        file = folder / "bare" / "data.zarr" / "labels" / "s0" / "c" / "0" / "0" / "0"
        content = file.read_bytes()
        file.write_bytes(content[::-1])
        assert one != content_fingerprint(labels, tmp_path)
        file.write_bytes(content)


def test_content_on_a_web_server_must_be_told(folder: Path, tmp_path: Path) -> None:
    with served(folder) as address:
        volume = Volume.open(location(f"{address}/bare/data.zarr/labels"))
        with pytest.raises(DataError, match="content_digest"):
            content_fingerprint(volume, tmp_path)


@pytest.mark.parametrize(
    "text",
    ["ftp://host/a", "s3://", "https://host/a?key=1", "s3://key:secret@bucket/a", "file:///a"],
)
def test_a_url_is_refused_if_it_is_none_of_ours(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        location(text)
    assert "secret" not in str(caught.value)


def test_a_url_is_a_place_like_a_path() -> None:
    url = location("s3://bucket/a/b.zarr/")
    assert isinstance(url, Url)
    assert str(url) == "s3://bucket/a/b.zarr"
    assert str(url / "raw") == "s3://bucket/a/b.zarr/raw"
    assert url.parent == location("s3://bucket/a")
    assert str(location("https://host")) == "https://host"
    assert location("a/b.zarr") == Path("a/b.zarr")


@pytest.mark.parametrize("path", ["s3://bucket/runs", "https://host/out.zarr/raw"])
def test_nothing_is_written_to_a_server(path: str, tried: Tried, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output must go to a file system"):
        local(Path(path))
    assert cli.main(["run", "all", *tried.words()[2:3], "--runs", path]) == 1
    assert tried.capsys is not None
    assert "output must go to a file system" in tried.capsys.readouterr().err
    labels = str(tried.data / "labels")
    assert cli.main(["ingest", labels, f"{path}/x.zarr/raw"]) == 1
    assert "output must go to a file system" in tried.capsys.readouterr().err
    assert not (Path.cwd() / "s3:").exists()


def test_a_run_on_a_disk_loads_no_client_of_servers(tried: Tried) -> None:
    program = (
        "import sys; from workers.cli import main; status = main(sys.argv[1:]);"
        "print([m for m in ('obstore', 'tensorstore') if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [PEA[0], "-c", program, *tried.words("plan", None)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"

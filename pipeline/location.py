"""Where arrays lie: in a folder, or on a server. The one place that opens a Zarr store.

A server is named by a URL: ``s3://bucket/key``, ``gs://bucket/key``, ``https://host/path``. It is
read through obstore, and never written: what a run writes needs locks and renames, which object
stores do not have. Credentials, region and endpoint come from the environment (``AWS_*``,
``GOOGLE_*``; ``AWS_SKIP_SIGNATURE=true`` for public buckets), never from a run file.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, DataError, PipelineError, first_line

SCHEMES = ("s3", "gs", "http", "https")
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/")
RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}


@dataclass(frozen=True)
class Url:
    """A place on a server, with the few operations of a ``Path`` that arrays need."""

    server: str
    """Such as ``s3://bucket``."""
    path: PurePosixPath

    def __str__(self) -> str:
        return f"{self.server}/{self.path}".removesuffix("/.")

    def __truediv__(self, part: str) -> Url:
        return Url(self.server, self.path / part)

    @property
    def parent(self) -> Url:
        return Url(self.server, self.path.parent)

    @property
    def name(self) -> str:
        return self.path.name


Location = Path | Url


def location(text: str) -> Location:
    """A place from its text.

    Raises:
        ConfigError: a URL of another scheme, without a server, or with credentials or a query.
    """
    scheme = SCHEME.match(text)
    if scheme is None:
        return Path(text)
    url = urlsplit(text)
    if url.scheme not in SCHEMES or not url.netloc or url.query or url.fragment:
        raise ConfigError(
            f"a URL must be {', '.join(f'{s}://...' for s in SCHEMES)}, without a query; "
            f"found {text.partition('?')[0]!r}"
        )
    if "@" in url.netloc:
        raise ConfigError(
            f"a URL must not hold credentials, found some for {url.hostname}\n"
            "Set them in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "GOOGLE_APPLICATION_CREDENTIALS."
        )
    return Url(f"{url.scheme}://{url.netloc}", PurePosixPath(url.path.strip("/")))


def local(path: Path) -> Path:
    """A path to write to.

    Raises:
        ConfigError: it is the URL of a server.
    """
    if SCHEME.match(str(path)):
        raise ConfigError(
            f"output must go to a file system, where files can be locked and renamed; found {path}"
            "\nWrite it to a disk, then copy it to the server."
        )
    return path


def zarr_store(place: Location) -> Any:
    """What zarr opens: a path as it is, a URL through obstore, read-only.

    Raises:
        ConfigError: obstore is not installed.
    """
    if isinstance(place, Path):
        return place
    from zarr.storage import ObjectStore

    return ObjectStore(_object_store(place), read_only=True)


def server_errors(place: Location) -> tuple[type[Exception], ...]:
    """What is raised when a server cannot be read; nothing of a path."""
    return () if isinstance(place, Path) else (_obstore().exceptions.BaseError,)


def has_file(place: Location, name: str) -> bool:
    """Whether there is a file of this name in a folder.

    S3 refuses what is not there to those who may not list the bucket, so that counts as not there.

    Raises:
        PipelineError: the server does not answer, or fails.
    """
    if isinstance(place, Path):
        return (place / name).is_file()
    try:
        _obstore().head(_object_store(place), name)
    except (FileNotFoundError, _obstore().exceptions.PermissionDeniedError):
        return False
    except server_errors(place) as error:
        raise PipelineError(f"{place / name} cannot be read: {first_line(error)}") from error
    return True


def listing(url: Url) -> list[str]:
    """Names, sizes and entity tags of the files below a URL, in order.

    Raises:
        DataError: a server that has no lists of files, such as any of http.
    """
    if url.server.startswith("http"):
        raise DataError(
            f"what an array on a web server holds is told by its attribute content_digest, which "
            f"this has not: {url}\nIngest it: pea ingest {url} DEST.zarr/NAME"
        )
    try:
        found = [file for page in _obstore().list(_object_store(url)) for file in page]
    except server_errors(url) as error:
        raise DataError(f"files of {url} cannot be listed: {first_line(error)}") from error
    return sorted(f"{file['path']} {file['size']} {file['e_tag']}" for file in found)


def _object_store(url: Url) -> Any:
    # Of buckets None: any options here would hide those of the environment.
    plain = {"allow_http": True} if url.server.startswith("http:") else None
    return _obstore().store.from_url(str(url), client_options=plain, retry_config=RETRIES)


def _obstore() -> Any:
    return needed("obstore", "arrays on a server")


def needed(name: str, purpose: str, extra: str = "formats") -> Any:
    """A library of one of the extras in ``pyproject.toml``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"{purpose} need {name}, which is not installed\n"
            f"Install it: pip install 'pea-connectomics[{extra}]'"
        ) from None

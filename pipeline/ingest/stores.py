"""How tensorstore is told where files lie, and how long it tries.

It has clients of its own. What the environment says to the one that reads Zarr, obstore, is handed
on: an endpoint and a region of S3, and whether requests are signed.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError
from pipeline.ingest.sources import reading
from pipeline.location import RETRIES, Location, Url, needed

DEFAULT_REGION = "us-east-1"


def opened(driver: str, place: Location, **options: Any) -> Any:
    """A tensorstore, to read."""
    spec = {"driver": driver, "kvstore": kvstore(place), **options}
    return _tensorstore().open(spec, open=True, read=True, context=_context()).result()


def read_json(folder: Location, name: str) -> dict[str, Any] | None:
    """A JSON object in a folder, its numbers exact; None if there is no such file.

    Raises:
        FormatError: it cannot be read, or is no object.
    """
    where = f"{folder}/{name}"
    with reading(where):
        store = _tensorstore().KvStore.open(kvstore(folder), context=_context()).result()
        found = store.read(name).result()
        if found.state != "value":
            return None
        value = json.loads(found.value, parse_float=Decimal)
    if not isinstance(value, dict):
        raise FormatError(f"{where} must hold a JSON object, found {type(value).__name__}")
    return value


def kvstore(place: Location) -> dict[str, Any] | str:
    """What tensorstore calls a folder."""
    if isinstance(place, Path):
        return {"driver": "file", "path": f"{place.resolve()}/"}
    if place.server.startswith("s3:"):
        return _s3(place)
    return f"{place}/"


def _s3(url: Url) -> dict[str, Any]:
    said = os.environ
    spec: dict[str, Any] = {
        "driver": "s3",
        "bucket": url.server.removeprefix("s3://"),
        "path": f"{url.path}/",
    }
    region = said.get("AWS_REGION") or said.get("AWS_DEFAULT_REGION")
    endpoint = said.get("AWS_ENDPOINT_URL") or said.get("AWS_ENDPOINT")
    if endpoint:
        spec["endpoint"] = endpoint
    if region or endpoint:
        spec["aws_region"] = region or DEFAULT_REGION
    if said.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1", "yes", "on"):
        spec["aws_credentials"] = {"type": "anonymous"}
    return spec


def _context() -> Any:
    """Limits of trying again, as for Zarr: by default it is half an hour."""
    retries = {"max_retries": RETRIES["max_retries"], "initial_delay": "100ms", "max_delay": "10s"}
    kinds = ("http", "s3", "gcs")
    return _tensorstore().Context({f"{kind}_request_retries": retries for kind in kinds})


def _tensorstore() -> Any:
    return needed("tensorstore", "N5 and precomputed")

"""A web server over a folder, which answers readers as S3, Google's storage and plain HTTP do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

Fault = Literal["refuse", "fail", "cut"]
"""Answers 403 or 500, or breaks off in the middle of the content."""
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
LISTED = """<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>false</IsTruncated>
{}</ListBucketResult>"""
ENTRY = """<Contents><Key>{}</Key><Size>{}</Size><ETag>"{}"</ETag>
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"""


GOOGLE = re.compile(r"/storage/v1/b/([^/]+)/o/(.+)")
"""How Google's own interface names a file of a bucket."""


class Handler(SimpleHTTPRequestHandler):
    """GET and HEAD of files, whole or in part; the list of a bucket."""

    protocol_version = "HTTP/1.1"

    def __init__(
        self, *args: Any, fault: Callable[[str], Fault | None] = lambda path: None, **kwargs: Any
    ) -> None:
        self.fault = fault
        super().__init__(*args, **kwargs)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if (named := GOOGLE.fullmatch(path)) is not None:
            path = f"/{named[1]}/{unquote(named[2])}"
        self.fails = self.fault(unquote(path))
        if self.fails in ("refuse", "fail"):
            self.answer(403 if self.fails == "refuse" else 500, b"")
            return
        if "list-type=2" in query:
            self.answer(200, self.listed(Path(self.translate_path(path))))
            return
        file = Path(self.translate_path(path))
        if not file.is_file():
            self.answer(404, b"")
            return
        data, wanted = file.read_bytes(), RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, data)
            return
        first, last = wanted.groups()
        size = len(data)
        begin = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        self.answer(206, data[begin:end], f"bytes {begin}-{end - 1}/{size}")

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, data: bytes, part: str | None = None) -> None:
        self.send_response(status)
        if part is not None:
            self.send_header("Content-Range", part)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"one"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if self.fails == "cut" else data)
        self.close_connection = self.fails == "cut"

    def listed(self, bucket: Path) -> bytes:
        entries = [
            ENTRY.format(file.relative_to(bucket), file.stat().st_size, tag(file.read_bytes()))
            for file in sorted(bucket.rglob("*"))
            if file.is_file()
        ]
        return LISTED.format("\n".join(entries)).encode()


def tag(content: bytes) -> str:
    return md5(content, usedforsecurity=False).hexdigest()


@contextmanager
def served(folder: Path, fault: Callable[[str], Fault | None] = lambda path: None) -> Iterator[str]:
    """A server over a folder; its address.

    Args:
        fault: what goes wrong with the path of a request.
    """
    handler = partial(Handler, directory=str(folder), fault=fault)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def buckets_at(address: str, folder: Path) -> dict[str, str]:
    """The environment in which ``s3://`` and ``gs://`` mean a server, whose folders are buckets."""
    account = folder / "account.json"
    fields = {"client_email": "", "private_key": "", "private_key_id": ""}
    account.write_text(json.dumps({**fields, "gcs_base_url": address, "disable_oauth": True}))
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "us-east-1",
        "GOOGLE_SERVICE_ACCOUNT": str(account),
        "TENSORSTORE_GCS_HTTP_URL": address,
    }

"""A run in the browser: Neuroglancer, its client and the run's files from one local server."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

from rich.console import Console
from tornado.web import StaticFileHandler

from pipeline.errors import ConfigError
from pipeline.location import Location, needed
from workers.scene import Scene

LOOPBACK = "127.0.0.1"


class Files(StaticFileHandler):
    """Files of one folder, whole or by ranges of bytes, for pages of the same server."""

    def compute_etag(self) -> str:
        # Tornado would read the whole file, for each range of it.
        found = Path(str(self.absolute_path)).stat()
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

    def set_extra_headers(self, path: str) -> None:
        # A run that goes on, or is run again, writes the same files anew.
        self.set_header("Cache-Control", "no-cache")


@contextmanager
def served(scene: Scene, port: int) -> Iterator[Any]:
    """Serve a scene to this computer, to whoever knows the address, which holds a secret.

    Args:
        port: 0 takes any that is free.

    Yields:
        The ``neuroglancer.Viewer``; as text it is its address.

    Raises:
        ConfigError: the port is taken, or neuroglancer is not installed.
    """
    library = needed("neuroglancer", "views", "view")
    try:
        # Tornado would leave the socket open.
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise ConfigError(
            f"--port {port} cannot be listened at: {error.strerror}\nTake another, or none."
        ) from error
    library.set_server_bind_address(LOOPBACK, port)
    viewer = library.Viewer(allow_credentials=False)
    try:
        mount(library.server.global_server.app, viewer.token, scene.folders)
        root = f"{library.server.get_server_url()}/files/{viewer.token}"
        viewer.set_state(
            scene.state(
                lambda name, place: f"{root}/{name}" if isinstance(place, Path) else str(place)
            )
        )
        yield viewer
    finally:
        library.stop()


def mount(app: Any, secret: str, folders: Mapping[str, Path]) -> None:
    """Let a Tornado application serve some folders, and nothing beside them."""
    app.add_handlers(
        r".*",
        [
            (rf"/files/{secret}/{name}/(.*)", Files, {"path": str(folder.resolve())})
            for name, folder in folders.items()
        ],
    )


def view(scene: Scene, port: int, browser: bool, console: Console) -> None:
    """Show a scene until Ctrl-C."""
    with served(scene, port) as viewer:
        console.print(f"{viewer}\nCtrl-C ends it")
        if browser:
            webbrowser.open(str(viewer))
        try:
            Event().wait()
        except KeyboardInterrupt:
            console.print("ended")


def link(scene: Scene, base: str) -> str:
    """An address that shows a scene to others, by the public client of Neuroglancer.

    Args:
        base: the URL at which the current folder is served, to pages of other servers too (CORS).

    Raises:
        ConfigError: not a URL, or something shown lies outside the current folder.
    """
    library = needed("neuroglancer", "views", "view")
    if not base.startswith(("http://", "https://", "s3://", "gs://")):
        raise ConfigError(f"--link must be a URL, as https://host/path; found {base!r}")
    here = Path.cwd()

    def address(name: str, place: Location) -> str:
        if not isinstance(place, Path):
            return str(place)
        if not place.resolve().is_relative_to(here):
            raise ConfigError(
                f"a link needs all data below the current folder, which --link is the URL of\n"
                f"{name} is not: {place}"
            )
        return f"{base.rstrip('/')}/{quote(place.resolve().relative_to(here).as_posix())}"

    return str(library.to_url(scene.state(address)))

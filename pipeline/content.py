"""What an input array holds, as a fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipeline.location import listing
from pipeline.rundir import write_json
from pipeline.volume import Volume


def content_fingerprint(volume: Volume, cache: Path) -> str:
    """Equal for equal content, different for different content, whenever and wherever it was made.

    Arrays made here carry it: ingest notes a digest of the voxels, a stage its own fingerprint. Of
    any other array the files are read once; the result is kept in ``inputs.json`` of the run, for
    as long as the names, sizes and times of the files stay as they are. Of one in a bucket the
    entity tags are taken, which its server changes with every file.

    Args:
        volume: the array.
        cache: the run directory; nothing is kept if it does not exist yet.

    Raises:
        DataError: an array on a web server that does not carry it.
    """
    spec = volume.spec
    place = f"{spec.shape} {spec.dtype} {spec.voxel_size_nm} {spec.offset_nm}"
    made_here = volume.attributes.get("content_digest") or volume.attributes.get("fingerprint")
    if made_here:
        return _digest(f"{made_here} {place}".encode())
    if not isinstance(volume.path, Path):
        return _digest("\n".join([place, *listing(volume.path)]).encode())
    files = sorted(path for path in volume.path.rglob("*") if path.is_file())
    states = [
        f"{path.relative_to(volume.path)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in files
    ]
    key, state = str(volume.path.resolve()), _digest("\n".join(states).encode())
    known = _read(cache / "inputs.json")
    if known.get(key, [None])[0] != state:
        content = hashlib.sha256()
        for path in files:
            content.update(str(path.relative_to(volume.path)).encode())
            with path.open("rb") as file:
                content.update(hashlib.file_digest(file, "sha256").digest())
        known[key] = [state, content.hexdigest()]
        if cache.is_dir():
            write_json(cache / "inputs.json", known)
    return _digest(f"{known[key][1]} {place}".encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _read(path: Path) -> dict[str, list[str]]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}

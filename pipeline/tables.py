"""Tables on disk: named columns in one file, written whole or not at all.

The file is an uncompressed npz archive: NumPy reads it anywhere, and the CRC-32 of each member
makes a damaged column an error.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, NotFoundError

Columns = dict[str, np.ndarray]
BYTES_AT_ONCE = 1 << 20


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of any lengths, replacing what was there in one step."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **columns)


def read_table(path: Path) -> Columns:
    """The columns of a file.

    Raises:
        NotFoundError: no such file; DataError: it is damaged.
    """
    with _damage_told(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): _column(archive, name) for name in archive.namelist()}


def mapped_table(path: Path) -> Columns:
    """The columns of a file, read-only and mapped: what is not looked at takes no memory.

    The checksums are compared first, a piece at a time. Columns need not be aligned.

    Raises:
        NotFoundError, DataError: as of ``read_table``.
    """
    with _damage_told(path), zipfile.ZipFile(path) as archive:
        return {
            member.filename.removesuffix(".npy"): _mapped(path, archive, member)
            for member in archive.infolist()
        }


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"no table at {path}\nRun the stage that writes it again.") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ValueError,
        LookupError,
        EOFError,
        OSError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"damaged table {path}: {type(error).__name__}: {error}\n"
            "Make it again: `pea drop STAGE RUN.yaml`, then `pea run`."
        ) from error


def _column(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # All bytes first: a damaged header may promise fewer, and the CRC is compared at the last one.
    return np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)


def _mapped(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        while file.read(BYTES_AT_ONCE):  # the CRC is compared at the last one
            pass
    with path.open("rb") as file:
        file.seek(member.header_offset)
        # Lengths of name and extra field are at the end of a local header.
        *_, name_bytes, extra_bytes = struct.unpack("<26sHH", file.read(30))
        file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
        if version != (1, 0) or (in_columns and len(shape) > 1):
            raise ValueError(f"column {member.filename} cannot be mapped")
        begin = file.tell()
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", begin, shape)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one in each line; one torn by a crash does not count."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            continue
    return rows


class replacing:  # noqa: N801 - reads as the verb it is: with replacing(path) as partial
    """Write to a file beside ``path``; it takes the place of ``path`` when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.partial.unlink(missing_ok=True)
            return
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        self.partial.replace(self.path)

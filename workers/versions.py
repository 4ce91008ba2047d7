"""The versions that decide what a run does, found out without importing what they are of."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.extensions import extension_versions
from pipeline.hardware import gpu_model

SHOWN = ("zarr", "daisy", "dask", "distributed", "bioimage-cpp", "numpy", "numba")
OPTIONAL = ("obstore", "tensorstore", "waterz")
CUDA = re.compile(r"^cuda\b.*= *'([\d.]+)'", re.MULTILINE)


def version_lines() -> Iterator[str]:
    """A line for each: name and version."""
    yield f"pea {version_of('pea-connectomics')}"
    yield f"python {platform.python_version()}"
    yield f"torch {version_of('torch')}, CUDA {cuda_of_torch() or 'none'}, {gpu_model()}"
    for name in SHOWN:
        yield f"{name} {version_of(name) or 'not installed'}"
    for name in OPTIONAL:
        if version_of(name) is not None:
            yield f"{name} {version_of(name)}"
    for name, version in extension_versions().items():
        yield f"{name} {version}, an extension"


def version_of(distribution: str) -> str | None:
    """Of a distribution, as it is installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cuda_of_torch() -> str | None:
    """The CUDA that torch was built for, as its file of versions says."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    said = CUDA.search((Path(found.origin).parent / "version.py").read_text())
    return said.group(1) if said else None

"""OME-NGFF multiscale metadata: the levels of a volume, their voxel sizes and places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.geometry import Nm

AXES = ("z", "y", "x")


def multiscales(name: str, channel: bool, levels: Mapping[str, tuple[Nm, Nm]]) -> dict[str, Any]:
    """OME-NGFF 0.5 metadata of a group.

    Args:
        levels: path of each level, with its voxel size and the place of its first voxel's lower
            corner in nm. NGFF places voxel centres, hence the half voxel between levels.
    """
    axes: list[dict[str, str]] = [
        {"name": axis, "type": "space", "unit": "nanometer"} for axis in AXES
    ]
    if channel:
        axes.insert(0, {"name": "c", "type": "channel"})
    finest = next(iter(levels.values()))[0]
    datasets = []
    for path, (size, offset) in levels.items():
        centre = [o + (s - f) / 2 for o, s, f in zip(offset, size, finest, strict=True)]
        scale, translation = size.numbers(), Nm(*centre).numbers()
        datasets.append(
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, *scale] if channel else scale},
                    {
                        "type": "translation",
                        "translation": [0, *translation] if channel else translation,
                    },
                ],
            }
        )
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def level_names(attributes: Mapping[str, Any]) -> list[str]:
    """Paths of the levels in OME-NGFF metadata 0.4 or 0.5, finest first."""
    return [str(dataset["path"]) for dataset in first_multiscale(attributes).get("datasets", [])]


def level_place(attributes: Mapping[str, Any], name: str) -> tuple[Nm, Nm]:
    """Voxel size and lower corner in nm of a level, from OME-NGFF metadata."""
    multiscale = first_multiscale(attributes)
    dataset = next(entry for entry in multiscale["datasets"] if entry["path"] == name)
    transforms = {entry["type"]: entry for entry in dataset["coordinateTransformations"]}
    size = Nm.of(transforms["scale"]["scale"][-3:])
    first = multiscale["datasets"][0]["coordinateTransformations"]
    finest = Nm.of(next(e for e in first if e["type"] == "scale")["scale"][-3:])
    centre = Nm.of(transforms.get("translation", {}).get("translation", [0, 0, 0])[-3:])
    return size, Nm(*(c - (s - f) / 2 for c, s, f in zip(centre, size, finest, strict=True)))


def first_multiscale(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The first multiscale of a group, also of version 0.4; empty if it has none."""
    entries = attributes.get("ome", attributes).get("multiscales") or [{}]
    return dict(entries[0])

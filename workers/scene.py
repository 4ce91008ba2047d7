"""What Neuroglancer shows of a run: its layers, where they lie in the world, and from where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.geometry import Coordinate, Roi
from pipeline.location import Location, needed
from pipeline.morphology import precomputed
from pipeline.ngff import level_names, level_place
from pipeline.plan import Plan
from pipeline.spec import VolumeSpec
from pipeline.volume import Volume, group_attributes
from workers.shapes import segmentation_of
from workers.state import State, state_of

SHOWN = ("raw", "affinities", "fragments", "segmentation", "truth")
HIDDEN_AT_FIRST = ("affinities", "fragments", "truth")
READABLE = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
"""What the client decodes of Zarr."""
CHANNELS = {"z": "red", "y": "lime", "x": "blue"}
"""Affinities to the direct neighbours, in the order of their channels, and their colours. Each is a
layer: a shader sees several channels only of chunks that hold them all, and ours hold one."""
CHANNEL = "c'"
"""The client's mark for an axis that each layer has a place of its own on."""
SAMPLE_VX = 64
SPREAD = (0.5, 99.5)
"""Percentiles of the middle of raw images that are black and white, unless they are uint8."""
VIEW_PIXELS = 400
"""Of one panel: the first view shows the whole region."""


@dataclass(frozen=True)
class Layer:
    """A volume as the client reads it."""

    name: str
    volume: Volume
    place: Location
    """Its multiscale group, or the array itself."""
    shift_vx: np.ndarray
    """What to add to where the client would place it, float64 ``(3,)``, in its voxels."""

    axes: tuple[str, ...] = ()
    """What the client calls the axes of a bare array; it knows their lengths of a group only."""

    @classmethod
    def of(cls, name: str, volume: Volume) -> Layer:
        """A layer with all levels there are.

        The client takes translations of OME-NGFF for centres of voxels, and knows nothing of the
        offsets of bare arrays; this project counts from corners.
        """
        spec, place = volume.spec, volume.path
        size, offset = (np.array(nm, float) for nm in (spec.voxel_size_nm, spec.offset_nm))
        attributes = group_attributes(place.parent)
        if place.name not in level_names(attributes):
            prefix = "d" if volume.zarr_format == 2 else "dim_"
            axes = (axis or f"{prefix}{n}" for n, axis in enumerate(volume.axis_names))
            return cls(name, volume, place, offset / size, tuple(axes))
        corner = np.array(level_place(attributes, place.name)[1], float) - size / 2
        return cls(name, volume, place.parent, (offset - corner) / size)

    def source(self, address: str) -> Any:
        """Where its voxels come from, and where they lie."""
        library, spec = needed("neuroglancer", "views", "view"), self.volume.spec
        channels = 0 if spec.channels is None else 1

        def space(names: Sequence[str]) -> Any:
            units = [*[""] * channels, "nm", "nm", "nm"]
            scales = [*[1] * channels, *spec.voxel_size_nm.numbers()]
            return library.CoordinateSpace(names=names, units=units, scales=scales)

        matrix = np.eye(3 + channels, 4 + channels)
        matrix[channels:, -1] = self.shift_vx
        transform = library.CoordinateSpaceTransform(
            output_dimensions=space([*[CHANNEL] * channels, "z", "y", "x"]), matrix=matrix
        )
        if self.axes:
            transform.input_dimensions = space(self.axes)
        return library.LayerDataSource(url=f"zarr://{address}", transform=transform)


@dataclass(frozen=True)
class Scene:
    """All that is shown of a run.

    Attributes:
        shapes: folders of meshes and skeletons of the segmentation that there is.
    """

    title: str
    layers: tuple[Layer, ...]
    shapes: Mapping[str, Path]
    remarks: tuple[str, ...]
    """A line for each volume that is not finished, out of date, or cannot be shown."""
    raw_range: tuple[float, float] | None

    @classmethod
    def of_run(cls, plan: Plan) -> Scene:
        """The inputs of a run, and of its outputs whatever there is."""
        volumes, remarks = volumes_of(plan)
        for name, volume in volumes.items():
            if volume.dtype.name not in READABLE:
                remarks.append(f"{name} is left out: Neuroglancer reads no {volume.dtype}")
        layers = [Layer.of(n, v) for n, v in volumes.items() if v.dtype.name in READABLE]
        fingerprint = segmentation_of(plan.run)
        folders = {"meshes": plan.run.meshes, "skeletons": plan.run.skeletons}
        shapes = {n: f for n, f in folders.items() if precomputed.is_of(f, fingerprint)}
        data = plan.settings.run.data
        return cls(plan.settings.run.name, tuple(layers), shapes, tuple(remarks), data.raw_range)

    @property
    def folders(self) -> dict[str, Path]:
        """Each folder on a disk that is shown, by a name for it."""
        places = {layer.name: layer.place for layer in self.layers}
        return {n: p for n, p in places.items() if isinstance(p, Path)} | dict(self.shapes)

    def state(self, address: Callable[[str, Location], str]) -> Any:
        """The viewer's state.

        Args:
            address: the URL of a folder, from its name and place.
        """
        library = needed("neuroglancer", "views", "view")
        last = self.layers[-1] if self.layers else None
        focus = next((x for x in self.layers if x.name == "segmentation"), last)
        state = library.ViewerState(title=self.title, layout="4panel")
        for layer in self.layers:
            for name, made in self._shown(library, layer, address).items():
                state.layers.append(
                    name=name, layer=made, visible=layer.name not in HIDDEN_AT_FIRST
                )
        if focus is not None:
            _look_at(library, state, focus.volume.spec)
        return state

    def _shown(
        self, library: Any, layer: Layer, address: Callable[[str, Location], str]
    ) -> dict[str, Any]:
        """What the client shows of a volume, by its names for it."""
        sources = [layer.source(address(layer.name, layer.place))]
        if layer.name == "affinities":
            return {
                f"affinities {axis}": library.ImageLayer(
                    source=sources,
                    shader=f'#uicontrol vec3 colour color(default="{colour}")\n'
                    "void main() { emitRGB(colour * toNormalized(getDataValue())); }",
                    local_dimensions=library.CoordinateSpace(
                        names=[CHANNEL], units=[""], scales=[1]
                    ),
                    local_position=[channel],
                    blend="additive",
                    opacity=1,
                )
                for channel, (axis, colour) in enumerate(CHANNELS.items())
            }
        if layer.name == "raw":
            grey = {"normalized": {"range": list(self._grey_range(layer.volume))}}
            return {"raw": library.ImageLayer(source=sources, opacity=1, shader_controls=grey)}
        segments: set[int] = set()
        if layer.name == "segmentation":
            for name, folder in self.shapes.items():
                segments.update(precomputed.segments_in(folder))
                sources.append(
                    library.LayerDataSource(url=f"precomputed://{address(name, folder)}")
                )
        labels = library.SegmentationLayer(
            source=sources, segments=sorted(segments), selected_alpha=0.4, not_selected_alpha=0.2
        )
        return {layer.name: labels}

    def _grey_range(self, volume: Volume) -> tuple[float, float]:
        """The values that are black and white."""
        if self.raw_range is not None:
            return self.raw_range
        if volume.dtype == np.uint8:
            return 0, 255
        side = Coordinate((SAMPLE_VX,) * 3)
        middle = Roi(volume.roi.center - side / 2, side).intersect(volume.roi)
        low, high = np.percentile(volume.read(middle), SPREAD)
        return float(low), float(max(high, np.nextafter(low, np.inf)))


def volumes_of(plan: Plan) -> tuple[dict[str, Volume], list[str]]:
    """What can be shown, in the order of the layers, and what to say of it."""
    data, run = plan.settings.run.data, plan.run
    given = {"raw": data.raw, "affinities": data.affinities, "truth": data.labels}
    places: dict[str, Location] = {n: place for n, place in given.items() if place is not None}
    remarks = []
    for step in plan.steps:
        made = {output.removesuffix("/s0") for output in step.stage.output_specs()}
        for name in made.intersection(SHOWN):
            if (run.volume(name) / "s0" / "zarr.json").exists():
                places[name] = run.volume(name)
                state = state_of(step.stage).state
                if state is not State.DONE:
                    remarks.append(f"{name} as it is: {step.stage.name} is {state.value}")
    return {name: Volume.open(places[name]) for name in SHOWN if name in places}, remarks


def _look_at(library: Any, state: Any, spec: VolumeSpec) -> None:
    """Show all of a volume."""
    sizes = spec.voxel_size_nm.numbers()[::-1]
    size, shape = np.array(sizes, float), np.array(spec.shape[:-4:-1])
    begin = np.array(spec.offset_nm[::-1], float) / size
    state.dimensions = library.CoordinateSpace(names=["x", "y", "z"], units="nm", scales=sizes)
    state.position = begin + shape / 2
    # In units of the shortest side of a voxel: per pixel of a section, and of the whole 3D view.
    extent = float((shape * size).max() / size.min())
    state.cross_section_scale = extent / VIEW_PIXELS
    state.projection_scale = 1.5 * extent

"""The nodes through which gunpowder makes a crop.

A request flows up from the crop to the source and grows by what each node needs around the crop;
raw and labels flow down. gunpowder's coordinates are integers, so its unit is the voxel here. Where
a crop is taken is decided at the source: requests lie around the origin.
"""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.config import Augment, Train, View
from pipeline.train import appearance
from pipeline.train.engine import gunpowder as gp
from pipeline.train.source import Source
from pipeline.train.view import drawn_order, orders, view_of
from pipeline.train.warp import coordinates, elastic_displacement, resampled
from pipeline.train.widen import widened

RAW = gp.ArrayKey("RAW")
LABELS = gp.ArrayKey("LABELS")
CROP = gp.ArrayKey("CROP")
"""A placeholder: the crop without what nodes ask for around it."""
VIEW = gp.ArrayKey("VIEW")

FAINT = 0.1
"""Contrast that is left in a faint section."""
VOXEL = gp.Coordinate(1, 1, 1)


class Draw:
    """The random numbers of the crop that is being made: a stream for each node.

    gunpowder seeds the global generators anew for every node, with 32 bits that it derives from
    those of the node before.
    """

    def __init__(self) -> None:
        self._crop = (0, 0, 0)

    def start(self, seed: int, step: int, index: int) -> None:
        self._crop = (seed, step, index)

    def stream(self, name: str) -> np.random.Generator:
        return np.random.default_rng((*self._crop, *name.encode()))

    def batch_stream(self, name: str) -> np.random.Generator:
        """The same for all crops of a step."""
        seed, step, _ = self._crop
        return np.random.default_rng((seed, step, 0, *name.encode()))


class _Drawn:
    """A node whose random numbers are those of the draw."""

    draw: Draw
    rng: np.random.Generator
    name: Callable[[], str]

    def set_seeds(self, request: Any) -> None:
        self.rng = self.draw.stream(self.name())
        random.seed(int(self.rng.integers(2**32)))


class Taken(_Drawn, gp.BatchProvider):
    """Raw and labels from somewhere in the training region."""

    def __init__(self, draw: Draw, source: Source, min_labelled: float) -> None:
        self.draw, self._source, self._min_labelled = draw, source, min_labelled

    def setup(self) -> None:
        self.enable_placeholders()
        anywhere = gp.Roi((-(2**30),) * 3, (2**31,) * 3)
        for key in (RAW, LABELS, CROP):
            self.provides(key, gp.ArraySpec(anywhere, VOXEL, interpolatable=key == RAW))

    def provide(self, request: Any) -> Any:
        crop = request[CROP].roi
        place = self._source.place(crop.shape, self._min_labelled, self.rng)
        asked = request[RAW].roi
        arrays = self._source.read(asked.shift(place.begin - crop.begin))
        batch = gp.Batch()
        for key, array in zip((RAW, LABELS), arrays, strict=True):
            spec = self.spec[key].copy()
            spec.roi = asked
            batch[key] = gp.Array(array, spec)
        return batch


class Warped(_Drawn, gp.BatchFilter):
    """Elastic deformation, rotation and zoom; asks for what they reach."""

    def __init__(self, draw: Draw, rule: Augment) -> None:
        self.draw, self._rule = draw, rule

    def prepare(self, request: Any) -> None:
        rule, asked = self._rule, request[RAW].roi
        elastic, turned = self.rng.random(2) < (rule.elastic, rule.rotate)
        angle = self.rng.uniform(0, 2 * np.pi) if turned else 0.0
        zoom = 1 + self.rng.uniform(-rule.scale, rule.scale)
        self._where: np.ndarray | None = None
        if not (elastic or turned or rule.scale):
            return
        displacement = None
        if elastic:
            sigma = (rule.elastic_sigma_z_vx, rule.elastic_sigma_vx, rule.elastic_sigma_vx)
            displacement = elastic_displacement(
                asked.shape, rule.elastic_spacing_vx, sigma, self.rng
            )
        where = coordinates(asked.shape, angle, zoom, displacement)
        begin = gp.Coordinate(np.floor(where.min((1, 2, 3))).astype(int))
        end = gp.Coordinate(np.ceil(where.max((1, 2, 3))).astype(int) + 1)
        self._where = where - np.array(begin, np.float32)[:, None, None, None]
        for key in (RAW, LABELS):
            request[key].roi = gp.Roi(asked.begin + begin, end - begin)

    def process(self, batch: Any, request: Any) -> None:
        if self._where is None:
            return
        data = resampled(batch[RAW].data, batch[LABELS].data, self._where)
        for key, array in zip((RAW, LABELS), data, strict=True):
            batch[key].data = array
            batch[key].spec.roi = request[key].roi


class Mirrored(_Drawn, gp.SimpleAugment):
    """gunpowder's mirror images and transposes."""

    def __init__(self, draw: Draw, rule: Augment) -> None:
        moving = {"none": [], "yx": [1, 2], "zyx": [0, 1, 2]}[rule.transpose]
        super().__init__(mirror_only=None if rule.flip else [], transpose_only=moving)
        self.draw = draw


class Shifted(_Drawn, gp.BatchFilter):
    """Sections, or all from a section on, displaced in their plane.

    gunpowder's ``ShiftAugment`` would move the request for the crop itself, and its normal
    displacements know no bound.
    """

    def __init__(self, draw: Draw, rule: Augment) -> None:
        self.draw, self._rule = draw, rule

    def prepare(self, request: Any) -> None:
        asked = request[RAW].roi
        sections = asked.shape[0]
        far = self._rule.shift_vx
        moved = self.rng.random(sections) < self._rule.shifted_section
        moves = self.rng.integers(-far, far, (sections, 2), endpoint=True) * moved[:, None]
        alone = (self.rng.random(sections) < 0.5)[:, None]
        self._moves = np.where(alone, moves, 0) + np.cumsum(np.where(alone, 0, moves), 0)
        # The same on both sides: then the middle of the request stays that of the crop.
        margin = gp.Coordinate(0, *np.abs(self._moves).max(0))
        self._margin = margin
        for key in (RAW, LABELS):
            request[key].roi = asked.grow(margin, margin)

    def process(self, batch: Any, request: Any) -> None:
        height, width = request[RAW].roi.shape[1:]
        begins = self._moves + self._margin[1:]
        for key in (RAW, LABELS):
            sections = zip(batch[key].data, begins, strict=True)
            batch[key].data = np.stack(
                [section[y : y + height, x : x + width] for section, (y, x) in sections]
            )
            batch[key].spec.roi = request[key].roi


class Widened(gp.BatchFilter):
    """Borders between objects, made background."""

    def __init__(self, radius_vx: int, per_section: bool) -> None:
        self._radius_vx, self._per_section = radius_vx, per_section

    def process(self, batch: Any, request: Any) -> None:
        labels = np.ascontiguousarray(batch[LABELS].data)
        batch[LABELS].data = widened(labels, self._radius_vx, self._per_section)


class Defective(_Drawn, gp.DefectAugment):
    """gunpowder's missing and faint sections."""

    def __init__(self, draw: Draw, rule: Augment) -> None:
        super().__init__(RAW, rule.missing_section, rule.faint_section, contrast_scale=FAINT)
        self.draw = draw


class Changed(_Drawn, gp.BatchFilter):
    """Raw, changed in place with some probability."""

    def __init__(
        self, draw: Draw, share: float, change: Callable[[np.ndarray, np.random.Generator], None]
    ) -> None:
        self.draw, self._share, self._change = draw, share, change

    def name(self) -> str:
        return self._change.__name__

    def process(self, batch: Any, request: Any) -> None:
        if self.rng.random() < self._share:
            raw = batch[RAW].data = np.ascontiguousarray(batch[RAW].data)
            self._change(raw, self.rng)


class Viewed(_Drawn, gp.BatchFilter):
    """The view that cross-correlation compares with; how to undo it is in its attributes.

    The views of a batch must have one shape: where sides that change places differ, all crops of
    a batch get the same order of axes.
    """

    def __init__(self, draw: Draw, rule: View) -> None:
        self.draw, self._rule = draw, rule

    def setup(self) -> None:
        self.provides(VIEW, gp.ArraySpec(nonspatial=True))

    def process(self, batch: Any, request: Any) -> None:
        raw = batch[RAW].data
        shapes = {
            tuple(raw.shape[axis] for axis in order) for order in orders(self._rule.transpose)
        }
        rng = self.rng if len(shapes) == 1 else self.draw.batch_stream(self.name())
        view, transform = view_of(raw, self._rule, drawn_order(self._rule, rng), self.rng)
        spec = gp.ArraySpec(nonspatial=True)
        batch[VIEW] = gp.Array(view, spec, attrs={"transform": transform})


def nodes(source: Source, draw: Draw, train: Train, view: bool) -> list[Any]:
    """The pipeline of a crop, source first; what cannot happen is left out."""
    rule = train.augment

    def intensity(raw: np.ndarray, rng: np.random.Generator) -> None:
        per_section = bool(rng.random() < 0.5)
        appearance.intensity(raw, rule.contrast, rule.brightness, rule.gamma, per_section, rng)

    def blur(raw: np.ndarray, rng: np.random.Generator) -> None:
        appearance.blur(raw, rule.blur_sigma_vx, rng)

    def noise(raw: np.ndarray, rng: np.random.Generator) -> None:
        appearance.noise(raw, rule.noise_sigma, rng)

    possible = [
        (True, Taken(draw, source, train.min_labelled)),
        (rule.elastic or rule.rotate or rule.scale, Warped(draw, rule)),
        (rule.flip or rule.transpose != "none", Mirrored(draw, rule)),
        (rule.shifted_section, Shifted(draw, rule)),
        (train.widen_border_vx, Widened(train.widen_border_vx, train.widen_per_section)),
        (rule.missing_section or rule.faint_section, Defective(draw, rule)),
        (rule.intensity, Changed(draw, rule.intensity, intensity)),
        (rule.blur, Changed(draw, rule.blur, blur)),
        (rule.noise, Changed(draw, rule.noise, noise)),
        (view, Viewed(draw, train.view)),
    ]
    return [node for wanted, node in possible if wanted]

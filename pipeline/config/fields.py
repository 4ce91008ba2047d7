"""The kinds of values that a run file holds, and how they are checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from pipeline.geometry import ZYX, Nm, Offsets
from pipeline.location import Location, location

MAX_SIDE_VX = 1_000_000
MAX_COUNT = 1_000_000_000


def _nm(value: object) -> Nm:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"must be three lengths z, y, x in nm, found {value!r}")
    return Nm.of(value)


def _zyx(value: object) -> ZYX:
    whole = isinstance(value, Sequence) and len(value) == 3 and all(type(n) is int for n in value)
    if not whole:
        raise ValueError(f"must be three whole numbers z, y, x, found {value!r}")
    return ZYX.of(value)  # type: ignore[arg-type]


def _positive(value: ZYX) -> ZYX:
    if min(value) < 1 or max(value) > MAX_SIDE_VX:
        raise ValueError(f"must be 1 to {MAX_SIDE_VX}, found {list(value)}")
    return value


def _width(value: ZYX) -> ZYX:
    if min(value) < 0 or max(value) > MAX_SIDE_VX:
        raise ValueError(f"must be 0 to {MAX_SIDE_VX}, found {list(value)}")
    return value


def name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            f"must be a plain directory name of letters, digits, '.', '_' and '-', found {value!r}"
        )
    return value


def _apart(value: tuple[ZYX, ...]) -> tuple[ZYX, ...]:
    if not value or len(set(value)) < len(value) or ZYX(0, 0, 0) in value:
        raise ValueError(
            f"must be offsets that differ, none of them zero, found {[list(v) for v in value]}"
        )
    return value


def _triples(value: object) -> tuple[ZYX, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"must be a list of triples, found {value!r}")
    return tuple(_zyx(triple) for triple in value)


def _plain(value: tuple[ZYX, ...]) -> list[list[int]]:
    return [list(triple) for triple in value]


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or list(values) != sorted(set(values)):
        raise ValueError(f"must be ascending, without repeats, found {list(values)}")
    return values


def _distinct(values: tuple[object, ...]) -> tuple[object, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError(f"must be a list of one or more, without repeats, found {list(values)}")
    return values


def _offsets(value: object) -> Offsets:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"must be a list of offsets, found {value!r}")
    try:
        return Offsets.of(value)
    except (TypeError, OverflowError):
        raise ValueError(f"must be a list of triples of whole numbers, found {value!r}") from None


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _lists(value: tuple[Offsets, ...]) -> list[Any]:
    return [offsets.numbers() for offsets in value]


def _numbers(value: Nm | Offsets) -> list[Any]:
    return value.numbers()


Lengths = Annotated[Nm, BeforeValidator(_nm), PlainSerializer(_numbers)]
OffsetList = Annotated[Offsets, BeforeValidator(_offsets), PlainSerializer(_numbers)]
OffsetLists = Annotated[tuple[OffsetList, ...], BeforeValidator(_tuple), PlainSerializer(_lists)]
Range = Annotated[tuple[float, float], BeforeValidator(_tuple), PlainSerializer(list)]
Sides = Annotated[ZYX, BeforeValidator(_zyx), AfterValidator(_positive), PlainSerializer(list)]
Width = Annotated[ZYX, BeforeValidator(_zyx), AfterValidator(_width), PlainSerializer(list)]
Sigma = Annotated[float, Field(ge=0, le=1000)]
Threshold = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


def _path(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError(f"must be a path, found {value!r}")
    return location(value) if isinstance(value, str) else value


ArrayPath = Annotated[Location, BeforeValidator(_path), PlainSerializer(str)]
"""Of a Zarr array or group: a path, or the URL of one on a server."""
FilePath = Annotated[Path, BeforeValidator(_path), PlainSerializer(str)]
Beta = Annotated[float, Field(gt=0, lt=1)]
Betas = Annotated[
    tuple[Beta, ...],
    BeforeValidator(_tuple),
    AfterValidator(_ascending),
    PlainSerializer(list),
]
Thresholds = Annotated[
    tuple[Threshold, ...],
    BeforeValidator(_tuple),
    AfterValidator(_ascending),
    PlainSerializer(list),
]


Triples = Annotated[
    tuple[ZYX, ...], BeforeValidator(_triples), AfterValidator(_apart), PlainSerializer(_plain)
]
"""Offsets in any order, as a loss may have them."""
Factors = Annotated[tuple[Sides, ...], BeforeValidator(_tuple), PlainSerializer(_plain)]
Counts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    BeforeValidator(_tuple),
    PlainSerializer(list),
]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[
    tuple[Share, ...],
    BeforeValidator(_tuple),
    AfterValidator(_ascending),
    PlainSerializer(list),
]
Sigmas = Annotated[
    tuple[Sigma, ...],
    BeforeValidator(_tuple),
    AfterValidator(_ascending),
    PlainSerializer(list),
]
type Some[Choice] = Annotated[
    tuple[Choice, ...],
    BeforeValidator(_tuple),
    AfterValidator(_distinct),
    PlainSerializer(list),
]
"""One or more choices, in the order given."""
Amount = Annotated[float, Field(ge=0, le=1000)]
Steps = Annotated[int, Field(ge=1, le=MAX_COUNT)]


class RoiNm(Section):
    """A region in world nanometres, half-open; whole voxels of the data."""

    offset: Lengths
    """Of its lower corner: z, y, x in nm."""
    shape: Lengths
    """Its sides: z, y, x in nm."""

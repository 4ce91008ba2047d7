"""Run files: what a YAML file may say, checked and frozen. The only module that knows pydantic.

``run`` decides the numbers and is fingerprinted; ``machine`` decides the speed and is not.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from pipeline.errors import ConfigError, NotFoundError, PipelineError
from pipeline.geometry import ZYX, Nm, Offsets

MAX_YAML_BYTES = 100_000
MAX_YAML_ALIASES = 20
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


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            f"must be a plain directory name of letters, digits, '.', '_' and '-', found {value!r}"
        )
    return value


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or list(values) != sorted(set(values)):
        raise ValueError(f"must be ascending, without repeats, found {list(values)}")
    return values


def _offsets(value: object) -> Offsets:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"must be a list of offsets, found {value!r}")
    try:
        return Offsets.of(value)
    except (TypeError, OverflowError):
        raise ValueError(f"must be a list of triples of whole numbers, found {value!r}") from None


def _numbers(value: Nm | Offsets) -> list[Any]:
    return value.numbers()


Lengths = Annotated[Nm, BeforeValidator(_nm), PlainSerializer(_numbers)]
OffsetList = Annotated[Offsets, BeforeValidator(_offsets), PlainSerializer(_numbers)]
Sides = Annotated[ZYX, BeforeValidator(_zyx), AfterValidator(_positive), PlainSerializer(list)]
Sigma = Annotated[float, Field(ge=0, le=1000)]
Threshold = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


def _path(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError(f"must be a path, found {value!r}")
    return Path(value) if isinstance(value, str) else value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


ArrayPath = Annotated[Path, BeforeValidator(_path), PlainSerializer(str)]
Thresholds = Annotated[
    tuple[Threshold, ...],
    BeforeValidator(_tuple),
    AfterValidator(_ascending),
    PlainSerializer(list),
]


class RoiNm(Section):
    """A region in world nanometres, half-open; whole voxels of the data."""

    offset: Lengths
    shape: Lengths


class Data(Section):
    """Where to start from. Paths are relative to the directory ``pea`` is called in."""

    affinities: ArrayPath | None = None
    """Zarr array or multiscale group ``(c, z, y, x)``, uint8 or floats in [0, 1], high inside."""
    offsets: OffsetList | None = None
    """Of arrays that do not carry the attribute ``neighborhood``."""
    raw: ArrayPath | None = None
    """The images, for pictures."""
    labels: ArrayPath | None = None
    """The truth, for scores; 0 is unknown."""
    mask: ArrayPath | None = None
    """Voxels to segment are not 0. Blocks without any are skipped and counted."""
    roi: RoiNm | None = None
    """Segment this region only; everything that the affinities cover if left out."""


class Fragments(Section):
    """Watershed fragments: see ``pipeline.segment.fragments``."""

    per_section: bool = False
    """Fragments do not leave their section. For anisotropic volumes."""
    narrow_nm: Sigma = 7.5
    """Standard deviation of the Gaussian that keeps ridges on membranes."""
    wide_nm: Sigma = 30.0
    """Standard deviation of the one that removes spurious minima."""
    wide_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Weight of the wide one in the heights."""


class Agglomerate(Section):
    method: Literal["mean_affinity"] = "mean_affinity"
    threshold: Threshold = 0.5
    """Merge while 1 - affinity is below this. Higher merges more, as in waterz."""
    dust_vx: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    """Segments with fewer voxels become background."""


class Evaluate(Section):
    thresholds: Thresholds = tuple(n / 20 for n in range(1, 20))
    """Score the segmentation of each, besides ``agglomerate.threshold``."""


class Run(Section):
    """What is computed."""

    name: Annotated[str, AfterValidator(_name)]
    data: Data
    fragments: Fragments = Fragments()
    agglomerate: Agglomerate = Agglomerate()
    evaluate: Evaluate = Evaluate()


class Workers(Section):
    """Who computes one blockwise stage."""

    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    block_vx: Sides = ZYX(64, 256, 256)
    memory_gb: Annotated[float, Field(gt=0)] = 8.0
    """What one worker may use; a stage that needs more is refused before it starts."""
    timeout_s: Annotated[float, Field(gt=0, le=MAX_COUNT)] = 3600.0
    """A block that takes longer is taken from its worker, which is killed."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a failed block is tried again."""
    max_restarts: Annotated[int, Field(ge=0, le=10_000)] = 10
    """How many workers may die before the stage is given up."""


class Machine(Section):
    """How fast it is computed."""

    runner: Literal["serial", "daisy"] = "daisy"
    fragments: Workers = Workers()
    edges: Workers = Workers()
    relabel: Workers = Workers()
    downsample: Workers = Workers()
    evaluate: Workers = Workers()
    agglomerate: Workers = Workers()
    """Of the stages that see the whole graph; their block is the volume."""


class Settings(Section):
    """A whole file."""

    run: Run
    machine: Machine = Machine()


class _Loader(yaml.SafeLoader):
    """Safe YAML without duplicate keys, and with few aliases: nested ones multiply."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MAX_YAML_ALIASES:
            raise yaml.YAMLError(f"more than {MAX_YAML_ALIASES} aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(text: str, where: object) -> dict[str, Any]:
    """A mapping from YAML text.

    Raises:
        ConfigError: not YAML, not a mapping, a key twice, a tag that makes objects, many aliases.
    """
    value = load_value(text, where)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{where} must hold a mapping with the keys run and machine")
    return value


def load_value(text: str, where: object) -> Any:
    """Whatever a piece of YAML says.

    Raises:
        ConfigError: not YAML, a key twice, a tag that makes objects, or too much of it.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(
            f"a run file has at most {MAX_YAML_BYTES} characters, found {len(text)}: {where}"
        )
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise ConfigError(f"{where} is not readable YAML: nested too deeply") from None
    except (yaml.YAMLError, TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"{where} is not readable YAML: {' '.join(str(error).split())}") from None


def load_settings(
    path: Path, overrides: Sequence[str] = (), machine: Path | None = None
) -> Settings:
    """A run file, with another machine file and ``key=value`` changes on top.

    Raises:
        NotFoundError: no such file; ConfigError: it does not describe a run, one line per problem.
    """
    tree = load_yaml(_text(path), path)
    if machine is not None:
        loaded = load_yaml(_text(machine), machine)
        if set(loaded) != {"machine"}:
            raise ConfigError(f"{machine} must have the one key machine, found {sorted(loaded)}")
        tree["machine"] = loaded["machine"]
    for override in overrides:
        _set(tree, override)
    return checked_settings(tree, path)


def checked_settings(tree: dict[str, Any], where: object) -> Settings:
    """Settings from plain values.

    Raises:
        ConfigError: one line per problem, with its dotted key.
    """
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in problem['loc'])}: {_sentence(problem)}"
            for problem in error.errors()
        ]
        raise ConfigError(f"{where} does not describe a run:\n" + "\n".join(lines[:12])) from None
    except PipelineError as error:
        raise ConfigError(f"{where} does not describe a run:\n  {error}") from None


def _sentence(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "no such key"
    if problem["type"] == "missing":
        return "must be given"
    found = reprlib.repr(problem.get("input"))
    message = " ".join(str(problem["msg"]).removeprefix("Value error, ").split())
    return message if "found" in message else f"{message}, found {found}"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise NotFoundError(f"no run file at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a run file: {error}") from None


def _set(tree: dict[str, Any], override: str) -> None:
    """Apply one ``dotted.key=value``; the value is YAML."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or parts[0] not in ("run", "machine"):
        raise ConfigError(
            f"a change must read run.KEY=VALUE or machine.KEY=VALUE, found {override!r}"
        )
    value = load_value(text, reprlib.repr(override))
    node = tree
    for part in parts[:-1]:
        if not isinstance(node.setdefault(part, {}), dict):
            raise ConfigError(f"{override!r}: {part} has no keys below it")
        node = node[part]
    node[parts[-1]] = value


def dump_settings(settings: Settings) -> str:
    """The resolved settings as YAML that loads to the same."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)

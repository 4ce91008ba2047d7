"""What every key of a run file means, from the classes that check it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pipeline.config.fields import Section
from pipeline.config.run import Settings
from pipeline.errors import ConfigError
from pipeline.geometry import Offsets


@dataclass(frozen=True)
class Key:
    """One key, or one section of keys."""

    name: str
    """Dotted, as on the command line: ``run.predict.patch_vx``."""
    text: str
    """What it means; empty if its name says all."""
    choices: tuple[str, ...] = ()
    """What it may be, if that is a list."""
    default: Any = None
    """As YAML would hold it; None also where null is the default."""
    required: bool = False
    section: str | None = None
    """Of a section: which one. Sections of one name hold the same keys."""


def explained(below: str = "") -> Iterator[Key]:
    """All keys, sections before what they hold.

    Args:
        below: only this key and what it holds; everything if empty.

    Raises:
        ConfigError: there is no such key.
    """
    everything = list(_explained(Settings, "", None))
    chosen = [
        key for key in everything if not below or f"{key.name}.".startswith(f"{below.strip('.')}.")
    ]
    if not chosen:
        raise ConfigError(
            f"there is no key {below!r} in a run file\n"
            f"pea settings lists them; the first parts are "
            f"{', '.join(key.name for key in everything if key.name.count('.') == 1)}"
        )
    yield from chosen


def _explained(section: type[Section], prefix: str, values: object) -> Iterator[Key]:
    """The keys of a section.

    Args:
        values: the section by default, which may differ from the defaults of its class.
    """
    texts = _texts(section)
    for name, field in section.model_fields.items():
        dotted, text = f"{prefix}{name}", texts.get(name, "")
        default = getattr(values, name, None if field.is_required() else field.default)
        inner = _section_of(field.annotation)
        if inner is None:
            choices = tuple(dict.fromkeys(map(str, _choices(field.annotation))))
            yield Key(dotted, text, choices, _plain(default), field.is_required())
            continue
        both = " ".join(part for part in (text, _own_docstring(inner)) if part)
        yield Key(dotted, both, required=field.is_required(), section=inner.__name__)
        yield from _explained(inner, f"{dotted}.", default)


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, also an optional one."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, Section):
            return each
    return None


def _choices(annotation: Any) -> Iterator[Any]:
    """The values of a ``Literal``, however deep."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for each in get_args(annotation):
        yield from _choices(each)


def _plain(value: Any) -> Any:
    """A default as YAML holds it."""
    if isinstance(value, tuple | Offsets):
        return [_plain(each) for each in (value.vectors if isinstance(value, Offsets) else value)]
    return value


def _own_docstring(section: type[Section]) -> str:
    return inspect.cleandoc(section.__doc__ or "") if "__doc__" in vars(section) else ""


def _texts(section: type[Section]) -> dict[str, str]:
    """The strings that stand below the fields of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(after.value.value)
    return found

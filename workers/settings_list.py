"""The keys of a run file, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import fill

import yaml

from pipeline.config.explain import Key

WIDTH, INDENT = 96, 4


def settings_lines(keys: Iterable[Key]) -> Iterator[str]:
    """Each key with its default, then what it means."""
    for key in keys:
        yield f"{key.name}:" if key.section else f"{key.name}: {default_of(key)}"
        choices = f"One of {', '.join(key.choices)}. " if key.choices else ""
        text = " ".join((choices + key.text).replace("``", "`").split())
        yield fill(text, WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)


def default_of(key: Key) -> str:
    """As YAML, on one line."""
    if key.required:
        return "(must be given)"
    text = yaml.safe_dump(key.default, default_flow_style=True, width=10_000)
    return text.strip().removesuffix("...").strip()

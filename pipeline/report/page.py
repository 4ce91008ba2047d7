"""The report of a run: one HTML file that needs nothing beside it.

A content security policy forbids the page to load or run anything: pictures, charts and style are
in the file, and there is no script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report.mistakes import Mistake
from pipeline.report.panels import Palette, ScaleBar, data_uri, picture
from pipeline.report.sections import LABELS, NAMES, Section

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Panel:
    """One picture of a section."""

    name: str
    uri: str
    over: str | None = None
    """Id of the picture of raw that lies beneath."""


@dataclass(frozen=True)
class Row:
    """A section: its panels side by side, all of one scale."""

    key: str
    """Unique in the page."""
    name: str
    height_nm: float
    width_nm: float
    place_nm: float
    bar: ScaleBar
    panels: Sequence[Panel]

    @classmethod
    def of(
        cls,
        key: str,
        section: Section,
        palette: Palette,
        names: Sequence[str] = NAMES,
        only: Mapping[str, set[int]] | None = None,
    ) -> Row:
        """The panels of a section.

        Args:
            names: what to show of it, if it is there.
            only: labels to show of each volume, the others dimmed.
        """
        height, width = section.size_nm
        beneath = f"raw-{key}" if "raw" in section.images and "raw" in names else None
        panels = [
            Panel(
                name,
                data_uri(picture(section, name, palette, (only or {}).get(name, ()))),
                beneath if name in LABELS else None,
            )
            for name in names
            if name in section.images
        ]
        bar = ScaleBar.within(width)
        return cls(key, section.name, height, width, section.place_nm, bar, panels)


@dataclass(frozen=True)
class Report:
    """All that a page says. Whatever a run does not have is empty, and left out."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Lines of the head, with their names."""
    sections: Sequence[Section] = ()
    mistakes: Sequence[Mistake] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    """As in ``scores.json``."""
    sweep: Mapping[str, str] = field(default_factory=dict)
    """SVG charts by their titles."""
    training: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] = ()
    provenance: Sequence[tuple[str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[tuple[str, str, str]] = ()
    """Name, path and fingerprint of each."""
    settings: str = ""
    """The run file with every default, as YAML."""


def page(report: Report) -> str:
    """The HTML of a report."""
    palette = Palette.of([*report.sections, *(each.section for each in report.mistakes)])
    rows = [Row.of(section.name, section, palette) for section in report.sections]
    shown = [name for name in NAMES if name in ("raw", "segmentation", "truth")]
    mistakes: dict[str, list[tuple[Mistake, Row]]] = {"splits": [], "merges": []}
    for number, mistake in enumerate(report.mistakes):
        row = Row.of(f"mistake-{number}", mistake.section, palette, shown, mistake.shown)
        mistakes[mistake.kind].append((mistake, row))
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        report=report,
        rows=rows,
        widest_nm=max((row.width_nm for row in rows), default=1.0),
        mistakes=mistakes,
        style=(HERE / "page.css").read_text(),
    )

"""What other distributions add: backbones, agglomerations, formats.

They are found by their entry points, Python's way for that. A run file names an extension, never a
module or a file: it cannot run code that nobody installed. Workers find them as the driver does, in
the environment that they run in. `tests/extension` is an example of all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pipeline.errors import ExtensionError

PREFIX = "pea_connectomics."


@dataclass(frozen=True)
class Extensions[T]:
    """All extensions of one kind that are installed."""

    noun: str
    """What one of them is, such as ``backbone``."""
    declared: type[T]
    """What its entry point leads to."""
    built_in: tuple[str, ...]
    """Names that are taken."""

    @property
    def group(self) -> str:
        """Of the entry points."""
        return f"{PREFIX}{self.noun}s"

    def named(self, name: str) -> T:
        """An extension.

        Raises:
            ExtensionError: none of this name is installed, or two; or it cannot be loaded.
        """
        found = _declaration(self.group, self.noun, name, self.built_in)
        if not isinstance(found, self.declared):
            raise ExtensionError(
                f"the entry point {name} of {self.group} must lead to a {self.declared.__name__}, "
                f"found {type(found).__name__}\nCorrect it in the distribution that has it."
            )
        return found

    def installed(self) -> dict[str, T]:
        """All of them, by name.

        Raises:
            ExtensionError: as ``named``.
        """
        return {name: self.named(name) for name in sorted(entry_points(group=self.group).names)}


@cache
def _declaration(group: str, noun: str, name: str, built_in: tuple[str, ...]) -> object:
    points = tuple(entry_points(group=group, name=name))
    if len(points) > 1:
        raise ExtensionError(
            f"{name} of {group} must come from one distribution, found it in "
            f"{', '.join(sorted(map(_origin, points)))}\nUninstall all but one."
        )
    if not points:
        others = sorted(entry_points(group=group).names)
        raise ExtensionError(
            f"the {noun} must be built in ({', '.join(built_in)}) or installed "
            f"({', '.join(others) or 'none'}); found {name!r}\n"
            "Install the distribution that has it, here and where workers run: pip install "
            f"DISTRIBUTION. Its entry points list it in {group}."
        )
    (point,) = points
    try:
        return point.load()
    except Exception as error:  # whatever a module may raise when it is imported
        raise ExtensionError(
            f"{name} of {_origin(point)} cannot be loaded: {type(error).__name__}: {error}\n"
            "Mend or uninstall it."
        ) from error


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def extension_versions() -> dict[str, str]:
    """Distributions that have extensions, and their versions; nothing is loaded."""
    points = entry_points()
    return {
        point.dist.name: point.dist.version
        for group in sorted(points.groups)
        if group.startswith(PREFIX)
        for point in points.select(group=group)
        if point.dist is not None
    }


def no_options(**given: object) -> None:
    """Of what has none."""
    if given:
        raise ValueError(f"there are none, found {', '.join(given)}")


def check_options(options: Callable[..., object], given: Mapping[str, Any], owner: str) -> None:
    """Raise unless an extension takes these options.

    Args:
        options: is called with them as keywords; a dataclass will do.

    Raises:
        ExtensionError: it raised TypeError or ValueError.
    """
    try:
        options(**given)
    except (TypeError, ValueError) as error:
        raise ExtensionError(f"options of {owner}: {' '.join(str(error).split())}") from None

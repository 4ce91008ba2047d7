"""Bytes, times and rates as a person would say them."""

from __future__ import annotations


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def rate(per_second: float, unit: str) -> str:
    """Of one unit in the plural; slow ones are said by the minute or hour."""
    for factor, time in ((1, "s"), (60, "min"), (3600, "h")):
        value = per_second * factor
        if value >= 1 or time == "h":
            return f"{value:.{'3g' if value < 999.5 else '0f'}} {unit}/{time}"
    raise AssertionError

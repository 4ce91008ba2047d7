"""Lengths as files state them, in nm, exactly.

A length without a unit is nm only where the convention says so: the attributes of CREMI, gunpowder
and funlib. Everywhere else the unit must be there and be one of nm, µm and Å.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from pipeline.errors import MetadataError
from pipeline.geometry import Nm, checked_voxel_size
from pipeline.ingest.sources import Place
from pipeline.ngff import AXES

NM_PER_UNIT = {
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), Decimal(1)),
    **dict.fromkeys(("um", "μm", "\\u00b5m", "micron", "microns"), Decimal(1000)),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), Decimal(1000)),
    **dict.fromkeys(("å", "angstrom", "angstroms", "ångström"), Decimal("0.1")),
}
"""By case-folded name. ImageJ writes µ as the six characters \\u00B5."""


def in_nm(values: object, units: object, what: str) -> Nm:
    """Three lengths in nm.

    Args:
        values: three numbers z, y, x, in a list or array.
        units: one for all, or one per axis, of which the last three count.
        what: names the lengths in messages.

    Raises:
        MetadataError: not three numbers, or a unit that is not nm, µm or Å.
    """
    names = [
        str(u.decode() if isinstance(u, bytes) else u) for u in np.atleast_1d(np.asarray(units))
    ]
    names = names * 3 if len(names) == 1 else names[-3:]
    try:
        lengths = Nm.of(list(np.atleast_1d(np.asarray(values))))
        factors = [NM_PER_UNIT[name.strip().casefold()] for name in names]
        return Nm(*(length * factor for length, factor in zip(lengths, factors, strict=True)))
    except MetadataError as error:
        raise MetadataError(
            f"{what}: {error}\nCorrect it, or give --voxel-size Z,Y,X in nm."
        ) from None
    except (KeyError, ValueError):
        raise MetadataError(
            f"lengths must be in nm, um or angstrom, a unit for each axis; found {names}: {what}\n"
            "Give them in nm: --voxel-size Z,Y,X and, if not zero, --offset Z,Y,X."
        ) from None


def place_from_attributes(attributes: Mapping[str, Any], where: object) -> Place:
    """Voxel size and offset from ``voxel_size`` or ``resolution`` and ``offset``, order z, y, x.

    ``units`` or ``unit`` is obeyed; without it, or with "", the numbers are nm.

    Raises:
        MetadataError: malformed lengths, an unknown unit, or two voxel sizes that differ.
    """
    stated = attributes.get("units", attributes.get("unit", "nm"))
    units = [unit if len(unit) else "nm" for unit in np.atleast_1d(np.asarray(stated)).tolist()]
    sizes = {
        key: checked_voxel_size(in_nm(attributes[key], units, f"{key} of {where}"), where)
        for key in ("voxel_size", "resolution")
        if key in attributes
    }
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{key} {value}" for key, value in sizes.items())
        raise MetadataError(
            f"voxel sizes contradict each other: {shown} nm: {where}\n"
            "Give --voxel-size Z,Y,X in nm."
        )
    offset = (
        in_nm(attributes["offset"], units, f"offset of {where}") if "offset" in attributes else None
    )
    return Place(next(iter(sizes.values()), None), offset)


def check_axes(names: Sequence[str], where: object) -> None:
    """Refuse an array whose named axes do not end in z, y, x; names alone never reorder it.

    Raises:
        MetadataError: naming ``where``.
    """
    plain = [str(name).rstrip("^").lower() for name in names]
    if plain and plain[-3:] != list(AXES):
        raise MetadataError(
            f"axes must be (z, y, x) or (channel, z, y, x), found {plain}: {where}\n"
            "Transpose the array before it is ingested."
        )

"""What raw values mean: which become 0 and which 1. Training and prediction share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError, DataError, DtypeError
from pipeline.volume import Volume


@dataclass(frozen=True)
class RawScale:
    """A linear map of raw values to [0, 1]."""

    low: float
    """Becomes 0, as does all below."""
    high: float
    """Becomes 1, as does all above."""
    clips: bool = True
    """Whether values outside are clipped rather than refused."""

    @classmethod
    def of(cls, volume: Volume, given: tuple[float, float] | None = None) -> RawScale:
        """The scale of a volume: 0 to 255 for uint8, 0 to 1 for floats, else what is given.

        Args:
            given: ``run.data.raw_range``.

        Raises:
            DtypeError: not real numbers, or integers of more than 8 bits without a range;
            ConfigError: a range that is none.
        """
        dtype, path = volume.dtype, volume.path
        if dtype.kind not in "uif":
            raise DtypeError(f"raw must hold integers or floats, found {dtype}: {path}")
        if given is not None:
            if not given[0] < given[1]:
                raise ConfigError(
                    f"run.data.raw_range must be a lower and a higher value, found {list(given)}"
                )
            return cls(*given)
        if dtype == np.uint8:
            return cls(0, 255)
        if dtype.kind == "f":
            return cls(0, 1, clips=False)
        raise DtypeError(
            f"raw of {dtype} needs a range: {path}\n"
            "Give run.data.raw_range: the values that become 0 and 1, such as [0, 65535]."
        )

    def apply(self, raw: np.ndarray, where: object) -> np.ndarray:
        """Raw as float32 in [0, 1].

        Args:
            where: what to name in an error.

        Raises:
            DataError: NaN or infinite, or outside [0, 1] without a range.
        """
        if raw.dtype.kind == "f":
            bad = ~np.isfinite(raw)
            must = "be finite"
            if not self.clips and not bad.any():
                bad = (raw < self.low) | (raw > self.high)
                must = "lie in [0, 1], or have a run.data.raw_range"
            if bad.any():
                first = tuple(int(n) for n in np.argwhere(bad)[0])
                raise DataError(
                    f"raw must {must}: {where} has {int(bad.sum())} values that do not, "
                    f"the first {raw[first]} at {first} of what was read"
                )
        # In float32 integers of up to 16 bits are exact.
        exact = np.float32 if raw.dtype.itemsize <= 2 or raw.dtype == np.float32 else np.float64
        scaled = np.subtract(raw, exact(self.low), dtype=exact)
        scaled /= exact(self.high - self.low)
        return np.asarray(scaled.clip(0, 1), np.float32)

"""What `pea tune` tries."""

from __future__ import annotations

from typing import Literal, get_args

from pipeline.config.agglomerate import MethodName
from pipeline.config.fields import Betas, Section, Shares, Sigmas, Some, Thresholds
from pipeline.segment.multicut import Weighting
from pipeline.segment.segments import BUILT_IN


class Tune(Section):
    """Lists of values for keys of ``fragments`` and ``agglomerate``: every combination is scored.

    What is not listed here stays as the run has it. No stage looks at this section.
    """

    narrow_nm: Sigmas | None = None
    """Of fragments; the run's own if left out."""
    wide_nm: Sigmas | None = None
    """Of fragments; 2/3, 1 and 3/2 of the run's own if left out."""
    wide_share: Shares | None = None
    """Of fragments; the run's own, 0.2 less and 0.2 more if left out."""
    methods: Some[MethodName] = tuple(BUILT_IN)
    """Those that look at long-range affinities are left out where there are none."""
    thresholds: Thresholds = tuple(n / 50 for n in range(1, 50))
    """Of mean_affinity and quantile."""
    quantiles: Some[Literal[50, 75, 85]] = (50, 75, 85)
    """Of quantile."""
    betas: Betas = tuple(n / 50 for n in range(1, 50))
    """Of multicut and lifted_multicut."""
    weightings: Some[Weighting] = get_args(Weighting)
    """Of both."""

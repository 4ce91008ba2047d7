"""What is scored, and how."""

from __future__ import annotations

from pipeline.config.fields import Amount, Betas, RoiNm, Section, Thresholds


class Evaluate(Section):
    """Scores against ``data.labels``; without labels there are none."""

    thresholds: Thresholds = tuple(n / 20 for n in range(1, 20))
    """Score the segmentation of each, besides ``agglomerate.threshold``, of methods with one."""
    betas: Betas = tuple(n / 20 for n in range(1, 20))
    """The same of ``agglomerate.beta``; each is a multicut of its own."""
    border_nm: Amount = 0.0
    """Leave out voxels that are not farther than this from another true object in their section, as
    CREMI does; 0 leaves out none."""
    roi: RoiNm | None = None
    """Score there only, as where the network was not trained; wherever there is a truth if left
    out."""

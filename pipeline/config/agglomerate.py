"""How fragments become segments."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from pipeline.config.fields import MAX_COUNT, Beta, Section, Sides, Threshold
from pipeline.extensions import check_options
from pipeline.segment.multicut import Weighting
from pipeline.segment.segments import method_named
from pipeline.segment.solvers import Solver


def _known(name: str) -> str:
    method_named(name)
    return name


MethodName = Annotated[str, AfterValidator(_known)]
Voxels = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class Agglomerate(Section):
    """Settings of other methods than the one chosen have no effect."""

    method: MethodName = "mean_affinity"
    """``mean_affinity`` and ``quantile`` merge the two regions with the highest affinity between
    them, again and again, as waterz does. ``multicut`` finds the partition that disagrees least
    with all contacts; ``lifted_multicut`` lets long-range affinities take part;
    ``mutex_watershed`` believes the strongest evidence first, for or against a merge. Or one that
    another distribution adds."""
    threshold: Threshold = 0.5
    """Of mean_affinity and quantile: merge while 1 - affinity is below this. Higher merges more, as
    in waterz."""
    quantile: Literal[50, 75, 85] = 50
    """Of quantile, in percent of the affinities between two regions, lowest first."""
    beta: Beta = 0.5
    """Of multicut and lifted_multicut: how likely a boundary is. Higher cuts more."""
    weighting: Weighting = "none"
    """Of both: contacts count all the same, by their size (``contacts``), or by their size among
    those across sections and among the others (``populations``)."""
    solver: Solver = "bioimage_cpp"
    """Of both: the library that solves them. ``nifty`` must be installed, from conda-forge."""
    options: dict[str, JsonValue] = {}
    """Of a method that is an extension."""
    domain_vx: Sides | None = None
    """Of multicut: solve boxes of this size by themselves, by ``machine.agglomerate.workers``, then
    what is between them. Boxes decide the numbers a little; the whole graph at once if left out."""
    merge_small_vx: Voxels = 0
    """Segments with fewer voxels join the neighbour of the highest mean affinity."""
    dust_vx: Voxels = 0
    """Segments with fewer voxels become background, after that."""

    @model_validator(mode="after")
    def _options_are_of_the_method(self) -> Agglomerate:
        check_options(
            method_named(self.method).options, self.options, f"the agglomeration {self.method}"
        )
        return self

    @model_validator(mode="after")
    def _domains_are_of_multicut(self) -> Agglomerate:
        if self.domain_vx is not None and self.method == "lifted_multicut":
            raise ValueError(
                "domain_vx must be null for lifted_multicut, whose long-range contacts cross "
                f"boxes; found {list(self.domain_vx)}"
            )
        return self

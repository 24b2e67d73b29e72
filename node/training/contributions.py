"""What one site adds to the next secure sum of a plan, by the plan's training mode."""

from __future__ import annotations

from node.features.table import FeatureTable
from node.training.gradient import Sums, Vector, clipped_sums
from privacy.walks import Walk
from protocols.study import Study


def contribution(study: Study, walk: Walk, table: FeatureTable, *, own: Vector | None = None) -> Sums:
    """Return the site's vector for the walk's next sum, and that for its own part of the model.

    Guarantee: one patient more or less moves both, side by side, by at most the plan's clip norm in L2.
    """
    return clipped_sums(study, walk.params, table, own=own)

"""What one site adds to the next secure sum of a plan, by the plan's training mode."""

from __future__ import annotations

import numpy as np

from node.features.table import FeatureTable
from node.training import exact_parts
from node.training.gradient import Sums, Vector, clipped_sums
from privacy.newton import Newton, ProductLimit
from privacy.walks import Walk
from protocols.study import Study


def contribution(study: Study, walk: Walk, table: FeatureTable, *, own: Vector | None = None) -> Sums:
    """Return the site's vector for the walk's next sum, and that for its own part of the model.

    Guarantee: one patient more or less moves both, side by side, by at most the plan's clip norm in L2;
    except in an exact study, where nothing bounds what a patient moves.
    """
    if isinstance(walk, Newton | ProductLimit):
        return Sums(exact_parts.part(study, walk, table), np.zeros(0))
    return clipped_sums(study, walk.params, table, own=own)

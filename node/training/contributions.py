"""What one site adds to the next secure sum of a plan, by the plan's training mode."""

from __future__ import annotations

import numpy as np

from node.features.table import FeatureTable
from node.training import exact_parts, local_sgd, one_shot, sampling
from node.training.gradient import Sums, Vector, clipped_sums
from node.training.local_sgd import Site
from privacy import adaptive_descent
from privacy.adaptive_descent import AdaptiveDescent
from privacy.newton import Newton, ProductLimit
from privacy.server_step import ServerStep
from privacy.sufficient import OneStep
from privacy.walks import Walk
from protocols.study import Study


def contribution(
    study: Study, walk: Walk, table: FeatureTable, *, site: Site, own: Vector | None = None
) -> Sums:
    """Return the site's vector for the walk's next sum, and that for its own part of the model.

    Guarantee: one patient more or less moves both, side by side, by at most the plan's clip norm in L2;
    except in an exact study, where nothing bounds what a patient moves, and in local training, whose vector
    has its noise already.

    Args: site, what the site keeps to itself over the run, and a sample is drawn by its bits; own, its own
        part of the model (zeros if it is not given).
    """
    if isinstance(walk, Newton | ProductLimit):
        return Sums(exact_parts.part(study, walk, table), np.zeros(0))
    if isinstance(walk, OneStep):
        return Sums(one_shot.part(study, walk.params, table), np.zeros(0))
    if isinstance(walk, ServerStep):
        return local_sgd.contribution(study, walk, table, site=site, own=own)
    table = sampling.drawn(table, rate=study.training.sampling_rate, bits=site.bits)
    if isinstance(walk, AdaptiveDescent):
        found = clipped_sums(study, walk.params, table, own=own, clip_norm=walk.clip_norm)
        patients, clip_norm = len(table), walk.clip_norm
        shared = adaptive_descent.contribution(
            study, found.shared, clip_norm=clip_norm, patients=patients, whole=found.whole
        )
        unit = adaptive_descent.unit(study, clip_norm=clip_norm)
        return Sums(shared, found.own / unit, found.whole, own_unit=unit)
    return clipped_sums(study, walk.params, table, own=own)

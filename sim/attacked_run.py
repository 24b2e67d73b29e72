"""One run of a plan by the code that nodes run, told to an attacker release by release.

What an attacker sees of it is every noisy total; in the mode "local" every noisy gradient at a site as well,
which is more than ever leaves one. They know the plan, and what each of their canaries adds to a release.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.contributions import contribution
from node.training.gradient import clipped_sums
from node.training.local_sgd import Site, Watch
from node.training.own_part import OwnPart
from privacy import study_noise, walks
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from privacy.update_sums import UpdateSums
from privacy.walks import Walk
from protocols.study import Study

Vector = NDArray[np.float64]
Totals = Callable[[NoisePlan | UpdateSums, Sequence[Vector], SecureBits], Vector]
Hears = Callable[[Walk, Vector], None]  # where a step is taken, and the noisy total of it


def run(
    study: Study,
    tables: Sequence[FeatureTable],
    *,
    bits: SecureBits,
    totals: Totals,
    hears: Hears | None,
    watches: Sequence[Watch | None],
) -> None:
    """Train once over `tables`, one per site.

    Args: totals, how sites' sums become one noisy total; hears, told of each total before it is followed;
        watches, one per site: told of each of its noisy local steps.
    """
    plan = study_noise.private_plan(study, participants=len(tables), tolerance=study.sites.tolerance)
    keeps = [Site(bits, watch=watch) for watch in watches]
    own = [OwnPart(study, bits=bits) for _ in tables]  # in local training its noisy steps are seen too
    local, carried = study.local_training is not None, walks.initial(study)
    for _ in range(study.training.rounds):
        walk = walks.begin(study, carried)
        while not walk.finished:
            sums = [
                contribution(study, walk, table, site=keep, own=part.values if local else None)
                for table, keep, part in zip(tables, keeps, own, strict=True)
            ]
            for part, each in zip(own, sums, strict=True):
                part.follow(each)
            total = totals(plan, [each.shared for each in sums], bits)
            if hears is not None:
                hears(walk, total)
            walk.apply(total)
            for keep in keeps:
                keep.settle()
        carried = walk.carried


def added(study: Study, walk: Walk, rows: FeatureTable) -> Vector:
    """Return what rows add to a site's sum if all of them are drawn for it."""
    everybody = dataclasses.replace(study, training=dataclasses.replace(study.training, sampling_rate=1.0))
    return contribution(everybody, walk, rows, site=Site(SecureBits())).shared  # so no coin is thrown


def added_locally(study: Study, here: Vector, rows: FeatureTable) -> Vector:
    """Return what rows add to a site's own step at `here`: shared parameters and the site's own in a row."""
    sums = clipped_sums(study, here[: study.parameters], rows, own=here[study.parameters :])
    return np.append(sums.shared, sums.own)

"""What one secure sum of a plan releases of one patient: how often, of which sample, with how much noise.

mode "shared-noise"   every patient takes part:  one Gaussian release a sum
                      Poisson samples:           one sampled release for each of a patient's sites: the noise
                                                 of the total is as good as noise in equal parts at these
mode "local"          `local_steps` sampled releases at each of a patient's sites, each with the site's own
                      noise: what a site's update says is no more than its noisy gradients do

The noise multiplier follows from the plan's (ε, δ) and from how many of these there are in the whole run, by
the accountant; nobody can write it down.
"""

from __future__ import annotations

import math

from privacy import validation
from privacy.accountant import (
    Composition,
    GaussianEvent,
    SampledGaussianEvent,
    calibrate,
    fold,
)
from protocols.study import Study


def sampling_rate(study: Study) -> float:
    """Return the chance of a patient to be drawn for a (local) step."""
    return (
        study.training.sampling_rate if study.local_training is None else study.local_training.sampling_rate
    )


def per_sum(study: Study) -> int:
    """Return as how many releases the ledger counts one secure sum."""
    if study.local_training is not None:
        return study.local_training.local_steps * study.privacy.max_sites_per_patient
    return study.privacy.max_sites_per_patient if study.training.sampling_rate < 1.0 else 1


def noise_multiplier(study: Study) -> float:
    """Return the noise multiplier of one release, with which the whole run costs the study's (ε, δ).

    What the looks at a model on validation patients cost is part of that.
    """
    privacy = study.privacy
    looks = Composition()
    if study.validation is not None:
        looks = fold([validation.event(study, count=validation.looks(study))])
    return calibrate(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        count=study.training.steps * per_sum(study),
        sampling_rate=sampling_rate(study),
        beside=looks,
    )


def of_total(study: Study) -> float:
    """Return the total's noise over the sensitivity of all of a patient's sites, in the mode "shared-noise".

    σ = multiplier × clip norm × √(sites) is multiplier/√(sites) times clip norm × sites.
    """
    return noise_multiplier(study) / math.sqrt(per_sum(study))


def event(study: Study, *, sums: int) -> GaussianEvent | SampledGaussianEvent:
    """Return what `sums` secure sums cost."""
    multiplier, rate, count = noise_multiplier(study), sampling_rate(study), sums * per_sum(study)
    return GaussianEvent(multiplier, count) if rate == 1.0 else SampledGaussianEvent(multiplier, rate, count)

"""What a study's ε means in noise, and by what name a step is summed: the same at nodes and coordinator."""

from __future__ import annotations

import hashlib
import math

from privacy import study_releases, validation
from privacy.accountant import GaussianEvent, SampledGaussianEvent, calibrate
from privacy.exact_state import exact_sums
from privacy.exact_sums import ExactSums
from privacy.lattice import NoisePlan
from privacy.norm_bound import TotalBounds
from privacy.update_sums import UpdateSums
from privacy.walks import vector_length
from protocols.study import Study

PATIENTS_AT_ONE_SITE = 100_000  # largest site a training sum is for; lattice.py bounds float error up to it
MOST_TIMES = 10  # as many patients as the plan expects: with more, its steps would be ten times too long
CONTEXT_LABEL = b"fedtwin training step v2"  # v1: without the model


def noise_multiplier(study: Study) -> float:
    """Return the noise multiplier with which all steps of the run together cost the study's (ε, δ).

    What the looks at a model on validation patients cost is part of that. In the mode "local" it is that of
    the noise in each of a site's own steps.
    """
    if study.exact is not None:
        raise ValueError("a study without noise has no noise multiplier")
    if study.local_training is not None:
        return study_releases.noise_multiplier(study)
    if study.training.sampling_rate < 1.0:
        return study_releases.of_total(study)
    if study.validation is not None:
        return validation.noise_multipliers(study)[0]
    return calibrate(epsilon=study.privacy.epsilon, delta=study.privacy.delta, count=study.training.steps)


def event(study: Study, *, steps: int) -> GaussianEvent | SampledGaussianEvent:
    """Return what `steps` steps of the study cost: `study_releases.per_sum` releases each."""
    if study.local_training is not None or study.training.sampling_rate < 1.0:
        return study_releases.event(study, sums=steps)
    return GaussianEvent(noise_multiplier(study), steps)


def noise_plan(study: Study, *, participants: int, tolerance: int) -> NoisePlan:
    """Return how a site turns its sum of clipped gradients into its input of a masked sum.

    An exact study has no noise, and no such plan (privacy.exact_state.exact_sums); one of local training
    has its noise in what is summed (privacy.update_sums).

    The total's noise has standard deviation noise multiplier × clip norm × max_sites_per_patient per
    coordinate, as long as at most `tolerance` of the participants drop out or collude.
    Raises: ValueError for parameters that no plan can serve, and for other modes.
    """
    if study.training.mode not in ("shared-noise", "one-shot"):
        raise ValueError("only sums of gradients, or of statistics, have shares of noise")
    privacy, longest = study.privacy, study.aggregation.site_patients * study.privacy.clip_norm
    return NoisePlan.for_reals(
        sigma=noise_multiplier(study) * privacy.sensitivity,
        l2_clip_norm=privacy.clip_norm,
        sites_per_patient=privacy.max_sites_per_patient,
        participants=participants,
        tolerance=tolerance,
        dimension=vector_length(study),
        largest=longest,
        largest_norm=longest,
    )


def step_context(plan_hash: bytes, *, round: int, step: int, model: bytes) -> bytes:
    """Return the 32 bytes that name one step: sites that mean different steps, plans or models do not add up.

    Args: model, the digest (privacy.descent.digest) of what the sites held at the step before, or at the
        start: that of the step itself is known only when the masks for it have long been made.
    """
    named = plan_hash + round.to_bytes(4, "big") + step.to_bytes(4, "big") + model
    return hashlib.sha256(CONTEXT_LABEL + named).digest()


def step_noise_plan(study: Study) -> NoisePlan:
    """Return how a site puts noise into each of its own steps, all of it by itself, in the mode "local".

    It is on the gradients of the shared parameters and of the site's own part, side by side.
    Raises: ValueError for parameters that no plan can serve.
    """
    privacy = study.privacy
    return NoisePlan.for_reals(
        sigma=noise_multiplier(study) * privacy.clip_norm,
        l2_clip_norm=privacy.clip_norm,
        sites_per_patient=1,
        participants=1,
        tolerance=0,
        dimension=study.parameters + study.local_parameters,
        largest=PATIENTS_AT_ONE_SITE * privacy.clip_norm,
    )


def private_plan(study: Study, *, participants: int, tolerance: int) -> NoisePlan | UpdateSums:
    """Return how what a site may let leave becomes its input of a masked sum, in every mode with privacy.

    Raises: ValueError for parameters that no plan can serve.
    """
    if study.local_training is None:
        return noise_plan(study, participants=participants, tolerance=tolerance)
    return UpdateSums(participants=participants, tolerance=tolerance, dimension=vector_length(study))


def sum_plan(study: Study, *, participants: int, tolerance: int) -> NoisePlan | ExactSums | UpdateSums:
    """Return how sites' values become inputs of masked sums, and totals values again: with noise or without.

    For those who see totals only, and for simulations: what a hospital lets leave, it decides by the mode.
    Raises: ValueError for parameters that no plan can serve.
    """
    if study.exact is not None:
        return exact_sums(study, participants=participants, tolerance=tolerance)
    return private_plan(study, participants=participants, tolerance=tolerance)


def session_purpose(plan_hash: bytes) -> str:
    """Return the purpose of a secure-sum session that trains this plan."""
    return f"training:{plan_hash.hex()}"


def session_sums(study: Study, *, round: int) -> int:
    """Return how many sums the session of a round has: its steps, and the look at the model if one is due."""
    return study.training.steps_per_round + validation.due(study, round=round)


def total_bounds(study: Study, plan: NoisePlan | ExactSums | UpdateSums, *, contributors: int) -> TotalBounds:
    """Return what the L2 norm of a total of honest sites lies between, but for once in a lifetime.

    A sum of clipped gradients is no longer than clip norm × patients: of as many as the plan is made for at
    each site, and of `MOST_TIMES` as many as it expects in all, as a step scaled by that guess would make no
    sense with more. It is all that bounds what a site that runs other code adds under its mask.
    """
    most = contributors * plan.largest * math.sqrt(plan.dimension)
    if study.training.mode == "local":
        most = contributors * math.sqrt(3.0)  # an update, a control variate and a one, each within 1
    if study.training.mode == "shared-noise":
        clip = study.privacy.clip_norm
        most = min(
            contributors * study.aggregation.site_patients * clip,
            MOST_TIMES * study.training.expected_patients * clip,
        )
    return TotalBounds.of(
        honest=most,
        noise_sd=plan.standard_deviation(contributors=contributors),
        dimension=plan.dimension,
    )

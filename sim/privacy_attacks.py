"""What a published model or a step's total tells of its patients: membership inference and inversion.

Attacks that do not reach what the claim would allow prove nothing; each is run without noise beside it, to
show what it finds where there is something to find.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.gradient import sum_of_clipped_grads
from node.training.losses import losses
from node.training.models import outputs
from privacy import descent, study_noise
from privacy.audit.membership import auc, likelihood_ratios
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from sim.privacy_audit import made_up, noisy_total

LEAST_MODELS = 12  # with each record in about half of them, the other eleven tell both spreads


def membership_auc(
    study: Study,
    everyone: FeatureTable,
    *,
    models: int,
    sites: int,
    noise: Noise,
    bits: SecureBits,
    generator: np.random.Generator,
) -> float:
    """Return how well LiRA tells members from others by the final model alone: .5 is a coin, 1 certainty.

    Each of `models` is trained on about half of `everyone`, drawn anew. Where outcomes have nothing to do
    with features, whatever a model knows of a patient it has learnt by heart.
    Raises: ValueError for fewer than twelve models.
    """
    if models < LEAST_MODELS:
        raise ValueError(f"needs at least {LEAST_MODELS} models")
    member = generator.random((models, len(everyone))) < 0.5
    place = np.arange(len(everyone)) % sites
    says = np.stack(
        [
            _fit(
                study,
                federate(
                    study,
                    [everyone.rows(inside & (place == site)) for site in range(sites)],
                    noise=noise,
                    bits=bits,
                ).params,
                everyone,
            )
            for inside in member
        ]
    )
    return auc(likelihood_ratios(says, member).ravel(), member.ravel())


def _fit(study: Study, params: NDArray[np.float64], table: FeatureTable) -> NDArray[np.float64]:
    """Return for each patient how well the model fits: the logit of the right answer's probability."""
    import torch

    found = torch.from_numpy(outputs(study, params, table))
    loss = losses(study.outcome, found.reshape(len(table), 1, -1), torch.from_numpy(table.y).double())[:, 0]
    likelihood = np.exp(-np.clip(loss.numpy(), 1e-9, 50.0))
    shown: NDArray[np.float64] = np.log(likelihood) - np.log1p(-likelihood)
    return shown


def inverted(
    study: Study, *, patients: int, sites: int, bits: SecureBits | None, generator: np.random.Generator
) -> float:
    """Return the share of a patient's features that gradient inversion reads out of the first step's total.

    The attacker knows every other patient and takes their gradients off. What is left of a linear layer is
    the patient's features times one number (Geiping et al. 2020, proposition 3.1). Features are -1 or 1, so
    .5 is a coin. With `bits` None there is no noise and all features are read.
    Raises: ValueError for a study whose model is not logistic with one output.
    """
    if study.model != "logistic" or study.outcome.outputs != 1:
        raise ValueError("inversion is told for a logistic model")
    plan = study_noise.noise_plan(study, participants=sites, tolerance=study.sites.tolerance)
    right = []
    for _ in range(patients):
        tables = made_up(study, sites=sites, patients=2, generator=generator)
        start = descent.initial(study)
        sums = [sum_of_clipped_grads(study, start, table) for table in tables]
        total = np.sum(sums, axis=0) if bits is None else noisy_total(plan, sums, bits)
        others = sum_of_clipped_grads(study, start, tables[0].rows(np.array([False, True])))
        left = total - np.sum(sums[1:], axis=0) - others
        # the outcome tells the sign of the residual, and the attacker is given it
        read = np.sign(left[: len(study.columns)] * (0.5 - tables[0].y[0]))
        right.append(float(np.mean(read == tables[0].x[0])))
    return float(np.mean(right))

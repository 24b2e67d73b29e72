"""Attacks on a study's own training path: its gradients, clipping, noise shares and descent.

The attacker is the one the claim is made against: they know the plan and every patient but the canary, see
each step's noisy total, and collude with as many sites as the plan tolerates, whose noise they know. The
patients here are made up from the plan alone; what is attacked is the mechanism, whose guarantee does not
depend on who the patients are. Masks are left out of repeated runs: they cancel exactly, which tests/privacy
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training import one_shot
from node.training.gradient import sum_of_clipped_grads
from privacy import descent, study_noise, walks
from privacy.accountant import gaussian_epsilon
from privacy.audit import bounds
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from privacy.update_sums import UpdateSums
from protocols.study import Study
from sim import sampled_audit
from sim.sampled_audit import Attack, Totals

Vector = NDArray[np.float64]

PATIENTS_PER_SITE = 4  # besides the canaries: the guarantee is the same for any number


def noisy_total(plan: NoisePlan | UpdateSums, sums: Sequence[Vector], bits: SecureBits) -> Vector:
    """Return what the secure sum opens, less the noise of the colluding sites: as many as are tolerated."""
    words = np.zeros(plan.dimension, dtype=np.uint64)
    for site, vector in enumerate(sums):
        colludes = site >= len(sums) - plan.tolerance
        words += plan.encode(vector) if colludes else plan.contribution(vector, bits=bits)
    return plan.decode(words)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit of one plan showed. All bounds hold at `confidence`, each by itself."""

    epsilon: float  # what the plan claims
    delta: float
    confidence: float
    runs: int  # with the canary, and as many without
    gaussian: float  # lower bound on ε, given that the noise is Gaussian
    any_mechanism: float  # lower bound on ε, whatever the mechanism
    attainable: float  # what the Gaussian bound tends to with ever more runs: the canary's own ε

    @property
    def refuted(self) -> bool:
        """Whether the claim is shown to be wrong."""
        return max(self.gaussian, self.any_mechanism) > self.epsilon


def audit(
    study: Study,
    *,
    runs: int,
    sites: int,
    confidence: float,
    bits: SecureBits,
    generator: np.random.Generator,
    totals: Totals = noisy_total,
    watch: Callable[[int, int], None] | None = None,
) -> Audit:
    """Train `runs` times with a canary and `runs` times without, and see how well they can be told apart.

    The score is the likelihood ratio of an attacker who sees all noisy totals and knows all others: the
    strongest there is against this mechanism.

    Args: totals, how sites' sums become one noisy total: a test puts a broken one here; watch, told how many
    of all runs are done.
    Raises: ValueError for fewer than 20 runs or fewer sites than the study needs.
    """
    if runs < 20:
        raise ValueError("an audit needs at least 20 runs of either kind")
    if sites < study.sites.minimum:
        raise ValueError(f"the study needs {study.sites.minimum} sites")
    canary = loud(study, generator)
    if sampled_audit.drawn_at_all(study):
        return _audit_of_samples(
            study, canary, runs=runs, sites=sites, confidence=confidence,
            bits=bits, generator=generator, totals=totals, watch=watch,
        )  # fmt: skip
    tables = made_up(study, sites=sites, patients=PATIENTS_PER_SITE, generator=generator)
    # half of what the canary moves the score by, as a run that is not counted shows it
    _, expected = _attacked(study, tables, canary, inside=True, bits=bits, totals=noisy_total)
    scores = np.zeros((2, runs))
    for run in range(runs):
        for inside in (0, 1):
            scores[inside, run], _ = _attacked(
                study, tables, canary, inside=bool(inside), bits=bits, totals=totals
            )
            if watch is not None:
                watch(2 * run + inside + 1, 2 * runs)
    found = bounds.errors(scores[1], scores[0], threshold=expected / 2.0, confidence=confidence)
    privacy = study.privacy
    return Audit(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        confidence=confidence,
        runs=runs,
        gaussian=found.gaussian_epsilon(delta=privacy.delta),
        any_mechanism=found.epsilon(delta=privacy.delta),
        attainable=gaussian_epsilon(expected**2, 1, privacy.delta),
    )


def _audit_of_samples(
    study: Study,
    canary: FeatureTable,
    *,
    runs: int,
    sites: int,
    confidence: float,
    bits: SecureBits,
    generator: np.random.Generator,
    totals: Totals,
    watch: Callable[[int, int], None] | None,
) -> Audit:
    """The same where patients are drawn by coins, or train at their site: sim.sampled_audit."""

    def run_once(inside: int, totals: Totals) -> Attack:
        return sampled_audit.attacked(
            study, canary, sites=sites, inside=bool(inside), bits=bits, totals=totals
        )

    squares = run_once(1, noisy_total).squares  # not counted: what the canary can move
    at = sampled_audit.thresholds(study, squares, runs=runs, generator=generator)
    scores = np.zeros((2, runs))
    for run in range(runs):
        for inside in (0, 1):
            scores[inside, run] = run_once(inside, totals).score
            if watch is not None:
                watch(2 * run + inside + 1, 2 * runs)
    found = sampled_audit.bounds(study, scores, at, confidence=confidence)
    privacy = study.privacy
    return Audit(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        confidence=confidence,
        runs=runs,
        gaussian=found.gaussian,
        any_mechanism=found.any_mechanism,
        attainable=sampled_audit.attainable(study, squares),
    )


def _attacked(
    study: Study,
    tables: Sequence[FeatureTable],
    canary: FeatureTable,
    *,
    inside: bool,
    bits: SecureBits,
    totals: Totals,
) -> tuple[float, float]:
    """Run the plan once. Return the attacker's score, and how far the canary moved it in units of noise.

    A patient may be at `max_sites_per_patient` sites, and the canary is.
    """
    plan = _plan(study, len(tables))
    appearances = study.privacy.max_sites_per_patient
    params = descent.initial(study)
    score = squares = 0.0
    for _ in range(study.training.rounds):
        walk = walks.begin(study, params)
        while not walk.finished:
            others = [_added(study, walk.params, table) for table in tables]
            moved = _added(study, walk.params, canary)
            sums = [
                other + moved if inside and site < appearances else other for site, other in enumerate(others)
            ]
            total = totals(plan, sums, bits)
            score += float((total - np.sum(others, axis=0)) @ moved) * appearances
            squares += float(moved @ moved) * appearances**2
            walk.apply(total)
        params = walk.params
    length = squares**0.5
    return (score / length / plan.sigma, length / plan.sigma) if length else (0.0, 0.0)


def _plan(study: Study, sites: int) -> NoisePlan:
    return study_noise.noise_plan(study, participants=sites, tolerance=study.sites.tolerance)


def _added(study: Study, params: Vector, table: FeatureTable) -> Vector:
    """Return what patients add to a sum at `params`."""
    if study.one_shot is not None:
        return one_shot.part(study, params, table)
    return sum_of_clipped_grads(study, params, table)


def made_up(study: Study, *, sites: int, patients: int, generator: np.random.Generator) -> list[FeatureTable]:
    """Return tables of patients whose features are -1 or 1 and whose outcome is drawn, for any study."""
    shape = (sites * patients, len(study.columns))
    x = np.where(generator.random(shape) < 0.5, -1.0, 1.0).astype(np.float32)
    y = _outcomes(study, sites * patients, generator)
    ids = np.arange(1, sites * patients + 1, dtype=np.int64)
    whole = FeatureTable(ids, x, np.ones(shape, dtype=bool), y)
    return [whole.rows((ids - 1) // patients == site) for site in range(sites)]


def loud(study: Study, generator: np.random.Generator) -> FeatureTable:
    """Return one patient whose gradient at the start is as large as patients' are: of 64, the loudest.

    In a one-shot study longer rows count for less, so there it is one as long as the plan's row norm.
    """
    drawn = made_up(study, sites=1, patients=64, generator=generator)[0]
    if study.one_shot is not None:
        length = max(0.0, study.one_shot.row_norm**2 - 1.0) / len(study.columns)  # the bias has the 1
        x = np.float32(min(1.0, length**0.5)) * drawn.x
        drawn = FeatureTable(drawn.person_ids, x, drawn.mask, drawn.y)
    sizes = [
        float(np.linalg.norm(_added(study, descent.initial(study), drawn.rows(row))))
        for row in np.eye(len(drawn), dtype=bool)
    ]
    chosen = np.arange(len(drawn)) == int(np.argmax(sizes))
    found = drawn.rows(chosen)
    return FeatureTable(np.array([2**62], dtype=np.int64), found.x, found.mask, found.y)


def _outcomes(study: Study, patients: int, generator: np.random.Generator) -> NDArray[np.float32]:
    outcome = study.outcome
    if outcome.task == "survival":
        lived = generator.integers(outcome.outputs, size=patients)
        return np.column_stack([lived, np.ones(patients)]).astype(np.float32)
    if outcome.task == "multiclass":
        return generator.integers(outcome.outputs, size=patients).astype(np.float32)
    low = -1.0 if outcome.task == "regression" else 0.0
    return np.where(generator.random(patients) < 0.5, low, 1.0).astype(np.float32)

"""Attacks on a study's own training path: its gradients, clipping, noise shares and descent.

The attacker is the one the claim is made against: they know the plan and every patient but the canary, see
each step's noisy total, and collude with as many sites as the plan tolerates, whose noise they know. The
patients here are made up from the plan alone; what is attacked is the mechanism, whose guarantee does not
depend on who the patients are. Masks are left out of repeated runs: they cancel exactly, which tests/privacy
shows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from privacy import sampled_gaussian, study_noise, walks
from privacy.accountant import GaussianEvent, SampledGaussianEvent, epsilon
from privacy.audit import bounds, trade_off
from privacy.audit import noise as residual
from privacy.audit.noise import NoiseSeen
from privacy.audit.trade_off import Curve, Seen
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from privacy.update_sums import UpdateSums
from protocols.study import Study
from sim import attacked_run, canary_attack
from sim.attacked_run import Totals

Vector = NDArray[np.float64]

PATIENTS_PER_SITE = (
    4  # besides the canary, where everybody takes part: the guarantee is the same for any number
)
WIDEST = 16.0  # times the plan's multiplier, either way: where the bound is looked for
GRID = 2.0**-8  # of loss distributions in bounds: they need two digits
LARGEST_LOSS = 12.0  # ε up to which trade-off curves are drawn: no audit finds errors as dear as e^12
MOST_NUMBERS = 2**22  # of noise that are kept for a look at it: 32 MB, and 1 % too little shows in 2^18
TOLD_APART = np.geomspace(4.0, 1.0, 13)  # times the plan's multiplier: what thresholds are chosen by
_HALVINGS = 10


def noisy_total(plan: NoisePlan | UpdateSums, sums: Sequence[Vector], bits: SecureBits) -> Vector:
    """Return what the secure sum opens, less the noise of the colluding sites: as many as are tolerated."""
    words = np.zeros(plan.dimension, dtype=np.uint64)
    for site, vector in enumerate(sums):
        colludes = site >= len(sums) - plan.tolerance
        sent = plan.to_send(plan.encode(vector)) if colludes else plan.contribution(vector, bits=bits)
        words += sent
    return plan.decode(words)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit of one plan showed. Both bounds hold together at `confidence`."""

    epsilon: float  # what the plan claims
    delta: float
    confidence: float
    runs: int  # with the canary, and as many without
    gaussian: float  # lower bound on ε, given that releases are Gaussian, and of the plan's samples
    any_mechanism: float  # lower bound on ε, whatever the mechanism
    attainable: float  # what the Gaussian bound tends to with ever more runs: the canary's own ε
    noise: NoiseSeen  # of runs without the canary: the canary sees one direction of it only

    @property
    def refuted(self) -> bool:
        """Whether the attack shows the claim to be wrong. What the noise itself shows is another matter."""
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

    The score is the likelihood ratio of an attacker who sees all releases and knows all others: the strongest
    there is against this mechanism.

    Args: totals, how sites' sums become one noisy total: a test puts a broken one here; watch, told how many
    of all runs are done.
    Raises: ValueError for fewer than 20 runs or fewer sites than the study needs.
    """
    if runs < 20:
        raise ValueError("an audit needs at least 20 runs of either kind")
    if sites < study.sites.minimum:
        raise ValueError(f"the study needs {study.sites.minimum} sites")
    canary = loud(study, generator)
    others = made_up(study, sites=sites, patients=PATIENTS_PER_SITE, generator=generator)
    if canary_attack.random_samples(study):
        others = [table.rows(np.zeros(len(table), dtype=bool)) for table in others]

    def attack(inside: int, totals: Totals) -> canary_attack.Attack:
        return canary_attack.attacked(study, others, canary, inside=bool(inside), bits=bits, totals=totals)

    squares = attack(1, noisy_total).squares  # not counted: what the canary can move
    event = study_noise.event(study, steps=study.training.steps)
    each = 1.0 - (1.0 - confidence) / 2.0  # of the two thresholds
    at = canary_attack.thresholds(
        study,
        squares,
        curves=(_curve(event, event.noise_multiplier * float(times)) for times in TOLD_APART),
        runs=runs,
        confidence=each,
        generator=generator,
    )
    scores = np.zeros((2, runs))
    noise: list[Vector] = []  # of each run [steps, numbers]
    for run in range(runs):
        for inside in (0, 1):
            told = attack(inside, totals)
            scores[inside, run] = told.score
            if not inside:
                _keep(noise, np.stack(told.releases))
            if watch is not None:
                watch(2 * run + inside + 1, 2 * runs)
    seen = [Seen.of(scores[1], scores[0], threshold=one) for one in at]
    delta = study.privacy.delta
    return Audit(
        epsilon=study.privacy.epsilon,
        delta=delta,
        confidence=confidence,
        runs=runs,
        gaussian=max(lower_bound(study, one, confidence=each) for one in seen),
        any_mechanism=max(bounds.epsilon(one, delta=delta, confidence=each) for one in seen),
        attainable=_attainable(study, squares),
        noise=residual.seen(np.stack(noise), promised_sd=_promised_sd(study, sites=sites)),
    )


def _keep(noise: list[Vector], of_one_run: Vector) -> None:
    """Add a run's noise while there is room; a local run that broke off has fewer steps, and is left out."""
    room = (len(noise) + 1) * of_one_run.size <= MOST_NUMBERS
    if not noise or (room and of_one_run.shape == noise[0].shape):
        noise.append(of_one_run)


def _promised_sd(study: Study, *, sites: int) -> float:
    """Return the standard deviation of a release's noise, less that of the colluding sites."""
    if study.local_training is not None:
        return study_noise.step_noise_plan(study).standard_deviation(contributors=1)
    plan = study_noise.noise_plan(study, participants=sites, tolerance=study.sites.tolerance)
    return plan.standard_deviation(contributors=sites - plan.tolerance)


def lower_bound(study: Study, seen: Seen, *, confidence: float) -> float:
    """Return the ε, at the plan's δ, of the most noise that is ruled out for releases of the plan's samples.

    Guarantee: if releases are Gaussian ones of the plan's samples, as the claim says, the bound exceeds their
    ε with probability at most 1 - confidence (privacy.audit.trade_off; Nasr et al. 2023, section 4).
    """
    event = study_noise.event(study, steps=study.training.steps)

    def refuted(multiplier: float) -> bool:
        return trade_off.ruled_out(seen, _curve(event, multiplier), confidence=confidence)

    allowed, ruled_out = event.noise_multiplier / WIDEST, event.noise_multiplier * WIDEST
    if not refuted(ruled_out):
        return 0.0  # so much noise would do
    for _ in range(_HALVINGS):
        middle = math.sqrt(allowed * ruled_out)
        allowed, ruled_out = (allowed, middle) if refuted(middle) else (middle, ruled_out)
    return epsilon([dataclasses.replace(event, noise_multiplier=ruled_out)], delta=study.privacy.delta)


def _curve(event: GaussianEvent | SampledGaussianEvent, multiplier: float) -> Curve:
    """Return how well the plan's releases could be told apart with another noise multiplier.

    By the accountant's own loss distributions, which never understate; so little noise that these cannot hold
    it allows anything.
    """
    if isinstance(event, GaussianEvent):
        return trade_off.gaussian(math.sqrt(event.count) / multiplier)
    if multiplier < sampled_gaussian.SMALLEST_MULTIPLIER_OF_PLD:
        return trade_off.of_deltas(np.zeros(1), np.ones(1))
    losses = sampled_gaussian.pld(multiplier, event.sampling_rate, event.count, GRID)
    at = np.linspace(0.0, LARGEST_LOSS, 97)
    return trade_off.of_deltas(at, np.array([losses.get_delta_for_epsilon(float(one)) for one in at]))


def _attainable(study: Study, squares: Sequence[float]) -> float:
    """Return the canary's own ε: what the bound tends to with ever more runs."""
    event = study_noise.event(study, steps=study.training.steps)
    # of one release of the event: a total of samples counts once for each of the sites, the noise in parts
    at_once = canary_attack.places(study)
    share = at_once**2 if isinstance(event, GaussianEvent) else at_once
    mean = float(np.mean(squares)) * share
    if not mean:
        return 0.0
    return epsilon([dataclasses.replace(event, noise_multiplier=mean**-0.5)], delta=study.privacy.delta)


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
    start = walks.begin(study, walks.initial(study))
    sizes = [
        float(np.linalg.norm(attacked_run.added(study, start, drawn.rows(row))))
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

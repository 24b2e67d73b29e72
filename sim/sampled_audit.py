"""Attacks on the training modes in which patients are drawn by coins: by shares of noise, and at each site.

The canary is the only patient: the guarantee is the same for any number, and the attacker knows all others
and their coins anyway. What they do not know is whether the canary was drawn. In the mode "local" they see
every noisy gradient of the sites that the canary is at: the claim holds without any trust in the sum, and for
all that is between two sums. A score is the exact likelihood ratio of all releases, for what the plan says of
noise and samples; nobody has a better one.

From errors to ε. Whoever tells the worlds apart with some error rates has shown that the noise of releases
with the plan's samples is not above some multiplier: its trade-off curve (by the accountant's own loss
distributions) would not allow these errors. The ε of that multiplier is the lower bound. It stands on the
releases being Gaussian ones of samples, as the claim does; `any_mechanism` stands on nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.contributions import contribution
from node.training.gradient import clipped_sums
from node.training.local_sgd import Site, Watch
from node.training.own_part import OwnPart
from privacy import sampled_gaussian, study_noise, study_releases, walks
from privacy.accountant import GaussianEvent, SampledGaussianEvent, epsilon
from privacy.audit.bounds import Errors, errors
from privacy.lattice import NoisePlan
from privacy.rng import SecureBits
from privacy.update_sums import UpdateSums
from privacy.walks import Walk
from protocols.study import Study

Vector = NDArray[np.float64]
Totals = Callable[[NoisePlan | UpdateSums, Sequence[Vector], SecureBits], Vector]

SIMULATED = 4000  # ideal runs by which the threshold is chosen, before any score is seen
WIDEST = 16.0  # times the plan's multiplier, either way: where the bound is looked for
GRID = 2.0**-8  # of loss distributions in bounds: they need two digits
_HALVINGS = 10


@dataclass(slots=True, eq=False)
class Attack:
    """What one run told: the log likelihood ratio, and how far each release can be moved, (|v|/σ)²."""

    score: float = 0.0
    squares: list[float] = field(default_factory=list)

    def hear(self, noisy: Vector, moved: Vector, *, sigma: float, rate: float, sites: int) -> None:
        """Take in one release that the canary moves by `moved` for each site at which it was drawn."""
        square = float(moved @ moved) / sigma**2
        told = np.array([float(noisy @ moved) / sigma**2])
        self.score += float(log_ratio(told, square, rate=rate, sites=sites)[0])
        self.squares.append(square)


def drawn_at_all(study: Study) -> bool:
    """Whether the attacks of this module are the ones for a study."""
    return (
        study.local_training is not None or study.training.sampling_rate < 1.0 or study.clipping is not None
    )


def attacked(
    study: Study,
    canary: FeatureTable,
    *,
    sites: int,
    inside: bool,
    bits: SecureBits,
    totals: Totals,
) -> Attack:
    """Run the plan once, with the canary at as many sites as a patient may be at, or without it."""
    plan = study_noise.private_plan(study, participants=sites, tolerance=study.sites.tolerance)
    nobody = canary.rows(np.zeros(1, dtype=bool))
    appearances = study.privacy.max_sites_per_patient
    found, carried = Attack(), walks.initial(study)
    keeps = [Site(bits) for _ in range(sites)]
    own = [OwnPart(study, bits=bits) for _ in range(sites)]  # in local training its noisy steps are seen too
    if study.local_training is not None:
        for keep in keeps[:appearances]:
            keep.watch = _watcher(study, canary, found)
    for _ in range(study.training.rounds):
        walk = walks.begin(study, carried)
        while not walk.finished:
            moved = None if study.local_training else _moved(study, walk, canary)
            sums = [
                contribution(
                    study,
                    walk,
                    canary if inside and at < appearances else nobody,
                    site=keep,
                    own=own[at].values if study.local_training else None,
                )
                for at, keep in enumerate(keeps)
            ]
            for part, each in zip(own, sums, strict=True):
                part.follow(each)
            total = totals(plan, [each.shared for each in sums], bits)
            if moved is not None:
                sigma = study_noise.noise_multiplier(study) * study.privacy.sensitivity
                rate = study.training.sampling_rate
                found.hear(total, moved, sigma=sigma, rate=rate, sites=appearances)
            walk.apply(total)
            for keep in keeps:
                keep.settle()
        carried = walk.carried
    return found


def _moved(study: Study, walk: Walk, canary: FeatureTable) -> Vector:
    """Return what one site adds of the canary to a sum if it is drawn there."""
    everybody = dataclasses.replace(study, training=dataclasses.replace(study.training, sampling_rate=1.0))
    return contribution(everybody, walk, canary, site=Site(SecureBits())).shared


def _watcher(study: Study, canary: FeatureTable, found: Attack) -> Watch:
    sigma = study_noise.noise_multiplier(study) * study.privacy.clip_norm
    rate = study_releases.sampling_rate(study)

    def watch(here: Vector, sample: FeatureTable, noisy: Vector) -> None:
        sums = clipped_sums(study, here[: study.parameters], canary, own=here[study.parameters :])
        found.hear(noisy, np.append(sums.shared, sums.own), sigma=sigma, rate=rate, sites=1)

    return watch


def log_ratio(told: Vector, square: float, *, rate: float, sites: int) -> Vector:
    """Return ln of (density with the canary / density without), for ⟨release, v⟩/σ² and (|v|/σ)².

    With the canary, the release moves by k·v, k binomial over its sites.
    """
    terms = []
    for k in range(sites + 1):
        chance = math.comb(sites, k) * rate**k * (1.0 - rate) ** (sites - k)
        if chance > 0.0:
            terms.append(math.log(chance) + k * told - k * k * square / 2.0)
    found: Vector = np.logaddexp.reduce(np.stack(terms), axis=0)
    return found


def thresholds(
    study: Study, squares: Sequence[float], *, runs: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the scores above which to say "in": two, as ideal runs tell, before a real one is seen.

    The best for as many runs as there will be; and the one half-way between both means, which serves where
    something is broken, so that scores lie elsewhere.
    """
    local = study.local_training is not None
    sites = 1 if local else study.privacy.max_sites_per_patient
    rate = study_releases.sampling_rate(study)
    scores = np.zeros((2, SIMULATED))
    for square in squares:
        for inside in (0, 1):
            drawn = generator.binomial(sites, rate, SIMULATED) if inside else np.zeros(SIMULATED)
            told = drawn * square + math.sqrt(square) * generator.normal(size=SIMULATED)
            scores[inside] += log_ratio(told, square, rate=rate, sites=sites)
    found = [(_told_apart(scores, at, runs), at) for at in np.quantile(scores, np.linspace(0.02, 0.98, 97))]
    return float(max(found)[1]), float(scores.mean())


def _told_apart(scores: Vector, at: float, runs: int) -> float:
    normal = NormalDist()
    wrong_in = (float((scores[0] > at).mean()) * runs + 2.0) / (runs + 4.0)  # as if two more had been wrong
    wrong_out = (float((scores[1] <= at).mean()) * runs + 2.0) / (runs + 4.0)
    return normal.inv_cdf(1.0 - wrong_in) - normal.inv_cdf(wrong_out)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds on ε: of Gaussian releases of samples, and of any mechanism."""

    gaussian: float
    any_mechanism: float


def bounds(study: Study, scores: Vector, at: Sequence[float], *, confidence: float) -> Bounds:
    """Return what the scores [without or with, runs] show: both bounds hold together with `confidence`."""
    each = 1.0 - (1.0 - confidence) / len(at)
    found = [errors(scores[1], scores[0], threshold=one, confidence=each) for one in at]
    return Bounds(
        max(lower_bound(study, one) for one in found),
        max(one.epsilon(delta=study.privacy.delta) for one in found),
    )


def lower_bound(study: Study, found: Errors) -> float:
    """Return the least ε, at the plan's δ, of releases of the plan's samples that allow these errors."""
    plan = study_noise.event(study, steps=study.training.steps)
    allowed, ruled_out = plan.noise_multiplier / WIDEST, plan.noise_multiplier * WIDEST
    if _allowed(_with(plan, ruled_out), found):
        return 0.0  # so much noise would do
    for _ in range(_HALVINGS):
        middle = math.sqrt(allowed * ruled_out)
        if _allowed(_with(plan, middle), found):
            allowed = middle
        else:
            ruled_out = middle
    return epsilon([_with(plan, ruled_out)], delta=study.privacy.delta)


def _with(plan: GaussianEvent | SampledGaussianEvent, multiplier: float) -> SampledGaussianEvent:
    rate = plan.sampling_rate if isinstance(plan, SampledGaussianEvent) else 1.0
    return SampledGaussianEvent(multiplier, rate, plan.count)


def _allowed(event: SampledGaussianEvent, found: Errors) -> bool:
    """Whether the trade-off curve of these releases lets an attacker be wrong as rarely as that."""
    if event.noise_multiplier < sampled_gaussian.SMALLEST_MULTIPLIER_OF_PLD:
        return True
    curve = sampled_gaussian.pld(event.noise_multiplier, event.sampling_rate, event.count, GRID)
    for at in np.linspace(0.0, 12.0, 49):
        delta = float(curve.get_delta_for_epsilon(float(at)))
        for one, other in (
            (found.false_positive, found.false_negative),
            (found.false_negative, found.false_positive),
        ):
            if 1.0 - other > math.exp(float(at)) * one + delta:
                return False
    return True


def attainable(study: Study, squares: Sequence[float]) -> float:
    """Return the canary's own ε: what the bound tends to with ever more runs."""
    plan = study_noise.event(study, steps=study.training.steps)
    sites = 1 if study.local_training is not None else study.privacy.max_sites_per_patient
    mean = float(np.mean(squares)) * sites
    return epsilon([_with(plan, 1.0 / math.sqrt(mean))], delta=study.privacy.delta) if mean else 0.0

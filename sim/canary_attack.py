"""An attack on one patient, the canary, in many runs: the exact likelihood ratio of all that a run releases.

The score is that of an attacker who knows all others: nobody has a better one. Where everybody takes part in
each step, other patients are there, and the attacker takes off what they add. Where patients are drawn by
coins, the canary is the only one: the guarantee is the same for any number, and what others' coins say is no
secret from this attacker. What they do not know is whether the canary was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.local_sgd import Watch
from privacy import study_noise, study_releases
from privacy.audit.trade_off import Curve
from privacy.rng import SecureBits
from privacy.walks import Walk
from protocols.study import Study
from sim.attacked_run import Totals, added, added_locally, run

Vector = NDArray[np.float64]

SIMULATED = 20_000  # ideal runs by which the threshold is chosen, before any score is seen
SURE = NormalDist().cdf(1.0)  # of that a threshold shows what it is chosen for: then others show little more


@dataclass(slots=True, eq=False)
class Attack:
    """What one run told: the log likelihood ratio, and how far each release can be moved, (|v|/σ)²."""

    score: float = 0.0
    squares: list[float] = field(default_factory=list)
    releases: list[Vector] = field(default_factory=list)  # less what others add: noise, without the canary

    def hear(self, noisy: Vector, moved: Vector, *, sigma: float, rate: float, sites: int) -> None:
        """Take in one release that the canary moves by `moved` for each site at which it was drawn."""
        square = float(moved @ moved) / sigma**2
        told = np.array([float(noisy @ moved) / sigma**2])
        self.score += float(log_ratio(told, square, rate=rate, sites=sites)[0])
        self.squares.append(square)
        self.releases.append(noisy)


def random_samples(study: Study) -> bool:
    """Whether a run hides who takes part in its steps, or computes them at its sites."""
    return study.local_training is not None or study_releases.sampling_rate(study) < 1.0


def places(study: Study) -> int:
    """Return at how many sites one release may have the canary."""
    return 1 if study.local_training is not None else study.privacy.max_sites_per_patient


def attacked(
    study: Study,
    others: Sequence[FeatureTable],
    canary: FeatureTable,
    *,
    inside: bool,
    bits: SecureBits,
    totals: Totals,
) -> Attack:
    """Run the plan once, with the canary at as many sites as a patient may be at, or without it.

    Args: others, of each site; nobody, where patients are drawn by coins.
    """
    appearances, found = study.privacy.max_sites_per_patient, Attack()
    tables = [
        _together([table, canary]) if inside and site < appearances else table
        for site, table in enumerate(others)
    ]
    watches: list[Watch | None] = [None] * len(tables)
    if study.local_training is not None:
        watches[:appearances] = [_watcher(study, canary, found)] * appearances
        run(study, tables, bits=bits, totals=totals, hears=None, watches=watches)
        return found
    sigma = study_noise.noise_multiplier(study) * study.privacy.sensitivity
    rate = study.training.sampling_rate

    everyone = _together(others)

    def hears(walk: Walk, total: Vector) -> None:
        known = added(study, walk, everyone) if len(everyone) else 0.0
        moved = added(study, walk, canary)
        found.hear(total - known, moved, sigma=sigma, rate=rate, sites=appearances)

    run(study, tables, bits=bits, totals=totals, hears=hears, watches=watches)
    return found


def _together(tables: Sequence[FeatureTable]) -> FeatureTable:
    return FeatureTable(
        np.concatenate([table.person_ids for table in tables]),
        np.concatenate([table.x for table in tables]),
        np.concatenate([table.mask for table in tables]),
        np.concatenate([table.y for table in tables]),
    )


def _watcher(study: Study, canary: FeatureTable, found: Attack) -> Watch:
    sigma = study_noise.noise_multiplier(study) * study.privacy.clip_norm
    rate = study_releases.sampling_rate(study)

    def watch(here: Vector, _sample: FeatureTable, noisy: Vector) -> None:
        found.hear(noisy, added_locally(study, here, canary), sigma=sigma, rate=rate, sites=1)

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
    study: Study,
    squares: Sequence[float],
    *,
    curves: Iterable[Curve],
    runs: int,
    confidence: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Return the scores above which to say "in": two, as ideal runs tell, before a real one is seen.

    The first rules out as much noise as so many runs can. The other is half-way between what is expected of
    either world, and serves where something is broken, so that scores lie elsewhere.

    Args: squares, as a run told that does not count; curves, of ever less noise, the plan's last.
    """
    scores = _ideal(study, squares, generator)
    middle = float(scores.mean())
    at = np.unique([*np.quantile(scores[0], np.linspace(0.5, 0.99, 50)), middle])
    alarms, misses = (scores[0][:, None] > at).mean(axis=0), (scores[1][:, None] <= at).mean(axis=0)
    price = np.exp(at)
    cost = misses + price * alarms
    spread = np.sqrt((misses * (1.0 - misses) + price**2 * alarms * (1.0 - alarms) + 1e-9) / runs)
    needed = NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(SURE)
    chances = np.concatenate([np.geomspace(1e-6, 0.5, 400), 1.0 - np.geomspace(1e-6, 0.5, 400)])
    chosen = middle
    for curve in curves:
        least = (curve(chances)[:, None] + price * chances[:, None]).min(axis=0)
        surprise = (least - cost) / spread
        if surprise.max() < needed:
            break  # nor is less noise than that ruled out
        chosen = float(at[np.argmax(surprise)])
    return chosen, middle


def _ideal(study: Study, squares: Sequence[float], generator: np.random.Generator) -> Vector:
    """Return scores of runs [without or with, runs] in which all is as the plan says."""
    sites, rate = places(study), study_releases.sampling_rate(study)
    scores = np.zeros((2, SIMULATED))
    for square in squares:
        for inside in (0, 1):
            drawn = generator.binomial(sites, rate, SIMULATED) if inside else np.zeros(SIMULATED)
            told = drawn * square + math.sqrt(square) * generator.normal(size=SIMULATED)
            scores[inside] += log_ratio(told, square, rate=rate, sites=sites)
    return scores

"""The audit of one run (Steinke, Nasr, Jagielski 2023): one training with many canaries, each in by a coin.

The attacker knows the plan, all canaries and the hospital of each, and guesses from what a run releases which
of them are in: from every noisy total, less the noise of colluding sites; in local training from every noisy
gradient at each hospital, which is more than ever leaves one. A canary's score adds up over the releases how
far each lies in the direction in which the canary would move it. The bound holds for any score; this one
leaves out that a canary may not have been drawn for a step, so samples hide more from it than from the exact
likelihood ratio of many runs (sim.canary_attack).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.local_sgd import Watch
from privacy import study_releases
from privacy.audit import bounds
from privacy.rng import SecureBits
from privacy.walks import Walk
from protocols.study import Study
from sim import attacked_run
from sim.attacked_run import Totals
from sim.privacy_audit import made_up, noisy_total

Vector = NDArray[np.float64]

DRAWN = 0.5  # a canary's chance to be in


@dataclass(frozen=True, slots=True)
class OneRun:
    """What the audit of a single run showed: of `guesses` about canaries, `right` were right."""

    epsilon: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    right: int
    bound: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is shown to be wrong."""
        return self.bound > self.epsilon


def audit_in_one_run(
    study: Study,
    *,
    canaries: int,
    sites: int,
    confidence: float,
    bits: SecureBits,
    generator: np.random.Generator,
    totals: Totals = noisy_total,
) -> OneRun:
    """Train once with about half of `canaries`, each in or out by a coin, and guess which were in.

    The attacker guesses the tenth that scores highest to be in, the lowest tenth to be out. The more
    parameters a model has, the better canaries can be told from one another.
    Raises: ValueError for fewer than 30 canaries or fewer sites than the study needs.
    """
    if canaries < 30:
        raise ValueError("an audit in one run needs at least 30 canaries")
    if sites < study.sites.minimum:
        raise ValueError(f"the study needs {study.sites.minimum} sites")
    drawn = made_up(study, sites=1, patients=canaries, generator=generator)[0]
    inside = generator.random(canaries) < DRAWN
    place = generator.integers(sites, size=canaries)
    scores = _scores(study, drawn, inside, place, sites=sites, bits=bits, totals=totals)
    tenth = canaries // 10
    order = np.argsort(scores)
    right = int(inside[order[-tenth:]].sum() + (~inside[order[:tenth]]).sum())
    privacy = study.privacy
    bound = bounds.one_run_epsilon(
        canaries=canaries, guesses=2 * tenth, right=right, delta=privacy.delta, confidence=confidence
    )
    return OneRun(privacy.epsilon, privacy.delta, confidence, canaries, 2 * tenth, right, bound)


def _scores(
    study: Study,
    drawn: FeatureTable,
    inside: NDArray[np.bool_],
    place: NDArray[np.int64],
    *,
    sites: int,
    bits: SecureBits,
    totals: Totals,
) -> Vector:
    """Run the plan once; return how much its releases speak for each canary."""
    scores = np.zeros(len(drawn))
    tables = [drawn.rows(inside & (place == site)) for site in range(sites)]
    if study.local_training is not None:
        watches = [_watcher(study, drawn, scores, place == site) for site in range(sites)]
        attacked_run.run(study, tables, bits=bits, totals=totals, hears=None, watches=watches)
        return scores

    def hears(walk: Walk, total: Vector) -> None:
        each = _each(drawn, range(len(drawn)), lambda row: attacked_run.added(study, walk, row))
        scores[:] += _told(study, each, total)

    attacked_run.run(study, tables, bits=bits, totals=totals, hears=hears, watches=[None] * sites)
    return scores


def _told(study: Study, each: Vector, noisy: Vector) -> Vector:
    """Return how far a release lies towards each canary, from where half of them would put it."""
    mean = DRAWN * study_releases.sampling_rate(study) * each.sum(axis=0)
    found: Vector = each @ (noisy - mean)
    return found


def _watcher(study: Study, drawn: FeatureTable, scores: Vector, here: NDArray[np.bool_]) -> Watch:
    canaries = np.flatnonzero(here)

    def watch(at: Vector, _sample: FeatureTable, noisy: Vector) -> None:
        if len(canaries):
            each = _each(drawn, canaries, lambda row: attacked_run.added_locally(study, at, row))
            scores[canaries] += _told(study, each, noisy)

    return watch


def _each(
    drawn: FeatureTable, rows: Sequence[int] | NDArray[np.int64], one: Callable[[FeatureTable], Vector]
) -> Vector:
    places = np.arange(len(drawn))
    return np.stack([one(drawn.rows(places == row)) for row in rows])

"""The audit of one run (Steinke, Nasr, Jagielski 2023): one training with many canaries, each in by a coin.

The attacker knows the plan, all canaries and the hospital of each, and guesses from what a run releases which
of them are in: from every noisy total, less the noise of colluding sites; in local training from every noisy
gradient at each hospital, which is more than ever leaves one. A canary's score adds up over the releases how
far each lies in the direction in which the canary would move it. The bound holds for any score; this one
leaves out that a canary may not have been drawn for a step, so samples hide more from it than from the exact
likelihood ratio of many runs (sim.sampled_audit).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.training.contributions import contribution
from node.training.gradient import clipped_sums
from node.training.local_sgd import Site, Watch
from privacy import study_noise, study_releases, walks
from privacy.audit import bounds
from privacy.rng import SecureBits
from privacy.walks import Walk
from protocols.study import Study
from sim.privacy_audit import made_up, noisy_total
from sim.sampled_audit import Totals

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
    scores, local = np.zeros(len(drawn)), study.local_training is not None
    tables = [drawn.rows(inside & (place == site)) for site in range(sites)]
    keeps = [Site(bits) for _ in range(sites)]
    if local:
        for site, keep in enumerate(keeps):
            keep.watch = _watcher(study, drawn, scores, place == site)
    plan = study_noise.private_plan(study, participants=sites, tolerance=study.sites.tolerance)
    carried = walks.initial(study)
    for _ in range(study.training.rounds):
        walk = walks.begin(study, carried)
        while not walk.finished:
            each = None if local else _moved(study, walk, drawn)
            sums = [
                contribution(study, walk, table, site=keep).shared
                for table, keep in zip(tables, keeps, strict=True)
            ]
            total = totals(plan, sums, bits)
            if each is not None:
                scores += _told(study, each, total)
            walk.apply(total)
            for keep in keeps:
                keep.settle()
        carried = walk.carried
    return scores


def _told(study: Study, each: Vector, noisy: Vector) -> Vector:
    """Return how far a release lies towards each canary, from where half of them would put it."""
    mean = DRAWN * study_releases.sampling_rate(study) * each.sum(axis=0)
    found: Vector = each @ (noisy - mean)
    return found


def _watcher(study: Study, drawn: FeatureTable, scores: Vector, here: NDArray[np.bool_]) -> Watch:
    canaries = np.flatnonzero(here)

    def watch(at: Vector, _sample: FeatureTable, noisy: Vector) -> None:
        shared, own = at[: study.parameters], at[study.parameters :]

        def one(row: FeatureTable) -> Vector:
            sums = clipped_sums(study, shared, row, own=own)
            return np.append(sums.shared, sums.own)

        if len(canaries):
            scores[canaries] += _told(study, _each(drawn, canaries, one), noisy)

    return watch


def _moved(study: Study, walk: Walk, drawn: FeatureTable) -> Vector:
    """Return what each canary adds to a sum for which it is drawn: [canaries, numbers of a sum]."""
    everybody = dataclasses.replace(study, training=dataclasses.replace(study.training, sampling_rate=1.0))
    nothing = Site(SecureBits())  # with everybody drawn, no coin is thrown

    def one(row: FeatureTable) -> Vector:
        return contribution(everybody, walk, row, site=nothing).shared

    return _each(drawn, range(len(drawn)), one)


def _each(
    drawn: FeatureTable, rows: Sequence[int] | NDArray[np.int64], one: Callable[[FeatureTable], Vector]
) -> Vector:
    places = np.arange(len(drawn))
    return np.stack([one(drawn.rows(places == row)) for row in rows])

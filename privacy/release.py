"""The arithmetic of one question, the same at every site and at the reader: its price and its noise."""

from __future__ import annotations

from privacy import sensitivity
from privacy.accountant import GaussianEvent, calibrate
from privacy.lattice import NoisePlan
from protocols.question import Mechanism, Question


def price(question: Question) -> GaussianEvent:
    """Return what one release of the question costs each site, for one patient over all of their sites.

    Raises: ValueError if no noise multiplier reaches the question's epsilon and delta.
    """
    _must_be_gaussian(question)
    return GaussianEvent(calibrate(epsilon=question.epsilon, delta=question.delta, count=1))


def plan(question: Question, *, participants: int, tolerance: int) -> NoisePlan:
    """Return how a site encodes its vector and draws its share of the noise.

    Guarantee: a total of at least participants - tolerance honest sites is (epsilon, delta)-DP for one
    patient who is in at most `max_sites_per_patient` of them. Its event is `price(question)`.
    Raises: ValueError.
    """
    _must_be_gaussian(question)
    moved = sensitivity.of(question)
    return NoisePlan.for_counts(
        sigma=price(question).noise_multiplier * moved.l2,
        sensitivity=moved.l2,
        participants=participants,
        tolerance=tolerance,
        dimension=len(question.labels),
        largest=moved.largest,
    )


def _must_be_gaussian(question: Question) -> None:
    if question.mechanism is not Mechanism.GAUSSIAN:
        raise ValueError("only the gaussian mechanism")

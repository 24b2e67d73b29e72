"""The arithmetic of one question, the same at every site and at the reader: its price and its noise."""

from __future__ import annotations

from privacy import sensitivity
from privacy.accountant import Event, GaussianEvent, PureEvent, calibrate
from privacy.lattice import NoisePlan
from privacy.polya import LaplacePlan
from protocols.question import Mechanism, Question

Plan = NoisePlan | LaplacePlan


def price(question: Question) -> Event:
    """Return what one release of the question costs each site, for one patient over all of their sites.

    Raises: ValueError if no noise multiplier reaches the question's epsilon and delta.
    """
    match question.mechanism:
        case Mechanism.GAUSSIAN:
            return _gaussian(question)
        case Mechanism.LAPLACE:
            return PureEvent(question.epsilon)


def plan(question: Question, *, participants: int, tolerance: int) -> Plan:
    """Return how a site encodes its vector and draws its share of the noise.

    Guarantee: a total of at least participants - tolerance honest sites is (epsilon, delta)-DP for one
    patient who is in at most `max_sites_per_patient` of them. Its event is `price(question)`.
    Raises: ValueError.
    """
    moved = sensitivity.of(question)
    match question.mechanism:
        case Mechanism.GAUSSIAN:
            return NoisePlan.for_counts(
                sigma=_gaussian(question).noise_multiplier * moved.l2,
                sensitivity=moved.l2,
                participants=participants,
                tolerance=tolerance,
                dimension=len(question.labels),
                largest=moved.largest,
            )
        case Mechanism.LAPLACE:
            return LaplacePlan.for_counts(
                epsilon=question.epsilon,
                l1_sensitivity=moved.l1,
                participants=participants,
                tolerance=tolerance,
                dimension=len(question.labels),
                largest=moved.largest,
            )


def _gaussian(question: Question) -> GaussianEvent:
    return GaussianEvent(calibrate(epsilon=question.epsilon, delta=question.delta, count=1))

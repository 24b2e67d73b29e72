"""The arithmetic of one cohort count, the same at every site and at the reader: plan, price, error bar."""

from __future__ import annotations

import numpy as np

from privacy.accountant import GaussianEvent, calibrate
from privacy.lattice import NoisePlan
from protocols.question import CountAnswer, CountQuestion
from protocols.wire import fedtwin_pb2 as pb

NORMAL_975 = 1.959963984540054  # 97.5 % point of N(0, 1): 95 % lie within this many deviations


def price(question: CountQuestion) -> GaussianEvent:
    """Return what one release of the question costs each site, for one patient over all of their sites.

    Raises: ValueError if no noise multiplier reaches the question's epsilon and delta.
    """
    return GaussianEvent(calibrate(epsilon=question.epsilon, delta=question.delta, count=1))


def plan(question: CountQuestion, *, participants: int, tolerance: int) -> NoisePlan:
    """Return how a site encodes its count and draws its share of the noise.

    Guarantee: a total of at least participants - tolerance honest sites is (epsilon, delta)-DP for one
    patient who is in at most `max_sites_per_patient` of them. Its event is `price(question)`.
    Raises: ValueError.
    """
    sensitivity = question.max_sites_per_patient
    return NoisePlan.for_counts(
        sigma=price(question).noise_multiplier * sensitivity,
        sensitivity=sensitivity,
        participants=participants,
        tolerance=tolerance,
    )


def read_answer(question: CountQuestion, wire: pb.CountAnswer) -> CountAnswer:
    """Return the estimate and its error bar from the noisy total on the lattice.

    Raises: ValueError if the coordinator's figures contradict each other or name another question.
    """
    if wire.question_id != question.question_id.raw or not 1 <= wire.releases <= question.attempts:
        raise ValueError("an answer to something else")
    shares = plan(question, participants=wire.participants, tolerance=wire.tolerance)
    deviation = shares.standard_deviation(contributors=wire.contributors)
    estimate = float(shares.decode(np.array([wire.scaled_total], dtype=np.int64).view(np.uint64))[0])
    return CountAnswer(
        question_id=question.question_id,
        estimate=estimate,
        ci95=(estimate - NORMAL_975 * deviation, estimate + NORMAL_975 * deviation),
        standard_deviation=deviation,
        epsilon=question.epsilon,
        delta=question.delta,
        max_sites_per_patient=question.max_sites_per_patient,
        contributors=wire.contributors,
        participants=wire.participants,
        tolerance=wire.tolerance,
        releases=wire.releases,
    )

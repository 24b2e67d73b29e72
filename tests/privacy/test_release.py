"""What a site charges for a count is what the count's noise is worth, and the reader sees its error bar."""

from datetime import UTC, datetime

import numpy as np
import pytest

from privacy import accountant, reading, release
from privacy.rng import SecureBits
from protocols.cohort import Cohort
from protocols.question import Question
from protocols.wire import fedtwin_pb2 as pb

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def question(*, epsilon: float = 1.0, sites: int = 2) -> Question:
    cohort = Cohort.parse({"index": {"kind": "condition", "concepts": [317576]}})
    return Question.ask(
        cohort, project="demo", epsilon=epsilon, delta=1e-6, max_sites_per_patient=sites, now=NOW
    )


def answer_of(asked: Question, counts: list[int], *, participants: int, tolerance: int) -> pb.Answer:
    plan = release.plan(asked, participants=participants, tolerance=tolerance)
    bits = SecureBits()
    total = sum(
        (plan.contribution(np.array([count]), bits=bits) for count in counts), np.zeros(1, dtype=np.uint64)
    )
    return pb.Answer(
        question_id=asked.question_id.raw,
        scaled_totals=[int(total.view(np.int64)[0])],
        contributors=len(counts),
        participants=participants,
        tolerance=tolerance,
        releases=1,
    )


def test_the_price_of_a_question_is_the_epsilon_it_names() -> None:
    for epsilon in (0.1, 1.0, 4.0):
        spent = accountant.epsilon([release.price(question(epsilon=epsilon))], delta=1e-6)
        assert 0.999 * epsilon < spent <= epsilon


def test_the_plan_of_a_question_costs_its_price_at_any_number_of_sites() -> None:
    asked = question()
    for participants, tolerance in ((3, 0), (4, 1), (40, 5)):
        plan = release.plan(asked, participants=participants, tolerance=tolerance)
        assert plan.noise_multiplier == pytest.approx(release.price(asked).noise_multiplier, rel=1e-12)
        assert plan.sensitivity == 2


def test_the_interval_covers_the_count_95_times_in_100_and_is_not_wider_than_that() -> None:
    asked = question()
    errors = []
    deviation = 0.0
    for _ in range(2000):
        answer = reading.read_answer(asked, answer_of(asked, [100, 20, 3], participants=4, tolerance=1))
        errors.append(abs(answer.estimate - 123))
        deviation = answer.standard_deviation
    covered = np.mean(np.array(errors) <= reading.NORMAL_975 * deviation)
    assert 0.935 < covered < 0.965  # 3 standard errors either side
    assert np.mean(np.array(errors) <= reading.NORMAL_975 * deviation / 2) < 0.75  # half as wide fails


def test_a_total_of_fewer_sites_than_the_noise_tolerates_is_no_answer() -> None:
    asked = question()
    with pytest.raises(ValueError, match="not what the plan promises"):
        reading.read_answer(asked, answer_of(asked, [1, 2], participants=4, tolerance=1))


def test_an_answer_to_another_question_is_refused() -> None:
    wire = answer_of(question(), [1, 2, 3, 4], participants=4, tolerance=1)
    with pytest.raises(ValueError, match="something else"):
        reading.read_answer(question(), wire)

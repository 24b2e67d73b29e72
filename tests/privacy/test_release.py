"""What a site charges for a count is what the count's noise is worth, and the reader sees its error bar."""

from datetime import UTC, datetime

import numpy as np
import pytest

from privacy import accountant, reading, release, sensitivity
from privacy.accountant import PureEvent
from protocols import statistic_form
from protocols.cohort import Cohort
from protocols.question import Mechanism, Question
from protocols.wire import fedtwin_pb2 as pb
from tests.privacy.seeded_bits import SeededBits

NORMAL_975 = 1.959964  # quantile of the standard normal
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OUTCOME = {"index": {"kind": "condition", "concepts": [4306655]}}
STATISTICS = (
    {"kind": "count"},
    {"kind": "breakdown", "by": "sex", "total": True},
    {"kind": "breakdown", "by": "site_count_band", "edges": [10, 100]},
    {"kind": "histogram", "concept": 3004249, "edges": [100.0, 120.0, 140.0]},
    {"kind": "mean", "concept": 3004249, "lower": 60.0, "upper": 220.0},
    {"kind": "contingency", "other": OUTCOME},
    {"kind": "incidence", "outcome": OUTCOME, "first_year": 2018, "last_year": 2021},
    {"kind": "survival", "outcome": OUTCOME, "horizon_days": 365, "interval_days": 30},
    {"kind": "attrition"},
    {"kind": "feasibility", "at_least": 10},
)


def question(*, epsilon: float = 1.0, sites: int = 2, pure: bool = False, **statistic: object) -> Question:
    cohort = Cohort.parse({"index": {"kind": "condition", "concepts": [317576]}})
    return Question.ask(
        cohort,
        project="demo",
        epsilon=epsilon,
        delta=0.0 if pure else 1e-6,
        max_sites_per_patient=sites,
        now=NOW,
        statistic=statistic_form.parse(statistic or {"kind": "count"}),
        mechanism=Mechanism.LAPLACE if pure else Mechanism.GAUSSIAN,
    )


def answer_of(
    asked: Question, counts: list[int], *, participants: int, tolerance: int, seed: int = 1
) -> pb.Answer:
    plan = release.plan(asked, participants=participants, tolerance=tolerance)
    bits = SeededBits(seed)
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
    for seed in range(2000):
        wire = answer_of(asked, [100, 20, 3], participants=4, tolerance=1, seed=seed)
        answer = reading.read_answer(asked, wire)
        errors.append(abs(answer.estimate - 123))
        deviation = answer.standard_deviation
    covered = np.mean(np.array(errors) <= NORMAL_975 * deviation)
    assert 0.935 < covered < 0.965  # 3 standard errors either side
    assert np.mean(np.array(errors) <= NORMAL_975 * deviation / 2) < 0.75  # half as wide fails


def test_a_total_of_fewer_sites_than_the_noise_tolerates_is_no_answer() -> None:
    asked = question()
    with pytest.raises(ValueError, match="not what the plan promises"):
        reading.read_answer(asked, answer_of(asked, [1, 2], participants=4, tolerance=1))


def test_an_answer_to_another_question_is_refused() -> None:
    wire = answer_of(question(), [1, 2, 3, 4], participants=4, tolerance=1)
    with pytest.raises(ValueError, match="something else"):
        reading.read_answer(question(), wire)


def test_a_pure_question_costs_its_epsilon_and_no_delta() -> None:
    for epsilon in (0.1, 1.0, 4.0):
        assert release.price(question(epsilon=epsilon, pure=True)) == PureEvent(epsilon)


@pytest.mark.parametrize("pure", [False, True], ids=["gaussian", "laplace"])
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda form: form["kind"])
def test_every_statistic_has_a_plan_whose_exact_total_comes_back(statistic: dict, pure: bool) -> None:
    """The noise is near nothing at epsilon 64 against cells of a million, and of the right dimension."""
    asked = question(epsilon=64.0, sites=1, pure=pure, **statistic)
    plan = release.plan(asked, participants=3, tolerance=1)
    cells = np.arange(len(asked.labels), dtype=np.int64) * 1_000_003 + 7
    bits = SeededBits(1)
    total = sum(
        (plan.contribution(cells * (site + 1), bits=bits) for site in range(3)),
        np.zeros(len(cells), dtype=np.uint64),
    )
    off = plan.decode(total) - 6 * cells
    assert np.abs(off).max() <= 8 * plan.standard_deviation(contributors=3)
    assert plan.standard_deviation(contributors=3) < 0.35 * sensitivity.of(asked).l1


def test_the_pure_plan_is_calibrated_to_the_l1_sensitivity_of_all_sites_of_a_patient() -> None:
    for statistic in STATISTICS:
        for sites in (1, 2, 5):
            asked = question(epsilon=0.5, sites=sites, pure=True, **statistic)
            plan = release.plan(asked, participants=10, tolerance=1)
            assert float(plan.rate) * sensitivity.of(asked).l1 == pytest.approx(0.5, rel=1e-12)


def test_pure_noise_has_the_promised_deviation_and_one_ten_percent_off_is_noticed() -> None:
    asked = question(pure=True, kind="breakdown", by="year", first_year=1900, last_year=2200)
    plan = release.plan(asked, participants=4, tolerance=1)
    bits, zeros = SeededBits(1), np.zeros(len(asked.labels), dtype=np.int64)
    draws = [sum(plan.contribution(zeros, bits=bits) for _ in range(3)).view(np.int64) for _ in range(40)]
    noise = np.concatenate(draws).astype(float)  # 12,080 draws
    promised = plan.standard_deviation(contributors=3)
    assert promised == pytest.approx(2 * 1.4, rel=0.03)  # near sqrt(2)/rate for rate 1/2
    assert abs(noise.std() / promised - 1) < 0.06  # five standard errors of a kurtosis of 6
    assert abs(noise.std() / (1.1 * promised) - 1) > 0.06

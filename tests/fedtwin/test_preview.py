"""A preview's figures are those that the answer will have, and those worked out by hand."""

import json
import math

import pytest

from fedtwin.preview import Preview, budget_request, expected_errors
from fedtwin.results import read
from privacy.accountant import GaussianEvent, PureEvent, calibrate, epsilon
from protocols.canonical import decode
from protocols.question import Mechanism, Question
from protocols.statistic import (
    MEAN_UNIT,
    UNIT,
    Attrition,
    Breakdown,
    By,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    OneValue,
    Statistic,
    Survival,
)
from protocols.wire import fedtwin_pb2 as pb
from tests.fedtwin.answers import OUTCOME, answered, question

Z = 1.959963984540054
SITES, TOLERANCE = 4, 1
MULTIPLIER = calibrate(epsilon=1.0, delta=1e-6, count=1)
SD = MULTIPLIER * math.sqrt(SITES / (SITES - TOLERANCE))  # of one cell, for patients known to one site


def described(connected: int = SITES, minimum: int = 3) -> pb.DescribeReply:
    return pb.DescribeReply(connected=connected, minimum_sites=minimum, tolerance=TOLERANCE)


def preview_of(asked: Question, *, connected: int = SITES) -> Preview:
    budget = pb.BudgetReply(
        project="demo", delta=1e-6, epsilon=0.5, releases=3, cached=1, epsilon_with_next=1.125
    )
    return Preview.of(asked, described(connected), budget)


def half(*, sensitivity: float = 1.0, cells: int = 1) -> float:
    return Z * SD * sensitivity * math.sqrt(cells)


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        (Count(), {"patients": half()}),
        (Breakdown(By.SEX), {"patients in each cell": half(), "their total": half(cells=3)}),
        (
            Breakdown(By.SEX, total=True),
            dict.fromkeys(
                ("patients in each cell", "their total"), half(sensitivity=math.sqrt(2)) * math.sqrt(3 / 4)
            ),
        ),
        (
            Breakdown(By.SITE_COUNT_BAND, edges=(5, 50)),
            {"hospitals in each band": half(sensitivity=math.sqrt(2)) * math.sqrt(2 / 3)},
        ),
        (
            Histogram(OneValue(1), (1.0, 2.0)),
            {"patients in each cell": half(), "their total": half(cells=4)},
        ),
        (
            Mean(OneValue(1), 4, 14),
            {
                "patients with a value": half(sensitivity=math.sqrt(3)),
                "mean, if 1,000 have a value": 5 * half(sensitivity=math.sqrt(3)) / 1000,
            },
        ),
        (
            Incidence(OUTCOME, 2019, 2020),  # one event and √(2)·724/1024 of person-time: √2 in L2
            {
                "events in each period": half(sensitivity=math.sqrt(UNIT**2 + 2 * 724**2) / UNIT),
                "person-years in each period": half(sensitivity=math.sqrt(UNIT**2 + 2 * 724**2))
                / 724
                * 366
                / 365.25,
            },
        ),
        (Survival(OUTCOME, 90, 30), {"patients in each interval": half(), "at risk at first": half(cells=7)}),
        (Attrition(), {"after the last rule": half(), "before any rule": half(cells=3)}),
        (Feasibility(10), {"hospitals": half()}),
    ],
)
def test_expected_errors_are_those_worked_out_by_hand(
    statistic: Statistic, expected: dict[str, float]
) -> None:
    found = expected_errors(question(statistic), sites=SITES, tolerance=TOLERANCE)
    assert found == pytest.approx(expected, rel=2e-3)  # the lattice adds a tenth of a per cent


@pytest.mark.parametrize("mechanism", list(Mechanism))
def test_the_error_of_a_count_is_the_one_that_its_answer_states(mechanism: Mechanism) -> None:
    asked = question(Count(), mechanism=mechanism, sites=2)
    found = expected_errors(asked, sites=SITES, tolerance=TOLERANCE)
    answer = read(answered(asked, [10_000], seed=1, participants=SITES, tolerance=TOLERANCE)).raw
    assert found["patients"] == pytest.approx((answer.ci95[1] - answer.ci95[0]) / 2)


def test_laplace_is_recommended_for_few_cells_and_gaussian_where_a_patient_is_in_many() -> None:
    assert preview_of(question(Count())).better is Mechanism.LAPLACE
    assert preview_of(question(Count(), mechanism=Mechanism.LAPLACE)).better is Mechanism.LAPLACE
    monthly = Incidence(OUTCOME, 2000, 2020)
    assert preview_of(question(monthly, mechanism=Mechanism.LAPLACE)).better is Mechanism.GAUSSIAN
    assert preview_of(question(monthly)).better is Mechanism.GAUSSIAN


def test_the_recommended_mechanism_is_the_one_with_the_smaller_errors() -> None:
    for statistic in (Count(), Incidence(OUTCOME, 2000, 2020)):
        found = preview_of(question(statistic))
        smaller = sum(found.errors.values()) < sum(found.other_errors.values())
        assert smaller == (found.better is Mechanism.GAUSSIAN)


def test_a_preview_asks_the_mirror_what_the_release_would_add() -> None:
    asked = budget_request(question(Count()))
    assert (asked.project, asked.delta) == ("demo", 1e-6)
    assert decode(asked.next.encode(), max_bytes=1000) == GaussianEvent(MULTIPLIER).to_json()
    assert epsilon([GaussianEvent(MULTIPLIER)], delta=1e-6) == pytest.approx(1.0, rel=1e-3)
    pure = budget_request(question(Count(), mechanism=Mechanism.LAPLACE))
    assert pure.delta == 1e-6
    assert decode(pure.next.encode(), max_bytes=1000) == PureEvent(1.0).to_json()


def test_a_preview_says_the_cost_what_was_spent_and_what_would_be() -> None:
    found = preview_of(question(Count()))
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["cost"]["epsilon"] == 1.0
    assert value["cost"]["releases_at_most"] == 2
    assert value["project"]["epsilon"] == 0.5
    assert value["project"]["epsilon_after"] == 1.125
    assert value["cells"] == ["patients"]
    for words in ("0.5 spent, 1.12 with this", "4 connected", "mechanism laplace errs less"):
        assert words in repr(found)
    assert "<script" not in found._repr_html_()


def test_with_too_few_hospitals_a_preview_says_so_and_gives_no_error() -> None:
    found = preview_of(question(Count()), connected=2)
    assert not found.errors
    assert not found.to_json()["enough_hospitals"]
    assert "too few hospitals" in repr(found)


def test_the_error_of_a_mean_shrinks_with_the_range_that_is_clipped_to() -> None:
    name = "mean, if 1,000 have a value"
    wide, narrow = (
        expected_errors(question(Mean(OneValue(1), 0, upper)), sites=4, tolerance=1)[name]
        for upper in (100, 10)
    )
    assert wide == pytest.approx(10 * narrow)
    assert MEAN_UNIT > 1

"""What a patient can change, as numbers. That no patient changes more, and one as much: tests/node."""

import math
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy import sensitivity
from protocols import statistic_form
from protocols.cohort import Cohort
from protocols.question import Question
from protocols.statistic import MAX_CELLS, UNIT, Incidence, Step

COHORT = Cohort.parse({"index": {"kind": "condition", "concepts": [317576]}})
OUTCOME = {"index": {"kind": "condition", "concepts": [4306655]}}
Q = 4_096
AT_ONE_SITE = {  # L1, L2²
    "count": ({"kind": "count"}, 1, 1),
    "breakdown": ({"kind": "breakdown", "by": "sex"}, 1, 1),
    "with total": ({"kind": "breakdown", "by": "age_band", "edges": [18, 65], "total": True}, 2, 2),
    "site band": ({"kind": "breakdown", "by": "site_count_band", "edges": [10, 100]}, 2, 2),
    "histogram": ({"kind": "histogram", "concept": 3004249, "edges": [100.0, 120.0]}, 1, 1),
    "mean": ({"kind": "mean", "concept": 3004249, "lower": 60.0, "upper": 220.0}, 3 * Q, 3 * Q**2),
    "contingency": ({"kind": "contingency", "other": OUTCOME}, 1, 1),
    # four years: 1024 for the event, 512 of person-time in each year
    "incidence": (
        {"kind": "incidence", "outcome": OUTCOME, "first_year": 2018, "last_year": 2021},
        1024 + 4 * 512,
        1024**2 + 4 * 512**2,
    ),
    "survival": ({"kind": "survival", "outcome": OUTCOME, "horizon_days": 365, "interval_days": 30}, 1, 1),
    "attrition": ({"kind": "attrition"}, 1, 1),
    "feasibility": ({"kind": "feasibility", "at_least": 10}, 1, 1),
}


@pytest.mark.parametrize("sites", [1, 2, 5])
@pytest.mark.parametrize("name", AT_ONE_SITE)
def test_a_patient_of_several_hospitals_moves_as_many_vectors(name: str, sites: int) -> None:
    form, l1, squared = AT_ONE_SITE[name]
    asked = Question.ask(
        COHORT,
        project="demo",
        epsilon=1.0,
        delta=1e-6,
        max_sites_per_patient=sites,
        now=datetime(2026, 11, 21, 9, 0, tzinfo=UTC),
        statistic=statistic_form.parse(form),
    )
    found = sensitivity.of(asked)
    assert found.l1 == sites * l1
    assert found.l2 == pytest.approx(sites * math.sqrt(squared), rel=1e-12)
    # rounded up where it is not a whole number: less noise than is charged for is never added
    assert Fraction(found.l2) ** 2 >= sites**2 * squared


@given(st.integers(1, MAX_CELLS // 24), st.sampled_from(Step))
def test_person_time_weighs_as_much_as_an_event_and_no_more(years: int, step: Step) -> None:
    asked = Incidence(COHORT, 2000, 2000 + years - 1, step)
    whole, periods = sensitivity.person_time_unit(asked), len(asked.periods)
    assert periods * whole**2 <= UNIT**2 < periods * (whole + 1) ** 2
    assert whole >= 1

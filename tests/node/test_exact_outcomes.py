"""Outcomes of exact studies, from records: counts of them, and days until something happens."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from node.features.study_rows import feature_table
from node.omop.store import OmopStore
from protocols.study import Study
from tests.node.patients import AF, DAY, HEART_FAILURE, SBP, Patient, fill
from tests.protocols.exact_forms import exact_form


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb", threads=1) as opened:
        yield opened


def days(count: int) -> date:
    return DAY + timedelta(days=count)


def test_a_count_is_that_of_the_persons_records_up_to_the_most(store: OmopStore) -> None:
    form = exact_form("poisson")
    form["outcome"] = form["outcome"] | {"most": 3, "window": [0, 100]}
    fill(
        store,
        [
            Patient(1),
            Patient(2, conditions=[(HEART_FAILURE, days(1)), (HEART_FAILURE, days(50)), (AF, days(2))]),
            Patient(3, conditions=[(HEART_FAILURE, days(day)) for day in range(1, 9)]),
            Patient(4, conditions=[(HEART_FAILURE, days(101)), (HEART_FAILURE, days(100))]),
        ],
    )
    found = feature_table(Study.from_json(form), store)
    assert found.person_ids.tolist() == [1, 2, 3, 4]
    assert found.y.tolist() == [0.0, 2.0, 3.0, 1.0]


def test_days_are_until_the_outcome_or_until_nobody_looked_any_more(store: OmopStore) -> None:
    """A patient's observation ends with the last thing that is known of them, or on the plan's last day."""
    seen = (SBP, 120.0)
    fill(
        store,
        [
            Patient(1, conditions=[(HEART_FAILURE, days(40))], measurements=[(*seen, days(90))]),
            Patient(2, measurements=[(*seen, days(90))]),
            Patient(3, measurements=[(*seen, days(900))]),
            Patient(4, conditions=[(HEART_FAILURE, days(301))], measurements=[(*seen, days(400))]),
            Patient(5, conditions=[(HEART_FAILURE, days(300))], measurements=[(*seen, days(400))]),
            Patient(6, conditions=[(HEART_FAILURE, days(0))]),
        ],
    )
    found = feature_table(Study.from_json(exact_form("cox")), store)  # until day 300
    assert found.person_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.y.tolist() == [[40, 1], [90, 0], [300, 0], [300, 0], [300, 1], [0, 1]]


def test_a_curve_reads_no_features_and_has_the_same_days(store: OmopStore) -> None:
    fill(
        store,
        [
            Patient(1, conditions=[(HEART_FAILURE, days(7))]),
            Patient(2, measurements=[(SBP, 120.0, days(20))]),
        ],
    )
    curve = Study.from_json(exact_form("kaplan-meier"))
    found = feature_table(curve, store)
    assert found.x.shape == (2, 0)
    assert found.y.tolist() == [[7, 1], [20, 0]]
    assert "measurement" not in curve.tables
    assert {"observation_period", "condition_occurrence"} <= curve.tables

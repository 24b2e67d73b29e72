"""What is predicted: classes, amounts and times, for those of whom they are known."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.node.patients import AF, DAY, HEART_FAILURE, NO, SBP, SMOKER, YES, Patient, fill
from tests.protocols.study_forms import study_form


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb", threads=1) as opened:
        yield opened


def days(count: int) -> date:
    return DAY + timedelta(days=count)


def table(store: OmopStore, outcome: dict, *patients: Patient) -> FeatureTable:
    fill(store, patients)
    return feature_table(Study.from_json(study_form(outcome=outcome)), store)


def test_a_class_is_a_place_in_the_plans_list_and_another_class_is_not_in_the_study(store: OmopStore) -> None:
    outcome = {"kind": "class", "table": "observation", "concept_id": SMOKER, "categories": [NO, YES, AF]}
    found = table(
        store,
        outcome,
        *(
            Patient(place, observations=[(SMOKER, c, DAY)])
            for place, c in enumerate((YES, NO, 77, AF), start=1)
        ),
        Patient(9),
    )
    assert found.person_ids.tolist() == [1, 2, 4]
    assert found.y.tolist() == [sorted((NO, YES, AF)).index(c) for c in (YES, NO, AF)]


def test_an_amount_lies_on_its_public_range(store: OmopStore) -> None:
    outcome = {"kind": "amount", "table": "measurement", "concept_id": SBP, "range": [100, 200]}
    values = (100.0, 175.0, 500.0)
    patients = [
        Patient(place, measurements=[(SBP, value, DAY)]) for place, value in enumerate(values, start=1)
    ]
    found = table(store, outcome, *patients, Patient(9))
    assert found.y.tolist() == [-1.0, 0.5, 1.0]


def test_times_are_intervals_lived_through_and_whether_it_came(store: OmopStore) -> None:
    outcome = {
        "kind": "time",
        "table": "condition_occurrence",
        "concept_id": HEART_FAILURE,
        "edges": [30, 90],
    }
    later = [(SBP, 120.0, days(400))]
    found = table(
        store,
        outcome,
        Patient(1, conditions=[(HEART_FAILURE, days(5))]),
        Patient(2, conditions=[(HEART_FAILURE, days(30)), (HEART_FAILURE, days(80))]),
        Patient(3, conditions=[(HEART_FAILURE, days(90))], measurements=later),  # beyond the last edge
        Patient(4, measurements=later),
        Patient(5, measurements=[(SBP, 120.0, days(40))]),  # observed no longer
    )
    assert found.y.tolist() == [[0, 1], [1, 1], [2, 0], [2, 0], [1, 0]]


def test_who_has_it_before_the_index_date_is_not_at_risk(store: OmopStore) -> None:
    form = study_form(
        outcome={"kind": "time", "table": "condition_occurrence", "concept_id": HEART_FAILURE, "edges": [30]},
        cohort={"index": {"kind": "condition", "concepts": [AF]}},
    )
    before = Patient(1, conditions=[(HEART_FAILURE, days(-1)), (AF, DAY)])
    fill(store, [before, Patient(2, conditions=[(HEART_FAILURE, days(3)), (AF, DAY)])])
    assert feature_table(Study.from_json(form), store).person_ids.tolist() == [2]


@pytest.mark.parametrize(
    ("outcome", "path"),
    [
        ({"kind": "time", "table": "death", "edges": [90, 30]}, "outcome.edges"),
        ({"kind": "time", "table": "death", "edges": [30], "window": [0, 9]}, "outcome.window"),
        ({"kind": "amount", "table": "death", "range": [0, 1]}, "outcome.table"),
        ({"kind": "class", "table": "observation", "concept_id": 1, "codes": [1]}, "outcome.codes"),
        ({"kind": "present", "table": "death", "concept_id": 1}, "outcome.concept_id"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(outcome: dict, path: str) -> None:
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(study_form(outcome=outcome))
    assert refused.value.path == path

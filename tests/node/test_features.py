"""Features follow from a person's own records and the public plan, and from nothing else."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from node.features.splitting import in_training
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from protocols.study import Study
from tests.node.patients import AF, DAY, HEART_FAILURE, NO, SBP, SMOKER, YES, Patient, fill
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form())
AGE, MALE, PRESSURE, MISSING, ATRIAL, SMOKES = range(6)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb", threads=1) as opened:
        yield opened


def days(count: int) -> date:
    return DAY + timedelta(days=count)


def table(store: OmopStore, *patients: Patient, **changes: object) -> FeatureTable:
    fill(store, patients)
    return feature_table(Study.from_json(study_form(**changes)), store)


def features(**changes: object) -> list[dict]:
    form = study_form()["features"]
    form[2] |= changes
    return form


def test_columns_are_scaled_by_the_public_ranges_and_clipped(store: OmopStore) -> None:
    found = table(
        store,
        Patient(2, born=1960, measurements=[(SBP, 165.0, DAY)], observations=[(SMOKER, YES, DAY)]),
        Patient(1, born=1900, sex=8532, measurements=[(SBP, 999.0, DAY)], conditions=[(AF, DAY)]),
        Patient(3, born=2000, conditions=[(HEART_FAILURE, DAY)], observations=[(SMOKER, NO, DAY)]),
    )
    assert found.person_ids.tolist() == [1, 2, 3]
    assert found.x.dtype == np.float32
    assert found.x[:, AGE].tolist() == [1.0, 0.0, -1.0]  # 90 (capped) of [30, 90], 60, and 20 below the range
    assert found.x[:, MALE].tolist() == [0.0, 1.0, 1.0]
    assert found.x[:, PRESSURE].tolist() == [1.0, 0.5, 0.0]
    assert found.x[:, MISSING].tolist() == [0.0, 0.0, 1.0]
    assert found.x[:, ATRIAL].tolist() == [1.0, 0.0, 0.0]
    assert found.x[:, SMOKES].tolist() == [0.0, 1.0, 0.0]
    assert found.mask[:, PRESSURE].tolist() == [True, True, False]
    assert found.mask[:, SMOKES].tolist() == [False, True, True]
    assert found.y.tolist() == [0.0, 0.0, 1.0]


def test_a_signed_yes_or_no_has_its_middle_at_what_is_not_known(store: OmopStore) -> None:
    form = study_form()["features"]
    signed = [f | {"signed": True} if f["kind"] in ("sex", "present", "category") else f for f in form]
    found = table(
        store,
        Patient(1, sex=8532, conditions=[(AF, DAY)]),
        Patient(2, observations=[(SMOKER, YES, DAY)]),
        Patient(3, observations=[(SMOKER, NO, DAY)]),
        features=signed,
    )
    assert found.x[:, MALE].tolist() == [-1.0, 1.0, 1.0]
    assert found.x[:, ATRIAL].tolist() == [1.0, -1.0, -1.0]  # no record of a condition says no
    assert found.x[:, SMOKES].tolist() == [0.0, 1.0, -1.0]  # nobody asked the first


@pytest.mark.parametrize(
    ("pick", "expected"),
    [("latest", 170.0), ("earliest", 100.0), ("mean", 135.0), ("minimum", 100.0), ("maximum", 180.0)],
)
def test_one_value_per_person_is_picked(store: OmopStore, pick: str, expected: float) -> None:
    readings = [(SBP, 180.0, days(1)), (SBP, 170.0, days(2)), (SBP, 100.0, DAY), (SBP, 90.0, days(1))]
    found = table(store, Patient(1, measurements=readings), features=features(pick=pick, plausible=[95, 300]))
    value = (found.x[0, PRESSURE] + 1) / 2 * 100 + 90
    assert value == pytest.approx(expected if pick != "mean" else 150.0)


def test_values_in_another_unit_or_beyond_belief_count_as_missing(store: OmopStore) -> None:
    found = table(
        store,
        Patient(1, measurements=[(SBP, 16.0, DAY)], unit=44777602),
        Patient(2, measurements=[(SBP, 0.0, DAY)]),
        Patient(3, measurements=[(SBP, None, DAY)]),
        Patient(4, measurements=[(SBP, float("nan"), DAY), (SBP, float("inf"), DAY)]),
        features=features(plausible=[40, 300]),
    )
    assert not found.mask[:, PRESSURE].any()
    assert np.isfinite(found.x).all()
    assert found.x[:, PRESSURE].tolist() == [0.0] * 4


def test_who_lacks_a_required_feature_has_no_row(store: OmopStore) -> None:
    found = table(
        store,
        Patient(1, measurements=[(SBP, 120.0, DAY)]),
        Patient(2),
        features=features(exclude_missing=True),
    )
    assert found.person_ids.tolist() == [1]


def test_windows_are_days_around_the_index_date(store: OmopStore) -> None:
    found = table(
        store,
        Patient(
            1, measurements=[(SBP, 120.0, DAY), (SBP, 190.0, days(20))], conditions=[(HEART_FAILURE, days(5))]
        ),
        Patient(2, measurements=[(SBP, 190.0, days(11))], conditions=[(HEART_FAILURE, days(400))]),
        features=features(window=[-10, 10]),
        outcome__window=[1, 365],
    )
    assert found.x[:, PRESSURE].tolist() == pytest.approx([-0.4, 0.0])
    assert found.y.tolist() == [1.0, 0.0]


def test_an_outcome_by_value_leaves_out_whom_nobody_measured(store: OmopStore) -> None:
    found = table(
        store,
        Patient(1, measurements=[(SBP, 150.0, DAY)]),
        Patient(2, measurements=[(SBP, 110.0, DAY)]),
        Patient(3),
        outcome={"kind": "value", "table": "measurement", "concept_id": SBP, "at_least": 140},
    )
    assert found.person_ids.tolist() == [1, 2]
    assert found.y.tolist() == [1.0, 0.0]


def test_other_patients_change_nothing_in_a_row(store: OmopStore) -> None:
    fill(store, [Patient(n, measurements=[(SBP, 100.0 + n, DAY)]) for n in range(1, 20)])
    before = feature_table(STUDY, store)
    others = [Patient(n, born=1990, measurements=[(SBP, 189.0, DAY)]) for n in range(20, 60)]
    fill(store, others, name="more")
    after = feature_table(STUDY, store)
    same = np.isin(after.person_ids, before.person_ids)
    assert np.array_equal(after.x[same], before.x)


def test_a_store_without_patients_gives_an_empty_table(store: OmopStore) -> None:
    found = feature_table(STUDY, store)
    assert len(found) == 0
    assert found.x.shape == (0, 6)


def test_the_split_is_keyed_repeatable_and_of_about_the_asked_size() -> None:
    people = np.arange(-500, 4500)
    first = in_training(people, key=b"k" * 16, fraction=0.66)
    assert np.array_equal(first, in_training(people, key=b"k" * 16, fraction=0.66))
    assert not np.array_equal(first, in_training(people, key=b"l" * 16, fraction=0.66))
    assert abs(first.mean() - 0.66) < 0.03  # 4.5 standard deviations
    assert in_training(people, key=b"k" * 16, fraction=1.0).all()
    part = in_training(people, key=b"k" * 16, fraction=0.3)
    assert first[part].all()  # a smaller part lies within a larger one


def test_the_split_needs_a_real_key() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        in_training(np.arange(3), key=b"short", fraction=0.5)

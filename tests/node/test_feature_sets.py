"""Features of a set follow from what was known of a person on their index date, and of nobody else."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from fedtwin.study_file import read_study
from node.features.people import People
from node.features.store import FeatureStore
from node.features.study_rows import feature_rows, feature_table
from node.omop.store import OmopStore
from node.omop.tables import cdm_tables
from node.training import inputs
from protocols.cohort import Cohort
from protocols.feature_set import FeatureSet
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.protocols.feature_set_forms import feature_set_form
from tests.protocols.study_forms import fusion_form

INDEX = date(2020, 5, 1)
SET = FeatureSet.from_json(feature_set_form())
COHORT = Cohort.parse({"index": {"kind": "procedure", "concepts": [77]}})
NAMES = [name for feature in SET.features for name in feature.columns]
OUTCOME = {"kind": "present", "table": "condition_occurrence", "concept_id": 1, "window": [1, 365]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb", threads=1) as opened:
        yield opened


def put(store: OmopStore, table: str, **values: Any) -> None:
    """Insert a record; what it must have and nobody said is 0 or the index date."""
    row = {
        field.name: INDEX if field.datatype == "date" else 0
        for field in cdm_tables()[table].fields
        if field.required and field.datatype != "text" and not field.datatype.startswith("varchar")
    } | values
    marks = ", ".join("?" * len(row))
    cursor = store.cursor()
    cursor.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    cursor.close()


def day(count: int) -> date:
    return INDEX + timedelta(days=count)


def person(store: OmopStore, who: int, *, index: date = INDEX, born: int = 1960) -> None:
    put(store, "person", person_id=who, year_of_birth=born, gender_concept_id=8507)
    put(store, "procedure_occurrence", procedure_occurrence_id=who, person_id=who, procedure_concept_id=77,
        procedure_date=index)  # fmt: skip


def condition(store: OmopStore, record: int, who: int, when: date, code: str, concept: int = 0) -> None:
    put(store, "condition_occurrence", condition_occurrence_id=record, person_id=who,
        condition_concept_id=concept, condition_start_date=when, condition_source_value=code)  # fmt: skip


def measurement(
    store: OmopStore, record: int, who: int, when: date, concept: int, value: float, unit: int
) -> None:
    put(store, "measurement", measurement_id=record, person_id=who, measurement_concept_id=concept,
        measurement_date=when, value_as_number=value, unit_concept_id=unit)  # fmt: skip


def visit(store: OmopStore, record: int, who: int, start: date, end: date, concept: int = 9201) -> None:
    put(store, "visit_occurrence", visit_occurrence_id=record, person_id=who, visit_concept_id=concept,
        visit_start_date=start, visit_end_date=end)  # fmt: skip


def rows(store: OmopStore) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    x, mask, _ = feature_rows(SET.features, SET, People.read(COHORT, store), store)
    return dict(zip(NAMES, x.T, strict=True)), dict(zip(NAMES, mask.T, strict=True))


def history(store: OmopStore, who: int, *, first: int) -> None:
    """A person with something in each modality before the index date."""
    person(store, who)
    visit(store, first, who, day(-30), day(-26))
    visit(store, first + 1, who, day(-300), day(-300), concept=9202)
    condition(store, first, who, day(-30), "ICD10CM:E11.22")
    condition(store, first + 1, who, day(-400), "E11.9")
    condition(store, first + 2, who, day(-60), "I48", concept=313217)
    for place, (when, value) in enumerate(((-10, 150.0), (-20, 145.0), (-40, 135.0))):
        measurement(store, first + place, who, day(when), 3004249, value, 8876)
    measurement(store, first + 10, who, day(-9), 2000100005, 125.0, 9571)
    measurement(store, first + 11, who, day(-300), 2000100007, 1.5, 0)
    measurement(store, first + 12, who, day(-3), 40771067, 3000.0, 0)
    measurement(store, first + 13, who, day(-2), 40771067, 6000.0, 0)


def test_each_kind_of_feature_is_computed_as_its_definition_says(store: OmopStore) -> None:
    history(store, 1, first=100)
    person(store, 2)
    x, seen = rows(store)
    assert x["charlson:diabetes"].tolist() == [1.0, 0.0]
    assert x["charlson:diabetes-complicated"].tolist() == [1.0, 0.0]
    assert x["charlson"].tolist() == pytest.approx([0.2, 0.0])  # the complicated form alone: 2 of 10
    assert x["recent:313217@30"][0] == pytest.approx(1 - np.exp(-(2 ** (-60 / 30))))
    assert x["recent:313217@365"][0] == pytest.approx(1 - np.exp(-(2 ** (-60 / 365))))
    assert x["recent:316139@30"].tolist() == [0.0, 0.0]
    assert x["sbp"][0] == pytest.approx(0.2)  # 150 on [90, 190]
    assert x["sbp-trend"][0] == pytest.approx(0.5)  # it rises by half a unit a day
    assert x["visits"][0] == pytest.approx(np.log(2) / np.log(21))  # the other one is too long ago
    assert x["days-inside"][0] == pytest.approx(np.log(6) / np.log(61))
    assert x["nodule-volume"][0] == pytest.approx(-0.5)
    assert x["risk-score"][0] == pytest.approx(0.5)
    assert x["steps"][0] == pytest.approx(2 * 4500 / 15000 - 1)
    for name in ("charlson", "recent:313217@30", "visits", "sbp", "sbp-trend", "steps", "risk-score"):
        assert seen[name].tolist() == [True, False]  # who was never seen has no codes that say anything
    assert seen["age"].all()
    assert seen["sbp:missing"].all()


def test_no_event_after_the_index_date_changes_a_feature(store: OmopStore) -> None:
    history(store, 1, first=100)
    before, seen_before = rows(store)
    for ahead in (1, 30, 400):
        condition(store, 1000 + ahead, 1, day(ahead), "C79.9", concept=316139)
        measurement(store, 1000 + ahead, 1, day(ahead), 3004249, 189.0, 8876)
        measurement(store, 2000 + ahead, 1, day(ahead), 40771067, 15000.0, 0)
        visit(store, 1000 + ahead, 1, day(ahead), day(ahead + 9))
    after, seen_after = rows(store)
    for name in NAMES:
        assert np.array_equal(before[name], after[name]), name
        assert np.array_equal(seen_before[name], seen_after[name]), name
    condition(store, 9999, 1, day(-1), "C79.9")  # what was known does change it
    assert rows(store)[0]["charlson"][0] == pytest.approx(0.8)


def test_a_stay_counts_up_to_the_index_date_only(store: OmopStore) -> None:
    person(store, 1)
    visit(store, 1, 1, day(-2), day(50))
    assert rows(store)[0]["days-inside"][0] == pytest.approx(np.log(4) / np.log(61))


def test_what_was_recorded_after_the_index_date_was_not_known_then(store: OmopStore) -> None:
    for who in (1, 2):
        person(store, who)
        visit(store, who, who, day(-5), day(-5))
        condition(store, who, who, day(-5), "C79.9")
    cursor = store.cursor()
    for who, told in ((1, day(3)), (2, day(-4))):
        cursor.execute(
            "INSERT INTO fedtwin_provenance (load_id, table_name, record_id, source_row, recorded_at)"
            " VALUES (1, 'condition_occurrence', ?, 1, ?)",
            [who, datetime(told.year, told.month, told.day, 12)],
        )
    cursor.close()
    assert rows(store)[0]["charlson:metastatic-cancer"].tolist() == [0.0, 1.0]


def test_whose_conditions_carry_no_such_code_is_not_taken_for_healthy(store: OmopStore) -> None:
    for who, codes in ((1, ["44054006"]), (2, ["44054006", "E11.9"]), (3, []), (4, ["Z00.0"])):
        person(store, who)
        visit(store, who, who, day(-5), day(-5))
        for place, code in enumerate(codes):
            condition(store, 10 * who + place, who, day(-5), code)
    found, seen = rows(store)
    assert found["charlson:diabetes"].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert seen["charlson"].tolist() == [False, True, True, True]


def test_a_persons_row_depends_on_that_person_only(store: OmopStore) -> None:
    history(store, 1, first=100)
    alone, _ = rows(store)
    for who in range(2, 12):
        history(store, who, first=1000 * who)
    crowd, _ = rows(store)
    assert all(alone[name][0] == crowd[name][0] for name in NAMES)


def test_a_note_says_what_it_affirms_of_its_own_patient(store: OmopStore) -> None:
    form = feature_set_form()
    form["modalities"].append({"name": "notes", "observed_by": "note_nlp", "window": [-365, 0]})
    form["features"].append(
        {"name": "dyspnoea", "kind": "present", "table": "note_nlp", "concept_id": 312437}
        | {"modality": "notes", "window": [-365, 0]}
    )
    features = FeatureSet.from_json(form)
    for who, exists, when in ((1, "Y", -5), (2, "N", -5), (3, "Y", 5), (4, "Y", -5)):
        person(store, who)
        put(store, "note", note_id=who, person_id=who, note_date=day(when), note_text="")
        put(store, "note_nlp", note_nlp_id=who, note_id=who, note_nlp_concept_id=312437 if who < 4 else 1,
            term_exists=exists, lexical_variant="", nlp_date=day(9))  # fmt: skip
    x, mask, _ = feature_rows(features.features, features, People.read(COHORT, store), store)
    assert x[:, -1].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert mask[:, -1].tolist() == [True, False, False, True]


def test_a_fusion_study_over_a_set_knows_which_modalities_each_patient_has(store: OmopStore) -> None:
    history(store, 1, first=100)
    person(store, 2)
    form = fusion_form("attention")
    del form["features"]
    form |= {"feature_set": feature_set_form(), "outcome": OUTCOME, "cohort": COHORT.to_json()}
    study = Study.from_json(form)
    table = feature_table(study, store)
    assert [m.name for m in study.modalities] == list(SET.shapes())
    assert inputs.presence(study, table).tolist() == [[True] * 7, [True] + [False] * 6]


def test_a_study_file_may_name_the_file_of_its_set(tmp_path: Path) -> None:
    form = fusion_form("early")
    del form["features"]
    form |= {"feature_set": "cardio.toml", "outcome": OUTCOME}
    (tmp_path / "study.toml").write_text(tomli_w.dumps(form))
    (tmp_path / "cardio.toml").write_text(tomli_w.dumps(feature_set_form()))
    study = read_study(tmp_path / "study.toml")
    assert study.feature_set == SET
    assert study == Study.from_json(form | {"feature_set": feature_set_form()})
    (tmp_path / "study.toml").write_text(tomli_w.dumps(form | {"feature_set": "../cardio.toml"}))
    with pytest.raises(MalformedStudy, match="own folder"):
        read_study(tmp_path / "study.toml")


# ---- the store of features ----


def asked(found: Any) -> list[int | None]:
    return [int(when) if there else None for there, when in zip(found.found, found.index_day, strict=True)]


def days(*dates: date) -> np.ndarray:
    return np.array([(when - date(1970, 1, 1)).days for when in dates], dtype=np.int64)


def test_kept_features_are_joined_as_of_a_day_and_never_from_later(tmp_path: Path, store: OmopStore) -> None:
    history(store, 1, first=100)
    person(store, 2, index=day(10))
    kept = FeatureStore(tmp_path / "features")
    assert kept.fill(SET, COHORT, store) == 2
    who = np.array([2, 1, 1, 3, 2])
    found = kept.as_of(SET, store, who, days(day(20), day(-1), day(5), day(5), day(9)))
    assert asked(found) == [days(day(10))[0], None, days(INDEX)[0], None, None]
    x, _ = rows(store)
    assert found.x[2].tolist() == pytest.approx([float(x[name][0]) for name in NAMES])
    assert not found.mask[1].any()
    near = kept.as_of(SET, store, who, days(day(20), day(-1), day(5), day(5), day(9)), max_age_days=7)
    assert asked(near) == [None, None, days(INDEX)[0], None, None]


def test_features_of_another_state_of_the_store_or_another_set_are_not_found(
    tmp_path: Path, store: OmopStore
) -> None:
    history(store, 1, first=100)
    kept = FeatureStore(tmp_path / "features")
    kept.fill(SET, COHORT, store)
    form = feature_set_form()
    form["features"][3]["range"] = [80, 190]
    with pytest.raises(FileNotFoundError):
        kept.as_of(FeatureSet.from_json(form), store, np.array([1]), days(day(1)))
    cursor = store.cursor()
    cursor.execute(
        "INSERT INTO fedtwin_load (load_id, source_name, source_sha256, mapping_name, mapping_sha256,"
        " loaded_at, rows, quarantined, events)"
        " VALUES (7, 'a', 'b', 'c', 'd', TIMESTAMP '2026-01-01', 1, 0, 0)"
    )
    cursor.close()
    with pytest.raises(FileNotFoundError):
        kept.as_of(SET, store, np.array([1]), days(day(1)))
    kept.fill(SET, COHORT, store)
    files = list((tmp_path / "features").iterdir())
    assert len(files) == 1  # what was computed from older data is gone
    assert files[0].stat().st_mode & 0o077 == 0


def test_who_withdraws_is_in_no_file_any_more(tmp_path: Path, store: OmopStore) -> None:
    for who in (1, 2):
        history(store, who, first=1000 * who)
    kept = FeatureStore(tmp_path / "features")
    kept.fill(SET, COHORT, store)
    assert kept.forget([1]) == 1
    assert kept.forget([1]) == 0
    found = kept.as_of(SET, store, np.array([1, 2]), days(day(1), day(1)))
    assert found.found.tolist() == [False, True]


def test_the_store_says_of_how_many_patients_each_modality_is_there(tmp_path: Path, store: OmopStore) -> None:
    history(store, 1, first=100)
    person(store, 2)
    kept = FeatureStore(tmp_path / "features")
    kept.fill(SET, COHORT, store)
    assert kept.present(SET, store) == dict.fromkeys(SET.shapes(), 1) | {"person": 2}

"""Counts equal hand-written SQL, and a person's membership is theirs alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.omop.errors import NoSuchTable
from node.omop.store import OmopStore
from node.queries.cohort import count, persons, tables
from protocols.cohort import Cohort
from tests.bench.stores import concepts_of, make_store

CONDITIONS = concepts_of("condition_occurrence", 40)
MEASUREMENTS = concepts_of("measurement", 40)
DRUGS = concepts_of("drug_exposure", 40)
OBSERVATIONS = concepts_of("observation", 40)
PROCEDURES = concepts_of("procedure_occurrence", 40)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OmopStore]:
    path = make_store(tmp_path_factory.mktemp("store") / "omop.duckdb", persons=400, events=12_000, seed=11)
    with OmopStore.open(path) as opened:
        yield opened


def listed(concepts: list[int]) -> str:
    return ", ".join(map(str, concepts))


FIRST = f"""
    WITH i AS (SELECT person_id, min(condition_start_date) AS day FROM condition_occurrence
               WHERE condition_concept_id IN ({listed(CONDITIONS[:8])}) GROUP BY person_id)
"""
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "one condition": (
        {"index": {"kind": "condition", "concepts": CONDITIONS[:1]}},
        "SELECT count(DISTINCT person_id) FROM condition_occurrence"
        f" WHERE condition_concept_id = {CONDITIONS[0]}",
    ),
    "a drug at least twice": (
        {"index": {"kind": "drug", "concepts": DRUGS[:5], "at_least": 2}},
        "SELECT count(*) FROM (SELECT person_id FROM drug_exposure"
        f" WHERE drug_concept_id IN ({listed(DRUGS[:5])}) GROUP BY person_id HAVING count(*) >= 2)",
    ),
    "a value in a window": (
        {
            "index": {"kind": "condition", "concepts": CONDITIONS[:8]},
            "include": [
                {
                    "kind": "measurement",
                    "concepts": MEASUREMENTS[:20],
                    "value": {"min": 90, "max": 110},
                    "unit": 8840,
                    "window": {"from_days": -365, "to_days": 30},
                    "at_least": 2,
                }
            ],
        },
        FIRST
        + " SELECT count(*) FROM i WHERE (SELECT count(*) FROM measurement m WHERE m.person_id = i.person_id"
        f" AND measurement_concept_id IN ({listed(MEASUREMENTS[:20])}) AND value_as_number BETWEEN 90 AND 110"
        " AND unit_concept_id = 8840"
        " AND measurement_date BETWEEN i.day - INTERVAL 365 DAY AND i.day + INTERVAL 30 DAY) >= 2",
    ),
    "age, sex and no procedure after": (
        {
            "index": {"kind": "condition", "concepts": CONDITIONS[:8]},
            "include": [
                {"kind": "age", "min_years": 40, "max_years": 70},
                {"kind": "sex", "concepts": [8532]},
            ],
            "exclude": [
                {"kind": "procedure", "concepts": PROCEDURES, "window": {"from_days": 1, "to_days": 2000}},
                {"kind": "observation", "concepts": OBSERVATIONS[:3], "value": {"max": 90}},
            ],
        },
        FIRST + " SELECT count(*) FROM i JOIN person USING (person_id) WHERE gender_concept_id = 8532"
        " AND year(day) - year_of_birth BETWEEN 40 AND 70"
        " AND NOT EXISTS (SELECT 1 FROM procedure_occurrence p WHERE p.person_id = i.person_id"
        f" AND procedure_concept_id IN ({listed(PROCEDURES)})"
        " AND datediff('day', day, procedure_date) BETWEEN 1 AND 2000)"
        " AND NOT EXISTS (SELECT 1 FROM observation o WHERE o.person_id = i.person_id"
        f" AND observation_concept_id IN ({listed(OBSERVATIONS[:3])}) AND value_as_number <= 90)",
    ),
    "excluded by age": (
        {
            "index": {"kind": "condition", "concepts": CONDITIONS[:8]},
            "exclude": [{"kind": "age", "min_years": 60}],
        },
        FIRST + " SELECT count(*) FROM i JOIN person USING (person_id) WHERE year(day) - year_of_birth < 60",
    ),
    "no index event": (
        {"include": [{"kind": "sex", "concepts": [8507]}, {"kind": "age", "max_years": 30}]},
        "SELECT count(*) FROM person JOIN observation_period USING (person_id) WHERE gender_concept_id = 8507"
        " AND year(observation_period_start_date) - year_of_birth <= 30",
    ),
    "a value concept nobody has": (
        {"include": [{"kind": "observation", "concepts": OBSERVATIONS, "value_concepts": [45877994]}]},
        "SELECT 0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_count_equals_hand_written_sql(store: OmopStore, name: str) -> None:
    form, statement = CASES[name]
    row = store.connection.con.execute(statement).fetchone()
    assert row is not None
    assert count(Cohort.parse(form), store) == row[0]
    assert name == "a value concept nobody has" or 0 < row[0] < 400


def test_each_person_is_counted_once(store: OmopStore) -> None:
    cohort = Cohort.parse(CASES["a value in a window"][0])
    ids = persons(cohort, store).person_id.to_pyarrow().to_pylist()
    assert len(ids) == len(set(ids)) == count(cohort, store)


def test_descendants_count_where_asked_and_where_there_is_a_vocabulary(tmp_path: Path) -> None:
    path = make_store(tmp_path / "omop.duckdb", persons=200, events=4_000, seed=12)
    parent = 4_000_001
    asked = {"kind": "condition", "concepts": [parent], "descendants": True}
    with OmopStore.open(path) as opened:
        assert count(Cohort.parse({"index": asked}), opened) == 0
        opened.connection.con.execute(
            "INSERT INTO concept_ancestor VALUES (?, ?, 1, 1), (?, ?, 0, 0)",
            [parent, CONDITIONS[0], parent, parent],
        )
        assert count(Cohort.parse({"index": asked | {"descendants": False}}), opened) == 0
        plain = Cohort.parse({"index": {"kind": "condition", "concepts": CONDITIONS[:1]}})
        assert count(Cohort.parse({"index": asked}), opened) == count(plain, opened) > 0


def events() -> st.SearchStrategy[dict[str, Any]]:
    kinds = {"condition": CONDITIONS, "drug": DRUGS, "procedure": PROCEDURES, "measurement": MEASUREMENTS}
    return st.sampled_from(sorted(kinds)).flatmap(
        lambda kind: st.fixed_dictionaries(
            {
                "kind": st.just(kind),
                "concepts": st.lists(st.sampled_from(kinds[kind]), min_size=1, max_size=6),
            },
            optional={"at_least": st.integers(1, 3)},
        )
    )


windows = st.tuples(st.integers(-2000, 2000), st.integers(0, 2000)).map(
    lambda ends: {"from_days": ends[0], "to_days": ends[0] + ends[1]}
)
criteria = st.one_of(
    events(),
    st.tuples(events(), windows).map(lambda pair: pair[0] | {"window": pair[1]}),
    st.just({"kind": "sex", "concepts": [8532]}),
    st.integers(20, 80).map(lambda age: {"kind": "age", "min_years": age}),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events(), st.lists(criteria, max_size=3), st.lists(criteria, max_size=2), st.integers(0, 59))
def test_dropping_a_patient_changes_nobody_elses_membership(
    small: OmopStore,
    index: dict[str, Any],
    include: list[dict[str, Any]],
    exclude: list[dict[str, Any]],
    dropped: int,
) -> None:
    """The sensitivity of a count is 1 per site because of this."""
    cohort = Cohort.parse({"index": index, "include": include, "exclude": exclude})
    cursor = small.connection.con
    everyone = sorted(row[0] for row in cursor.execute("SELECT person_id FROM person").fetchall())
    gone = everyone[dropped]
    before = set(persons(cohort, small).person_id.to_pyarrow().to_pylist())
    cursor.execute("BEGIN")
    try:
        for name in ("person", "observation_period", *tables(cohort)):
            cursor.execute(f"DELETE FROM {name} WHERE person_id = ?", [gone])
        after = set(
            cursor.execute(small.connection.compile(persons(cohort, small)))
            .fetchnumpy()["person_id"]
            .tolist()
        )
    finally:
        cursor.execute("ROLLBACK")
    assert after == before - {gone}


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OmopStore]:
    path = make_store(tmp_path_factory.mktemp("small") / "omop.duckdb", persons=60, events=3_000, seed=13)
    with OmopStore.open(path) as opened:
        yield opened


def test_the_tables_a_question_reads_are_known_before_it_runs() -> None:
    whole = Cohort.parse(CASES["age, sex and no procedure after"][0])
    assert tables(whole) == {"condition_occurrence", "person", "procedure_occurrence", "observation"}
    assert tables(Cohort.parse(CASES["no index event"][0])) == {"person", "observation_period"}


def test_gi_bleeds_and_celecoxib_on_eunomia(shared_data: Path) -> None:
    file = shared_data / "omop_gibleed/GiBleed_5.4.duckdb"
    with OmopStore.open(file, read_only=True, schema="cdm") as gibleed:
        bleed = {"kind": "condition", "concepts": [192671]}
        celecoxib = {"kind": "drug", "concepts": [1118084]}
        assert count(Cohort.parse({"index": bleed}), gibleed) == 479
        assert count(Cohort.parse({"index": celecoxib}), gibleed) == 1_844
        before = celecoxib | {"window": {"from_days": -36_000, "to_days": 0}}
        row = gibleed.connection.con.execute(
            "WITH i AS (SELECT person_id, min(condition_start_date) AS day FROM cdm.condition_occurrence"
            " WHERE condition_concept_id = 192671 GROUP BY 1) SELECT count(*) FROM i WHERE EXISTS (SELECT 1"
            " FROM cdm.drug_exposure d WHERE d.person_id = i.person_id AND drug_concept_id = 1118084"
            " AND drug_exposure_start_date <= day)"
        ).fetchone()
        assert row is not None
        assert count(Cohort.parse({"index": bleed, "include": [before]}), gibleed) == row[0] > 0
        with pytest.raises(NoSuchTable):
            gibleed.table("fedtwin_load")

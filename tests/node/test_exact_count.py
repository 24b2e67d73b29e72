"""Exact counts of Circe definitions: those of hand-written SQL, and of the Java reference on 100 cohorts."""

import csv
import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from node.omop.errors import NoSuchTable, NotAStore, NotTheCdm, NoVocabulary, UnknownStore
from node.queries import circe
from node.queries.exact_count import count
from node.queries.limits import Limits, OutOfMemory, Stopper
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused
from tests.bench.stores import make_store
from tests.circe_forms import NEW_CONCEPT, concept_set, definition, rule
from tests.node.engines import CONDITIONS, LIMITS, MEASUREMENTS, PARENT, REMARK

EVERY_RUN = ("54", "68", "100", "1000", "1021", "1037", "1055", "1160", "1163", "209")


@pytest.fixture(scope="module")
def store(generated: Path) -> Path:
    """A generated store with a vocabulary of its concepts."""
    return generated


def parsed(value: dict[str, Any]) -> CirceCohort:
    return CirceCohort.parse(json.dumps(value))


def by_sql(path: Path, sql: str) -> int:
    with duckdb.connect(str(path), read_only=True) as opened:
        row = opened.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def listed(concepts: list[int]) -> str:
    return ", ".join(map(str, concepts))


YEAR_BEFORE = {"Start": {"Days": 365, "Coeff": -1}, "End": {"Days": 0, "Coeff": 1}}
OBSERVED = (
    "JOIN observation_period o ON o.person_id = c.person_id"
    " AND condition_start_date BETWEEN observation_period_start_date AND observation_period_end_date"
)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "descendants of a concept": (
        definition(
            {"ConditionOccurrence": {"CodesetId": 0}}, sets=[concept_set(0, [PARENT], descendants=True)]
        ),
        f"SELECT count(DISTINCT c.person_id) FROM condition_occurrence c {OBSERVED}"
        f" WHERE condition_concept_id IN ({listed(CONDITIONS[:3])})",
    ),
    "from a date on": (
        definition(
            {
                "ConditionOccurrence": {
                    "CodesetId": 0,
                    "OccurrenceStartDate": {"Op": "gte", "Value": "2020-02-29"},
                }
            },
            sets=[concept_set(0, CONDITIONS[:2])],
        ),
        f"SELECT count(DISTINCT c.person_id) FROM condition_occurrence c {OBSERVED}"
        f" WHERE condition_concept_id IN ({listed(CONDITIONS[:2])}) AND condition_start_date >= '2020-02-29'",
    ),
    "two high values in the year before": (
        definition(
            {"ConditionOccurrence": {"CodesetId": 0}},
            sets=[concept_set(0, CONDITIONS[:8]), concept_set(1, MEASUREMENTS)],
            InclusionRules=[
                rule(
                    {"Measurement": {"CodesetId": 1, "ValueAsNumber": {"Op": "gt", "Value": 95.5}}},
                    at_least=2,
                    window=YEAR_BEFORE,
                )
            ],
        ),
        f"""WITH i AS (SELECT c.person_id, min(condition_start_date) AS day
                       FROM condition_occurrence c {OBSERVED}
                       WHERE condition_concept_id IN ({listed(CONDITIONS[:8])}) GROUP BY c.person_id)
            SELECT count(*) FROM (
                SELECT i.person_id FROM i JOIN measurement m USING (person_id)
                WHERE measurement_concept_id IN ({listed(MEASUREMENTS)}) AND value_as_number > 95.5
                  AND measurement_date BETWEEN day - INTERVAL 365 DAY AND day
                GROUP BY i.person_id HAVING count(*) >= 2)""",
    ),
    "a text with everything in it that has a meaning somewhere": (
        definition(
            {"ConditionOccurrence": {"StopReason": {"Op": "endsWith", "Text": REMARK}}},
            sets=[concept_set(0, CONDITIONS[:1])],
        ),
        f"SELECT count(DISTINCT c.person_id) FROM condition_occurrence c {OBSERVED}"
        f" WHERE condition_concept_id = {CONDITIONS[5]}",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_circe_count_equals_hand_written_sql(store: Path, case: str) -> None:
    value, sql = CASES[case]
    expected = by_sql(store, sql)
    assert 0 < expected < 300
    assert count(parsed(value), str(store), schema=None, limits=LIMITS) == expected


def test_circe_and_our_form_agree_where_both_can_say_it(store: Path) -> None:
    ours = Cohort.parse({"index": {"kind": "condition", "concepts": [PARENT], "descendants": True}})
    circe_form = parsed(CASES["descendants of a concept"][0])
    url = f"duckdb://{store}"
    assert count(ours, url, schema=None, limits=LIMITS) == count(
        circe_form, url, schema="main", limits=LIMITS
    )


@pytest.mark.parametrize("case", CASES)
def test_a_persons_membership_is_their_own(store: Path, case: str, tmp_path: Path) -> None:
    question = parsed(CASES[case][0])
    halves = []
    for rest in (0, 1):
        half = tmp_path / f"half{rest}.duckdb"
        half.write_bytes(store.read_bytes())
        with duckdb.connect(str(half)) as cut:
            for table in ("person", "observation_period", "condition_occurrence", "measurement"):
                cut.execute(f"DELETE FROM {table} WHERE person_id % 2 = {rest}")
        halves.append(count(question, str(half), schema=None, limits=LIMITS))
    assert sum(halves) == count(question, str(store), schema=None, limits=LIMITS)
    assert all(halves)


def test_a_text_is_never_part_of_the_sql() -> None:
    question = parsed(CASES["a text with everything in it that has a meaning somewhere"][0])
    for dialect in circe.Dialect:
        parts = circe.program(question, dialect).statements
        assert not any("100%" in part.sql or "it's" in part.sql for part in parts)
        assert [part.texts for part in parts if part.texts] == [("%" + REMARK,)]


def test_counting_leaves_the_store_and_its_folder_as_they_are(store: Path) -> None:
    def seen() -> tuple[str, list[str]]:
        return hashlib.sha256(store.read_bytes()).hexdigest(), sorted(p.name for p in store.parent.iterdir())

    before = seen()
    count(parsed(CASES["descendants of a concept"][0]), str(store), schema=None, limits=LIMITS)
    assert seen() == before


def test_a_count_stops_at_its_time_limit(store: Path) -> None:
    with pytest.raises(Refused) as refused:
        count(
            parsed(CASES["two high values in the year before"][0]),
            str(store),
            schema=None,
            limits=Limits(time_s=1e-6, memory="1GB", threads=2),
        )
    assert refused.value.code is RefusalCode.DEADLINE


def test_a_statement_that_would_run_for_hours_is_stopped() -> None:
    endless = "SELECT bit_xor(hash(range)) FROM range(1000000000000)"
    with duckdb.connect() as connection, closing(Stopper(connection.interrupt, after_s=0.1)) as stopper:
        with pytest.raises(duckdb.InterruptException):
            connection.execute(endless)
        assert stopper.left_s == 0


def test_a_count_stops_at_its_memory_limit(store: Path) -> None:
    with pytest.raises(OutOfMemory):
        count(
            parsed(CASES["two high values in the year before"][0]),
            str(store),
            schema=None,
            limits=Limits(time_s=60, memory="1MB", threads=2),
        )


def test_a_store_that_cannot_answer_says_why(store: Path, tmp_path: Path) -> None:
    question = parsed(CASES["descendants of a concept"][0])

    def ask(path: object, schema: str | None = None, cohort: CirceCohort = question) -> int:
        return count(cohort, str(path), schema=schema, limits=LIMITS)

    bare = make_store(tmp_path / "bare.duckdb", persons=5, events=20, seed=1)
    with pytest.raises(NoVocabulary):
        ask(bare)
    with pytest.raises(NoSuchTable, match="dose_era"):
        ask(store, cohort=parsed(definition({"DoseEra": {}}, sets=[])))
    with pytest.raises(NoSuchTable, match="person"):
        ask(store, schema='no"where')
    with pytest.raises(NotAStore, match="no such file"):
        ask(tmp_path / "nothing.duckdb")
    (tmp_path / "text.duckdb").write_text("no database")
    with pytest.raises(NotAStore, match="not a DuckDB"):
        ask(tmp_path / "text.duckdb")
    with pytest.raises(UnknownStore) as unknown:
        ask("mysql://user:password@host/db")
    assert "password" not in str(unknown.value).replace("PATH", "")
    with duckdb.connect(str(bare)) as older:
        older.execute(NEW_CONCEPT, [1])
        older.execute("ALTER TABLE condition_occurrence DROP COLUMN condition_end_date")
    with pytest.raises(NotTheCdm):
        ask(bare)


def persons_of(shared_data: Path) -> dict[str, int]:
    with (shared_data / "cohorts" / "expected_persons_synthetic_5k.csv").open() as rows:
        return {row["cohort_id"]: int(row["persons"]) for row in csv.DictReader(rows)}


def counted(shared_data: Path, cohort_id: str) -> int:
    question = CirceCohort.parse((shared_data / "cohorts" / f"{cohort_id}.json").read_bytes())
    return count(question, str(shared_data / "omop_synthetic_5k" / "cdm.duckdb"), schema=None, limits=LIMITS)


@pytest.mark.parametrize("cohort_id", EVERY_RUN)
def test_a_sample_of_the_cohorts_has_the_persons_of_the_reference(shared_data: Path, cohort_id: str) -> None:
    assert counted(shared_data, cohort_id) == persons_of(shared_data)[cohort_id]


@pytest.mark.slow
def test_all_100_cohorts_have_the_persons_of_the_reference(shared_data: Path) -> None:
    expected = persons_of(shared_data)
    assert len(expected) == 100
    assert {cohort_id: counted(shared_data, cohort_id) for cohort_id in expected} == expected

"""The same exact counts on a real PostgreSQL server, reached over its Unix socket."""

import csv
import json
from pathlib import Path

import psycopg
import pytest

from node.omop.errors import NoSuchTable, NotAStore, NotTheCdm, NoVocabulary, PasswordInUrl
from node.queries.exact_count import count
from node.queries.limits import Limits
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused
from tests.circe_forms import concept_set, definition, rule
from tests.node import engines
from tests.node.engines import LIMITS, MEASUREMENTS, REMARK, copied

CONDITIONS = engines.CONDITIONS[:8]
EVERY_RUN = ("54", "100", "821", "1021", "1055")  # 821 took minutes while nested loops were allowed
CIRCE = {
    "a rule": definition(
        {"ConditionOccurrence": {"CodesetId": 0}},
        sets=[concept_set(0, CONDITIONS), concept_set(1, MEASUREMENTS)],
        InclusionRules=[
            rule({"Measurement": {"CodesetId": 1, "ValueAsNumber": {"Op": "gt", "Value": 95}}}, at_least=2)
        ],
    ),
    "a text": definition(
        {"ConditionOccurrence": {"StopReason": {"Op": "endsWith", "Text": REMARK}}},
        sets=[concept_set(0, CONDITIONS)],
    ),
}
OURS = {
    "index": {"kind": "condition", "concepts": CONDITIONS, "descendants": True},
    "include": [
        {
            "kind": "measurement",
            "concepts": MEASUREMENTS,
            "value": {"min": 95},
            "window": {"from_days": -365, "to_days": 0},
            "at_least": 2,
        },
        {"kind": "age", "min_years": 30},
        {"kind": "sex", "concepts": [8532]},
    ],
}


@pytest.fixture(scope="module")
def both(generated: Path, server: str) -> tuple[str, str]:
    """The same small CDM twice: the path of the DuckDB file, the URL of the server (schema `public`)."""
    copied(generated, "main", server, "public")
    return str(generated), server


def asked(form: str) -> Cohort | CirceCohort:
    return Cohort.parse(OURS) if form == "ours" else CirceCohort.parse(json.dumps(CIRCE[form]))


@pytest.mark.parametrize("form", [*CIRCE, "ours"])
def test_postgresql_and_duckdb_give_the_same_count(both: tuple[str, str], form: str) -> None:
    on_duckdb, on_postgresql = (count(asked(form), url, schema=None, limits=LIMITS) for url in both)
    assert 0 < on_duckdb == on_postgresql < 300


def test_counting_leaves_nothing_on_the_server(both: tuple[str, str]) -> None:
    def relations() -> list[tuple[str, int]]:
        with psycopg.connect(both[1]) as connection:
            return connection.execute(
                "SELECT relname, reltuples::int FROM pg_class WHERE relkind = 'r' ORDER BY 1"
            ).fetchall()

    before = relations()
    count(asked("a rule"), both[1], schema="public", limits=LIMITS)
    assert relations() == before


@pytest.mark.parametrize("form", ["a rule", "ours"])
def test_a_count_stops_at_its_time_limit(both: tuple[str, str], form: str) -> None:
    with pytest.raises(Refused) as refused:
        count(asked(form), both[1], schema=None, limits=Limits(time_s=0.0015, memory="1GB"))
    assert refused.value.code is RefusalCode.DEADLINE


def test_a_server_that_cannot_answer_says_why_and_not_its_password(both: tuple[str, str]) -> None:
    question, url = asked("a rule"), both[1]
    with pytest.raises(PasswordInUrl) as shown:
        count(question, "postgresql://user:sesame@/db?host=/nowhere", schema=None, limits=LIMITS)
    assert "sesame" not in str(shown.value)
    with pytest.raises(NotAStore):
        count(question, "postgresql://user@/db?host=/nowhere", schema=None, limits=LIMITS)
    with pytest.raises(NoSuchTable, match="person"):
        count(question, url, schema="elsewhere", limits=LIMITS)
    era = CirceCohort.parse(json.dumps(definition({"DoseEra": {}}, sets=[])))
    with pytest.raises(NoSuchTable, match="dose_era"):
        count(era, url, schema=None, limits=LIMITS)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA older")
        for table in ("person", "observation_period", "concept", "measurement"):
            connection.execute(f"CREATE TABLE older.{table} (LIKE public.{table})")
        connection.execute("CREATE TABLE older.condition_occurrence (person_id bigint)")
    with pytest.raises(NoVocabulary):
        count(question, url, schema="older", limits=LIMITS)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO older.concept SELECT * FROM public.concept")
    with pytest.raises(NotTheCdm):
        count(question, url, schema="older", limits=LIMITS)


@pytest.fixture(scope="module")
def synthetic(server: str, shared_data: Path) -> str:
    """The reference's CDM on the server, in the schema `cdm`."""
    copied(shared_data / "omop_synthetic_5k" / "cdm.duckdb", "cdm", server, "cdm")
    return server


def persons_of(shared_data: Path) -> dict[str, int]:
    with (shared_data / "cohorts" / "expected_persons_synthetic_5k.csv").open() as rows:
        return {row["cohort_id"]: int(row["persons"]) for row in csv.DictReader(rows)}


def counted(shared_data: Path, url: str, cohort_id: str) -> int:
    question = CirceCohort.parse((shared_data / "cohorts" / f"{cohort_id}.json").read_bytes())
    return count(question, url, schema="cdm", limits=LIMITS)


@pytest.mark.parametrize("cohort_id", EVERY_RUN)
def test_a_sample_of_the_cohorts_has_the_persons_of_the_reference(
    shared_data: Path, synthetic: str, cohort_id: str
) -> None:
    assert counted(shared_data, synthetic, cohort_id) == persons_of(shared_data)[cohort_id]


@pytest.mark.slow
@pytest.mark.timeout(900)  # 100 cohorts in one test, on a machine that may be busy
def test_all_100_cohorts_have_the_persons_of_the_reference(shared_data: Path, synthetic: str) -> None:
    expected = persons_of(shared_data)
    assert {cohort_id: counted(shared_data, synthetic, cohort_id) for cohort_id in expected} == expected

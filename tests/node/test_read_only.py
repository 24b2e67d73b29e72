"""A question writes nothing but temporary tables: what checks that, and what the databases refuse."""

from contextlib import closing
from pathlib import Path

import duckdb
import psycopg
import pytest

from node.omop.store import OmopStore
from node.queries.circe import (
    Dialect,
    NotOnlyTemporary,
    Statement,
    only_query,
    only_temporary,
    program,
    tables,
)
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.engine import CdmEngine, Warehouse
from node.queries.exact_count import counted
from protocols.circe import CirceCohort
from tests.node.engines import LIMITS, make_generated
from tests.node.test_engines import RULES, every_event

FORBIDDEN = [
    "DELETE FROM cdm.person",
    "DELETE FROM person",
    "INSERT INTO cdm.person SELECT * FROM cdm.person",
    "CREATE TABLE copied AS SELECT 1",
    "CREATE TEMP TABLE a AS SELECT 1; DELETE FROM cdm.person",
    "CREATE TEMP TABLE a AS WITH gone AS (DELETE FROM cdm.person RETURNING 1) SELECT * FROM gone",
    "CREATE TEMP TABLE a AS SELECT 1 /* */ INTO cdm.other",
    "CREATE TEMP TABLE cdm.a AS SELECT 1",
    "SELECT pg_terminate_backend(1)",
    "COPY cdm.person TO '/tmp/persons'",
    "ATTACH 'other.duckdb'",
    "/* CREATE TEMP TABLE a */ DROP TABLE cdm.person",
    "ANALYZE cdm.person",
    "SET ROLE postgres",
    "",
]


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_a_statement_that_writes_more_than_a_temporary_table_is_refused(sql: str) -> None:
    with pytest.raises(NotOnlyTemporary):
        only_temporary((Statement(sql),))


def test_a_query_reads_and_does_nothing_else() -> None:
    for sql in ("SELECT 1", "WITH a AS (SELECT 1) SELECT * FROM a", "(SELECT 1)", "-- delete\nSELECT 1"):
        assert only_query(sql) == sql
    for sql in (
        *FORBIDDEN[:-1],
        "WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a",
        "SELECT 1; SELECT 2",
        "",
    ):
        if not sql.startswith("SELECT pg_"):  # a function; the rights of the user decide on those
            with pytest.raises(NotOnlyTemporary):
                only_query(sql)


def test_a_temporary_table_may_be_made_filled_and_dropped() -> None:
    allowed = (
        "CREATE TEMP TABLE a AS SELECT 1 -- delete; drop",
        "INSERT INTO a (x) SELECT 2",
        "DROP TABLE A",
    )
    checked = only_temporary(tuple(map(Statement, allowed)))
    assert [(part.verb, part.target) for part in checked] == [
        ("CREATE TEMP TABLE", "a"),
        ("INSERT INTO", "a"),
        ("DROP TABLE", "a"),
    ]


def test_the_tables_of_a_definition_are_known_before_it_runs() -> None:
    assert tables(RULES) == {
        "concept",
        "concept_ancestor",
        "condition_occurrence",
        "measurement",
        "observation_period",
    }


def test_a_fifth_of_the_cohorts_become_programs_that_write_temporary_tables_only(shared_data: Path) -> None:
    found = sorted((shared_data / "cohorts").glob("*.json"))
    for file in found[::5]:
        definition = CirceCohort.parse(file.read_bytes())
        for dialect in Dialect:
            made = program(definition, dialect)
            assert all(part.verb for part in made.statements)
            assert {"concept", "observation_period"} <= made.tables


def attempts(engine: CdmEngine) -> list[str]:
    person = f"{engine._session.place}.person"
    return [
        f"DELETE FROM {person}",
        f"INSERT INTO {person} SELECT * FROM {person}",
        f"UPDATE {person} SET year_of_birth = 1900",
        f"DROP TABLE {person}",
        f"CREATE TABLE {engine._session.place}.mine (a bigint)",
    ]


@pytest.mark.parametrize("attempt", range(5))
def test_the_database_refuses_to_write_where_it_fetches(warehouse: Warehouse, attempt: int) -> None:
    with closing(warehouse.engine(LIMITS)) as engine:
        before = engine.rows(engine.table("person"))
        columns = engine.table("person").select("person_id").schema()
    with closing(warehouse.engine(LIMITS)) as engine:
        assert counted(every_event(), engine) > 0  # also after temporary tables were made
        with pytest.raises((duckdb.Error, psycopg.errors.ReadOnlySqlTransaction, NotOnlyTemporary)):
            engine._session.fetched(attempts(engine)[attempt], {}, columns)
    with closing(warehouse.engine(LIMITS)) as engine:
        assert engine.rows(engine.table("person")).equals(before)


def test_a_store_that_is_open_for_writing_is_not_written_to_by_a_question(tmp_path: Path) -> None:
    with OmopStore.open(make_generated(tmp_path / "omop.duckdb")) as store:
        warehouse = DuckDbWarehouse(store)
        with closing(warehouse.engine(LIMITS)) as engine:
            assert counted(every_event(), engine) > 0
            statement = attempts(engine)[0]
            with pytest.raises(duckdb.TransactionException, match="read-only"):
                engine._session.run(Statement(statement))
        assert store.counts()["person"] == 300
        store.connection.con.execute(statement)  # what was refused is a statement that would have worked
        assert store.counts()["person"] == 0


def test_a_question_leaves_no_table_behind(warehouse: Warehouse, server: str) -> None:
    def relations() -> list[tuple[str, ...]]:
        with psycopg.connect(server) as connection:
            return connection.execute(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v', 'i') ORDER BY 1"
            ).fetchall()

    before = relations()
    with closing(warehouse.engine(LIMITS)) as engine, engine.members(RULES) as members:
        assert engine.rows(members).num_rows
        assert "fedtwin_made_1" not in str(relations())  # nobody else sees it while it is there
    assert relations() == before

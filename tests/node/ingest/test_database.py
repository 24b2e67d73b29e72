"""Rows of a database come in by the rules of CSV: streamed, in the key's order, once; nothing is written."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from node.ingest.database import open_database, parse_url
from node.ingest.errors import DatabaseAway, MalformedMapping, NoDriver, NotSuchUrl, UnreadableSource
from node.ingest.mapping import Mapping, parse_mapping
from node.omop.errors import AlreadyLoaded
from node.omop.loading import Again
from tests.node.ingest.table_rows import (
    FIELDS,
    FILES,
    RULES,
    SOURCE,
    WORD,
    content,
    made,
    site,
    text_of,
    turned_away,
    write_csv,
)

TABLE = 'sql = { table = "results", key = ["id"] }'
Rows = list[dict[str, Any]]


def mapping_of(sql: str = TABLE, rules: str = RULES) -> Mapping:
    return parse_mapping(f"[source]\n{SOURCE}{sql}\n{rules}".encode(), file="results.toml")


def in_sqlite(path: Path, rows: Rows) -> str:
    """A table as SQLite keeps it: dates, decimals and booleans as text."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as made_here:
        kinds = {"id": "INTEGER", "mrn": "INTEGER", "value": "REAL"}
        columns = ", ".join(f"{name} {kinds.get(name, 'TEXT')}" for name in FIELDS)
        made_here.execute(f"CREATE TABLE results ({columns})")
        marks = ", ".join("?" * len(FIELDS))
        shown = [
            [row[name] if name in kinds or row[name] is None else text_of(row[name]) for name in FIELDS]
            for row in reversed(rows)  # the key orders them, not the table
        ]
        made_here.executemany(f"INSERT INTO results VALUES ({marks})", shown)
    made_here.close()
    return f"sqlite:///{path}"


def in_postgres(server: str, rows: Rows, schema: str) -> str:
    """A table with PostgreSQL's own types."""
    with psycopg.connect(server) as to:
        to.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        to.execute(f"CREATE SCHEMA {schema}")
        to.execute(
            f"CREATE TABLE {schema}.results (id bigint, mrn bigint, surname text, dob date, sex char(1),"
            " taken timestamp, code text, value float8, unit text, dose numeric(8, 2), smoker boolean,"
            " shoe smallint)"
        )
        with to.cursor().copy(f"COPY {schema}.results FROM STDIN") as out:
            for row in reversed(rows):
                out.write_row([row[name] for name in FIELDS])
    return server


@pytest.fixture(params=["sqlite", "postgresql"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Rows], tuple[str, str]]:
    """Put rows into a database of one kind; its URL, and the table's name."""

    def into(rows: Rows) -> tuple[str, str]:
        if request.param == "sqlite":
            return in_sqlite(tmp_path / "lab.sqlite", rows), "results"
        return in_postgres(request.getfixturevalue("server"), rows, "lab"), "lab.results"

    return into


def test_the_same_rows_give_the_same_store_and_the_same_reasons(
    tmp_path: Path, put: Callable[[Rows], tuple[str, str]]
) -> None:
    rows = made()
    csv = write_csv(tmp_path / "results.csv", rows)
    with site(tmp_path / "csv", batch_rows=64) as node:  # ids follow batches
        node.ingest([csv], mappings=[parse_mapping(FILES.encode(), file="results.toml")])
        expected = content(node), turned_away(node)
    url, table = put(rows)
    mapping = mapping_of(f'sql = {{ table = "{table}", key = ["id"] }}')
    with site(tmp_path / "sql", batch_rows=64) as node, open_database(url) as database:
        (report,) = node.ingest_rows(database, [mapping]).sources
        assert report.format == "sql"
        assert report.records_in == report.stored + report.quarantined == len(rows)
        assert report.delimited is not None
        assert report.delimited.unknown_columns == ("shoe",)
        assert (content(node), turned_away(node)) == expected


def test_the_same_rows_are_loaded_once_and_changed_ones_ask(
    tmp_path: Path, put: Callable[[Rows], tuple[str, str]]
) -> None:
    url, table = put(made(50))
    mapping = mapping_of(f'sql = {{ query = "SELECT * FROM {table} WHERE id <= 40", key = ["id"] }}')
    with site(tmp_path / "node") as node:
        with open_database(url) as database:
            assert node.ingest_rows(database, [mapping]).sources[0].records_in == 40
        before = node.store.content_hash()
        with open_database(url) as database:
            assert node.ingest_rows(database, [mapping]).sources[0].unchanged
        put([*made(50)[:40], *made(20)])  # what the query leaves out does not matter
        rows = made(50)
        put(rows)
        with open_database(url) as database:
            assert node.ingest_rows(database, [mapping]).sources[0].unchanged
        assert node.store.content_hash() == before
        rows[0]["value"] = 200.0
        put(rows)
        with open_database(url) as database, pytest.raises(AlreadyLoaded):
            node.ingest_rows(database, [mapping])
    with site(tmp_path / "node", again=Again.REPLACE) as node, open_database(url) as database:
        assert not node.ingest_rows(database, [mapping]).sources[0].unchanged
        assert node.store.content_hash() != before


def test_an_interrupted_load_leaves_nothing_and_is_started_again(
    tmp_path: Path, put: Callable[[Rows], tuple[str, str]]
) -> None:
    url, table = put(made(300))
    mapping = mapping_of(f'sql = {{ table = "{table}", key = ["id"] }}')
    with site(tmp_path / "whole") as node, open_database(url) as database:
        node.ingest_rows(database, [mapping])
        expected = node.store.content_hash()

    def stop(progress: Any) -> None:
        if progress.rows > 100:
            raise KeyboardInterrupt

    with site(tmp_path / "node", batch_rows=50, progress=stop) as node:
        with open_database(url) as database, pytest.raises(KeyboardInterrupt):
            node.ingest_rows(database, [mapping])
        assert node.store.counts()["person"] == 0
    with site(tmp_path / "node") as node, open_database(url) as database:
        node.ingest_rows(database, [mapping])
        assert node.store.content_hash() == expected


def test_nothing_can_be_written(tmp_path: Path, put: Callable[[Rows], tuple[str, str]]) -> None:
    url, table = put(made(3))
    with open_database(url) as database, pytest.raises(Exception, match=r"read-?\s?only|readonly"):
        database.connection.exec_driver_sql(f"DELETE FROM {table}")
    with open_database(url) as database:
        assert database.connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 3


def test_rows_that_change_between_the_two_readings_are_those_of_one_moment(
    tmp_path: Path, put: Callable[[Rows], tuple[str, str]], server: str
) -> None:
    url, table = put(made(20))
    mapping = mapping_of(f'sql = {{ table = "{table}", key = ["id"] }}')
    if url.startswith("sqlite"):
        with sqlite3.connect(make_url(url).database or "") as one:
            one.execute("PRAGMA journal_mode = WAL")  # a writer does not wait for readers
    with open_database(url) as database:
        found = database.rows(mapping)
        change = f"UPDATE {table} SET value = 1 WHERE id = 2"
        if url.startswith("sqlite"):
            with sqlite3.connect(make_url(url).database or "") as other:
                other.execute(change)
        else:
            with psycopg.connect(server) as to:
                to.execute(change)
        assert sum(len(numbers) for _, numbers in found.batches(batch_rows=7)) == 20
        found.sha256 = "another"
        with pytest.raises(UnreadableSource, match="changed while"):
            list(found.batches(batch_rows=7))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ('sql = { table = "results", key = ["mrn"] }', "not unique: mrn"),
        ('sql = { table = "results", key = ["number"] }', "'number' is not in the rows"),
        ('sql = { table = "result", key = ["id"] }', "does not know the table"),
        ('sql = { query = "SELECT id, mrn FROM results", key = ["id"] }', "'code' is not in the rows"),
    ],
)
def test_what_does_not_fit_is_named_and_not_quoted(tmp_path: Path, sql: str, said: str) -> None:
    url = in_sqlite(tmp_path / "lab.sqlite", made(90))
    with open_database(url) as database, pytest.raises(UnreadableSource, match=said) as caught:
        database.rows(mapping_of(sql))
    assert WORD not in str(caught.value)


def test_a_name_that_stands_twice_is_refused(server: str) -> None:
    query = "SELECT * FROM (SELECT 1 AS id, 2 AS mrn) a JOIN (SELECT 1 AS id, 2 AS mrn) b USING (id)"
    with open_database(server) as database, pytest.raises(UnreadableSource, match="twice"):
        database.rows(mapping_of(f'sql = {{ query = "{query}", key = ["id"] }}'))


def test_a_query_may_hold_what_drivers_take_for_their_own(
    tmp_path: Path, put: Callable[[Rows], tuple[str, str]]
) -> None:
    url, table = put(made(10))
    query = f"SELECT * FROM {table} WHERE surname LIKE 'Zq%' AND ':id %s 100%' <> code"
    with open_database(url) as database:
        found = database.rows(mapping_of(f'sql = {{ query = "{query}", key = ["id"] }}'))
        assert found.bytes_total == 10


def test_bytes_where_text_should_be_turn_their_row_away(tmp_path: Path) -> None:
    url = in_sqlite(tmp_path / "lab.sqlite", made(5))
    with sqlite3.connect(tmp_path / "lab.sqlite") as one:
        one.execute("UPDATE results SET code = x'fffe' WHERE id = 2")
        one.execute("UPDATE results SET code = CAST(x'53ff' AS TEXT) WHERE id = 4")
    with site(tmp_path / "node") as node, open_database(url) as database:
        (report,) = node.ingest_rows(database, [mapping_of()]).sources
        assert report.records_in == report.stored + report.quarantined == 5
        assert {row for row, _, why, _ in turned_away(node) if why == "not-text"} == {2, 4}


def test_types_of_postgresql_are_those_a_mapping_takes(tmp_path: Path, server: str) -> None:
    rules = RULES.replace('column = "taken"', 'column = "at"')
    query = (
        "SELECT 1 AS id, 250.0::float8 AS mrn, DATE '1950-01-02' AS dob, 'F' AS sex, NULL AS unit,"
        " TIMESTAMPTZ '2020-07-01 23:30:00+00' AS at, 'SBP' AS code, 120 AS value, 0.5::numeric AS dose,"
        " true AS smoker"
    )
    berlin = f'zone = "Europe/Berlin"\nsql = {{ query = "{query}", key = ["id"] }}'
    with open_database(server) as database:
        ((batch, numbers),) = database.rows(mapping_of(berlin, rules)).batches(batch_rows=10)
        assert numbers.tolist() == [1]
        assert {name: str(batch[name][0].as_py()) for name in batch.schema.names} == {
            "mrn": "250", "dob": "1950-01-02", "sex": "F", "unit": "", "at": "2020-07-02 01:30:00",
            "code": "SBP", "value": "120", "dose": "0.5", "smoker": "true",
        }  # fmt: skip
        nested = query.replace("'SBP'", "ARRAY['SBP']")
        with pytest.raises(UnreadableSource, match="'code' holds no flat values"):
            list(
                database.rows(mapping_of(f'sql = {{ query = "{nested}", key = ["id"] }}', rules)).batches(
                    batch_rows=10
                )
            )


def test_a_value_that_the_driver_cannot_take_is_told_without_it(server: str) -> None:
    query = (
        "SELECT 1 AS id, 1 AS mrn, DATE 'infinity' AS dob, 'F' AS sex, NULL AS unit, NULL AS taken,"
        f" '{WORD}' AS code, 1 AS value, 1 AS dose, true AS smoker"
    )
    mapping = mapping_of(f'sql = {{ query = "{query}", key = ["id"] }}')
    with open_database(server) as database, pytest.raises(UnreadableSource, match="cannot be read") as caught:
        database.rows(mapping)
    assert WORD not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:secret@db/lis",
        "postgresql://reader@db/lis?password=secret",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Dsecret",
        "mysql://reader:@db/lis?passwd=secret",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(NotSuchUrl, match="no password") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


def test_a_file_of_passwords_may_be_named_in_the_url() -> None:
    named = "postgresql://reader@db/lis?passfile=/etc/secret/passwords"
    assert parse_url(named).query == {"passfile": "/etc/secret/passwords"}


def test_a_missing_driver_is_named() -> None:
    with (
        pytest.raises(NoDriver, match="pymysql: pip install pymysql"),
        open_database("mysql://reader@db/lis"),
    ):
        pass
    with pytest.raises(NotSuchUrl, match="no kind of database"), open_database("nosuch://db/lis"):
        pass
    with pytest.raises(NotSuchUrl, match="not a URL"), open_database("results.csv"):
        pass


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(DatabaseAway, match="postgresql:localhost/lis"),
        open_database(f"postgresql://reader@localhost:1/lis?host=localhost&user={os.getpid()}"),
    ):
        pass
    with pytest.raises(DatabaseAway), open_database(f"sqlite:///{tmp_path}/lab.sqlite"):
        pass
    assert not (tmp_path / "lab.sqlite").exists()


def test_rows_are_fetched_as_they_are_needed(server: str) -> None:
    url = in_postgres(server, made(100), "lab")
    mapping = mapping_of('sql = { table = "lab.results", key = ["id"] }')
    with open_database(url) as database, psycopg.connect(server) as other:
        batches = database.rows(mapping).batches(batch_rows=7)
        next(batches)
        activity = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'FETCH FORWARD%'"
        assert other.execute(activity).fetchone() == (1,)
        assert sum(len(numbers) for _, numbers in batches) == 93


@pytest.mark.parametrize(
    "sql",
    [
        "sql = {}",
        'sql = { table = "a" }',
        'sql = { table = "a", key = [] }',
        'sql = { table = "a", query = "SELECT 1", key = ["id"] }',
        'sql = { query = "DELETE FROM a", key = ["id"] }',
        'sql = { query = "SELECT 1; DELETE FROM a", key = ["id"] }',
        'sql = { table = "a", key = ["id"], password = "x" }',
        "",  # neither rows nor files
    ],
)
def test_a_mapping_says_rows_and_their_key_or_is_refused(sql: str) -> None:
    with pytest.raises(MalformedMapping):
        mapping_of(sql)

"""The store's CDM on PostgreSQL: the same content, all of it or none, and the same answers."""

import shutil
import threading
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import psycopg
import pytest

from node.omop.errors import NotAStore, NotOurCopy, StoreBusy
from node.omop.postgres_copy import copy_to
from node.omop.store import OmopStore
from node.omop.tables import cdm_tables
from node.queries.exact_count import count
from tests.node.engines import LIMITS, generated, server
from tests.node.test_postgres_count import CIRCE, asked

__all__ = ["generated", "server"]
ODD = "a\tb\\N,\"c\"\n''\\. {} $1 é \U0001f9ec"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as made:
        with made.writing() as writer:
            writer.execute(
                "INSERT INTO person BY NAME SELECT x AS person_id, 8507 AS gender_concept_id,"
                " 1950 + x % 50 AS year_of_birth, 0 AS race_concept_id, 0 AS ethnicity_concept_id"
                " FROM range(-3, 400) t(x)"
            )
            for n, value in enumerate((0.1 + 0.2, -0.0, 1e-300, float("inf"), 12345678901234.5, None)):
                writer.execute(
                    "INSERT INTO measurement BY NAME SELECT ? AS measurement_id, 1 AS person_id,"
                    " 3004249 AS measurement_concept_id, DATE '1969-12-31' AS measurement_date,"
                    " TIMESTAMP '1969-12-31 23:59:59.999999' AS measurement_datetime,"
                    " 0 AS measurement_type_concept_id, ? AS value_as_number, ? AS value_source_value",
                    [n + 2**62, value, ("", ODD, None, "NUL\x00 inside", "null", "\\N")[n]],
                )
        yield made


def rows(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def test_every_kind_of_value_arrives_as_it_was(store: OmopStore, server: str) -> None:
    report = copy_to(store, server, schema="kinds")
    assert (report.rows["person"], report.rows["measurement"], report.unchanged) == (403, 6, False)
    assert report.rows.keys() == cdm_tables().keys()
    found = rows(
        server,
        "SELECT value_as_number, value_source_value FROM kinds.measurement ORDER BY measurement_id",
    )
    numbers = [0.30000000000000004, -0.0, 1e-300, float("inf"), 12345678901234.5, None]
    assert [str(number) for number, _ in found] == [str(number) for number in numbers]
    assert [text for _, text in found] == ["", ODD, None, "NUL inside", "null", "\\N"]
    assert rows(server, "SELECT min(measurement_date), max(measurement_datetime) FROM kinds.measurement") == [
        (date(1969, 12, 31), datetime(1969, 12, 31, 23, 59, 59, 999999))
    ]


def test_a_second_copy_changes_nothing_and_a_changed_store_replaces_it(store: OmopStore, server: str) -> None:
    first = copy_to(store, server, schema="twice")
    table = "SELECT 'twice.person'::regclass::oid"
    before = rows(server, table)
    again = copy_to(store, server, schema="twice")
    assert (again.unchanged, again.digest) == (True, first.digest)
    assert rows(server, table) == before
    with store.writing() as writer:
        writer.execute("UPDATE person SET year_of_birth = 1900 WHERE person_id = 7")
    changed = copy_to(store, server, schema="twice")
    assert (changed.unchanged, changed.digest != first.digest) == (False, True)
    assert rows(server, "SELECT year_of_birth FROM twice.person WHERE person_id = 7") == [(1900,)]


def test_a_copy_that_somebody_changed_is_made_again(store: OmopStore, server: str) -> None:
    copy_to(store, server, schema="tampered")
    with psycopg.connect(server) as connection:
        connection.execute("UPDATE tampered.person SET year_of_birth = 1850 WHERE person_id = 7")
    assert not copy_to(store, server, schema="tampered").unchanged
    assert rows(server, "SELECT year_of_birth FROM tampered.person WHERE person_id = 7") == [(1957,)]


def test_a_cdm_of_another_tool_is_left_alone(store: OmopStore, server: str) -> None:
    with psycopg.connect(server) as connection:
        connection.execute("CREATE SCHEMA theirs")
        connection.execute("CREATE TABLE theirs.person AS SELECT 1 AS person_id")
        connection.execute("CREATE SCHEMA beside__new")
        connection.execute("CREATE TABLE beside__new.person AS SELECT 1 AS person_id")
    for schema in ("theirs", "beside"):
        with pytest.raises(NotOurCopy):
            copy_to(store, server, schema=schema)
    assert rows(server, "SELECT * FROM theirs.person") == [(1,)]
    assert rows(server, "SELECT * FROM beside__new.person") == [(1,)]


def test_what_an_interrupted_copy_left_is_cleared(store: OmopStore, server: str) -> None:
    with psycopg.connect(server) as connection:
        connection.execute("CREATE SCHEMA cut__new")
        connection.execute("COMMENT ON SCHEMA cut__new IS 'fedtwin copy unfinished'")
        connection.execute("CREATE TABLE cut__new.person AS SELECT 1 AS person_id")
    assert not copy_to(store, server, schema="cut").unchanged
    assert rows(server, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cut__new'") == [(0,)]


def test_a_reader_sees_one_copy_and_the_new_one_waits_for_it(store: OmopStore, server: str) -> None:
    copy_to(store, server, schema="held")
    with store.writing() as writer:
        writer.execute("DELETE FROM person WHERE person_id > 100")
        writer.execute("DELETE FROM measurement")
    with psycopg.connect(server) as reader, psycopg.connect(server) as early:
        for one in (reader, early):
            one.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        early.execute("SELECT 1")  # its view of the data begins here
        assert reader.execute("SELECT count(*) FROM held.person").fetchone() == (403,)
        with pytest.raises(StoreBusy):
            copy_to(store, server, schema="held", swap_wait_s=0)
        copying = threading.Thread(target=copy_to, args=(store, server), kwargs={"schema": "held"})
        copying.start()
        copying.join(1.5)
        assert copying.is_alive()
        assert reader.execute("SELECT count(*) FROM held.measurement").fetchone() == (6,)
        reader.rollback()
        copying.join(30)
        assert not copying.is_alive()
        assert early.execute("SELECT count(*) FROM held.person").fetchone() == (104,)
        assert early.execute("SELECT count(*) FROM held.measurement").fetchone() == (0,)


def test_who_could_read_still_can(store: OmopStore, server: str) -> None:
    copy_to(store, server, schema="shared")
    with psycopg.connect(server) as connection:
        connection.execute('CREATE ROLE "the reader"')
        connection.execute('GRANT USAGE ON SCHEMA shared TO "the reader"')
        connection.execute('GRANT SELECT ON shared.person TO "the reader"')
    with store.writing() as writer:
        writer.execute("DELETE FROM measurement")
    copy_to(store, server, schema="shared")
    asked_for = "SELECT has_table_privilege('the reader', 'shared.{}', 'SELECT')"
    assert rows(server, asked_for.format("person")) == [(True,)]
    assert rows(server, asked_for.format("measurement")) == [(False,)]


def test_a_server_that_is_away_is_an_outage(store: OmopStore) -> None:
    with pytest.raises(NotAStore) as caught:
        copy_to(store, "postgresql://nobody@/nothing?host=/nowhere")
    assert "nobody" not in str(caught.value)


@pytest.fixture(scope="module")
def both(generated: Path, server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    path = shutil.copyfile(generated, tmp_path_factory.mktemp("both") / "omop.duckdb")
    with OmopStore.open(path) as store:
        copy_to(store, server, schema="answers")
    return str(path), server


@pytest.mark.parametrize("form", ["ours", *CIRCE])
def test_the_copy_answers_as_the_store_does(both: tuple[str, str], form: str) -> None:
    path, url = both
    here = count(asked(form), path, schema="main", limits=LIMITS)
    there = count(asked(form), url, schema="answers", limits=LIMITS)
    assert 0 < here == there

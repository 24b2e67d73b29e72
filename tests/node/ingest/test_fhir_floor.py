"""The floor that the bench holds a load of FHIR against does the same job: same rows, same columns."""

from __future__ import annotations

from pathlib import Path

import duckdb

from node.ingest.pipeline import Pipeline
from node.omop.tables import cdm_tables
from node.timeline_copy import copy_events
from protocols.clock import SystemClock
from tests.bench import fhir_bulk
from tests.bench.fhir_bare import FILLED, to_cdm, to_timeline
from tests.bench.fhir_omop import bare_store, our_store


def filled(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, tuple[int, ...]]:
    """By column how many values there are, of concepts also how many that mean something."""
    found = {}
    for column in cdm_tables()[table].columns:
        means = f'"{column}" <> 0' if column.endswith("concept_id") else "true"
        found[column] = (
            con.execute(f'SELECT count("{column}"), count(*) FILTER ({means}) FROM {table}').fetchone() or ()
        )
    return found


def test_bare_sql_fills_what_a_load_fills_of_the_files_of_the_bench(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    fhir_bulk.write(files, patients=3, copies=1)  # of the shared export too, where it is there
    with our_store(tmp_path / "ours") as (store, vault):
        Pipeline(store, vault, SystemClock()).ingest([files])
        events = copy_events(store)
        ours = {table: filled(store.connection.con, table) for table in FILLED}
    with bare_store(tmp_path / "bare.duckdb") as con:
        to_cdm(con, files)
        assert to_timeline(con) == events
        assert {table: filled(con, table) for table in FILLED} == ours
    assert ours["measurement"]["visit_occurrence_id"][0] == ours["measurement"]["measurement_id"][0] > 300

"""Ids of records: mapped rows' follow the others, and find room where a fact has the last id there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from node.omop.loading import Load, Source
from node.omop.store import OmopStore
from node.omop.tables import cdm_tables
from protocols.clock import SystemClock

LAST = 2**63 - 1  # of a BIGINT


def rows(count: int) -> pa.Table:
    """Some measurements, without ids."""
    day = pa.array(np.zeros(count, np.int32)).cast(pa.date32())
    numbers = {
        name: pa.array(np.ones(count, np.int64))
        for name in ("person_id", "measurement_concept_id", "measurement_type_concept_id")
    }
    return pa.table({**numbers, "measurement_date": day})


def added(store: OmopStore, name: str, *batches: int) -> list[int]:
    """Add batches of so many rows as one load; return the ids of the whole table."""
    source = Source(f"{name}.csv", name * 32, "labs", name * 32)
    with store.load(source, now=SystemClock().now()) as load:
        assert isinstance(load, Load)
        for count in batches:
            load.add_events("measurement", rows(count), np.arange(1, count + 1))
    found = store.connection.con.execute("SELECT measurement_id FROM measurement ORDER BY 1").fetchall()
    return [row[0] for row in found]


def test_ids_of_mapped_rows_follow_the_greatest(tmp_path: Path) -> None:
    with OmopStore.open(tmp_path / "omop.duckdb") as store:
        assert added(store, "a", 2, 3) == [1, 2, 3, 4, 5]
        assert added(store, "b", 1) == [1, 2, 3, 4, 5, 6]


def test_beside_a_fact_with_the_last_id_of_all_mapped_rows_get_ids_that_nobody_has(tmp_path: Path) -> None:
    """A history: the next id was the greatest and one, which is none where a digest is the last there is."""
    there = [7, 2**40, LAST - 1, LAST]
    with OmopStore.open(tmp_path / "omop.duckdb") as store:
        columns = ", ".join(rows(1).column_names)
        with store.writing() as writer:
            for taken in there:
                writer.execute(
                    f"INSERT INTO measurement (measurement_id, {columns}) VALUES (?, 1, 1, 1, '1970-01-01')",
                    [taken],
                )
        first = added(store, "a", 3, 2)
        assert len(set(first)) == len(first) == 9
        assert set(there) < set(first)
        assert min(first) > 0
        assert len(set(added(store, "b", 4))) == 13
    assert str(cdm_tables()["measurement"].fields[0].ibis_type) == "!int64"  # BIGINT on PostgreSQL as well

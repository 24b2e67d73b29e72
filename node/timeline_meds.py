"""Timelines as a dataset of the Medical Event Data Standard (MEDS 0.4), in files of the hospital.

    data/0.parquet ..          subject_id, time, code, numeric_value, text_value, and columns of ours
    metadata/dataset.json      what the dataset is; metadata/codes.parquet: every code, with its name

Guarantee: a subject stands in one file only, their rows together and in order of time, rows without a time
(sex, race, ethnicity) first. A code is VOCABULARY/CODE of the standard concept; OMOP/ID where the vocabulary
is not loaded, SOURCE/TABLE/CODE where a record is not mapped; visits end in //start and //end. Files are for
their owner only (0600). These are patients' records: they stay where every other record stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from node.omop.store import OmopStore
from node.timeline import reading
from node.timeline_sql import Scope, events, filled
from privacy import private_files
from protocols import canonical

MEDS_VERSION = "0.4.1"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
        pa.field("unit", pa.string()),
        pa.field("end", pa.timestamp("us")),
        pa.field("visit_id", pa.int64()),
        pa.field("table", pa.string(), nullable=False),
        pa.field("record_id", pa.int64(), nullable=False),
    ]
)
CODES = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("parent_codes", pa.list_(pa.string())),
    ]
)
_CODE = (
    "CASE WHEN c.concept_id IS NOT NULL THEN c.vocabulary_id || '/' || c.concept_code"
    " WHEN coalesce({concept}, 0) <> 0 THEN 'OMOP/' || {concept}"
)
_STATIC = ("gender_concept_id", "race_concept_id", "ethnicity_concept_id")


class FolderNotEmpty(ValueError):
    """A dataset is written into a folder of its own."""

    def __init__(self) -> None:
        super().__init__("the folder is not empty: a dataset is written into a new one")


@dataclass(frozen=True, slots=True)
class Written:
    """What an export wrote."""

    subjects: int
    rows: int
    codes: int
    shards: int


def export(
    store: OmopStore, folder: Path, *, scope: Scope, now: datetime, rows_per_shard: int = 1_000_000
) -> Written:
    """Write the events of `scope` as a MEDS dataset. Args: rows_per_shard, about; a subject is never cut.

    Raises: FolderNotEmpty.
    """
    private_files.make_folder(folder)
    if any(folder.iterdir()):
        raise FolderNotEmpty
    for name in ("data", "metadata"):
        private_files.make_folder(folder / name)
    epoch = store.epoch()
    with reading(store) as cursor:
        # a table of this connection: read three times, and one state of the store
        cursor.execute(
            "CREATE TEMP TABLE meds AS " + _rows(store, events(store, scope, copied=filled(store, cursor)))
        )
        found = cursor.execute("SELECT count(DISTINCT subject_id), count(*) FROM meds").fetchone()
        assert found is not None, "an aggregate always returns one row"
        codes = _codes(cursor)
        shards = 0
        for shards, shard in enumerate(_shards(cursor, rows_per_shard), start=1):
            _write(folder / "data" / f"{shards - 1}.parquet", shard)
    _write(folder / "metadata" / "codes.parquet", codes)
    private_files.write(folder / "metadata" / "dataset.json", canonical.encode(_about(epoch, now)))
    return Written(int(found[0]), int(found[1]), codes.num_rows, shards)


def _about(epoch: str, now: datetime) -> dict[str, Any]:
    return {
        "dataset_name": "fedtwin node",
        "dataset_version": epoch,
        "etl_name": "fedtwin",
        "etl_version": "0.1.0",
        "meds_version": MEDS_VERSION,
        "created_at": now.astimezone(UTC).isoformat(),
        "raw_source_id_columns": ["table", "record_id"],
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["end", "visit_id"],
    }


def _rows(store: OmopStore, select: str) -> str:
    vocabulary = "concept" if store.has("concept") else _NO_CONCEPTS
    code = _CODE.format(concept="e.concept_id")
    parts = [
        'SELECT e.person_id AS subject_id, e."time",'  # noqa: S608 (our names)
        f" CASE WHEN e.kind = 'death' THEN '{DEATH}' ELSE ({code}"
        " ELSE 'SOURCE/' || e.\"table\" || '/' || coalesce(e.source_value, 'none') END)"
        " || CASE e.kind WHEN 'visit-start' THEN '//start' WHEN 'visit-end' THEN '//end' ELSE '' END"
        " END AS code,"
        " e.value_number AS numeric_value, coalesce(e.value_text, v.concept_name) AS text_value,"
        ' coalesce(u.concept_code, e.unit) AS unit, e."end", e.visit_occurrence_id AS visit_id, e."table",'
        " e.record_id, e.kind_order, c.concept_name AS description FROM e"
        f" LEFT JOIN {vocabulary} c ON c.concept_id = e.concept_id AND c.concept_id <> 0"
        f" LEFT JOIN {vocabulary} u ON u.concept_id = e.unit_concept_id AND u.concept_id <> 0"
        f" LEFT JOIN {vocabulary} v ON v.concept_id = e.value_concept_id AND v.concept_id <> 0"
    ]
    nothing = "NULL, NULL, NULL, NULL, NULL, 'person' AS \"table\", p.person_id"
    known = "p.person_id IN (SELECT person_id FROM e)"
    parts.append(
        "SELECT p.person_id, coalesce(p.birth_datetime, make_timestamp(p.year_of_birth,"  # noqa: S608
        " coalesce(p.month_of_birth, 1), coalesce(p.day_of_birth, 1), 0, 0, 0)),"
        f" '{BIRTH}', {nothing}, -1, NULL FROM person p WHERE {known} AND p.year_of_birth IS NOT NULL"
    )
    for column in _STATIC:
        code = _CODE.format(concept=f"p.{column}")
        parts.append(
            f"SELECT p.person_id, NULL, {code} END, {nothing}, -1, c.concept_name FROM person p"  # noqa: S608
            f" LEFT JOIN {vocabulary} c ON c.concept_id = p.{column} AND c.concept_id <> 0"
            f" WHERE {known} AND coalesce(p.{column}, 0) <> 0"
        )
    return f"WITH e AS MATERIALIZED ({select}) {' UNION ALL '.join(parts)}"


_NO_CONCEPTS = (
    "(SELECT NULL::BIGINT AS concept_id, NULL::VARCHAR AS vocabulary_id, NULL::VARCHAR AS concept_code,"
    " NULL::VARCHAR AS concept_name)"
)


def _codes(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    found = cursor.execute(
        "SELECT code, min(description) AS description FROM meds GROUP BY code ORDER BY code"
    ).to_arrow_table()
    none = pa.nulls(found.num_rows, CODES.field("parent_codes").type)
    return found.append_column("parent_codes", none).cast(CODES)


def _shards(cursor: duckdb.DuckDBPyConnection, rows: int) -> Iterator[pa.Table]:
    """Cut the rows where one subject ends and the next begins."""
    reader = cursor.execute(
        'SELECT subject_id, "time", code, numeric_value, text_value, unit, "end", visit_id, "table",'
        ' record_id FROM meds ORDER BY subject_id, "time" NULLS FIRST, kind_order, code, "table", record_id'
    ).to_arrow_reader(min(rows, 100_000))
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in reader:
        held.append(batch)
        count += batch.num_rows
        while count > rows:
            whole = pa.Table.from_batches(held)
            cut = _last_change(whole["subject_id"].to_numpy(), rows)
            if cut is None:  # one subject with more rows than a shard: all of them in one
                break
            yield whole.slice(0, cut).cast(SCHEMA)
            held, count = whole.slice(cut).to_batches(), count - cut
    if count:
        yield pa.Table.from_batches(held).cast(SCHEMA)


def _last_change(subjects: Any, rows: int) -> int | None:
    """Return the last place up to `rows` where a subject begins, else the first after it."""
    changes = (subjects[1:] != subjects[:-1]).nonzero()[0] + 1
    if not len(changes):
        return None
    before = changes[changes <= rows]
    return int(before[-1] if len(before) else changes[0])


def _write(path: Path, table: pa.Table) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        pq.write_table(table, file)

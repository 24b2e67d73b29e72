"""The same made-up results as CSV, Parquet and a table of a database: rows, a mapping, and a store."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deid.vault import PseudonymKey, Vault
from node.ingest.pipeline import Pipeline
from node.omop.derived import content_digests
from node.omop.store import OmopStore
from protocols.clock import FixedClock
from tests.privacy.seeded_bits import SeededBits

CLOCK = FixedClock(datetime(2026, 6, 1, tzinfo=UTC))
WORD = "Zqxmarker"  # nobody's name
SOURCE = 'name = "results"\nversion = 1\n'
RULES = """
[patient]
column = "mrn"
[person]
birth_date = { column = "dob", format = "%Y-%m-%d" }
sex = { column = "sex", map = { M = 8507, F = 8532 } }
[date]
column = "taken"
format = "%Y-%m-%d %H:%M:%S"
[columns.surname]
identifier = true
[[events]]
table = "measurement"
column = "value"
concept = { column = "code", map = { SBP = 3004249, GLU = 3004501 } }
unit = { column = "unit", map = { "mm[Hg]" = 8876, "mg/dL" = 8840 } }
range = [0, 400]
[[events]]
table = "measurement"
column = "dose"
concept_id = 3027114
[[events]]
table = "condition_occurrence"
column = "smoker"
kind = "present"
present = ["true"]
concept_id = 437264
"""
FILES = '[source]\nfiles = ["results*"]\n' + SOURCE + RULES
FIELDS = ("id", "mrn", "surname", "dob", "sex", "taken", "code", "value", "unit", "dose", "smoker", "shoe")
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("mrn", pa.int64()),
        ("surname", pa.string()),
        ("dob", pa.date32()),
        ("sex", pa.dictionary(pa.int32(), pa.string())),
        ("taken", pa.timestamp("us")),
        ("code", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.large_string()),
        ("dose", pa.decimal128(8, 2)),
        ("smoker", pa.bool_()),
        ("shoe", pa.int8()),
    ]
)


def made(count: int = 400, *, seed: int = 1) -> list[dict[str, Any]]:
    """Return typed rows: some lack patient or date, some have a value out of range or a strange unit."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(1, count + 1):
        patient = int(rng.integers(1, 40))
        rows.append(
            {
                "id": number,
                "mrn": None if number % 41 == 0 else 100_000 + patient,
                "surname": WORD,
                "dob": date(1930, 1, 1) + timedelta(days=613 * patient),
                "sex": "MF"[patient % 2],
                "taken": None
                if number % 37 == 0
                else datetime(2020, 1, 1) + timedelta(minutes=int(rng.integers(0, 2_000_000))),
                "code": "SBP" if number % 2 else "GLU",
                "value": None
                if number % 23 == 0
                else 900.0
                if number % 29 == 0
                else float(rng.integers(600, 2000)) / 8,
                "unit": "furlong" if number % 31 == 0 else "mm[Hg]" if number % 2 else "mg/dL",
                "dose": None if number % 3 else Decimal(int(rng.integers(0, 9999))) / 100,
                "smoker": bool(patient % 3 == 0),
                "shoe": 40,
            }
        )
    return rows


def text_of(value: Any) -> str:
    """Return what a database's export to CSV has for a value."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(FIELDS)
        writer.writerows([[text_of(row[name]) for name in FIELDS] for row in rows])
    return path


def write_parquet(
    path: Path, rows: list[dict[str, Any]], *, row_group: int = 90, checksums: bool = True
) -> Path:
    pq.write_table(
        pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=row_group, write_page_checksum=checksums
    )
    return path


@contextmanager
def site(folder: Path, **options: Any) -> Iterator[Pipeline]:
    """A store in a folder; those beside each other share a vault, and so their pseudonyms."""
    folder.mkdir(parents=True, exist_ok=True)
    vault = Vault.open(folder.parent / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(3))
    with OmopStore.open(folder / "omop.duckdb") as store:
        yield Pipeline(store, vault, CLOCK, **options)
    vault.close()


def content(pipeline: Pipeline) -> dict[str, str]:
    """The digests of all that is stored, but for where it came from."""
    found = content_digests(pipeline.store.connection.con)
    return {name: digest for name, digest in found.items() if "provenance" not in name}


def turned_away(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.store.connection.con.execute(
        "SELECT source_row, field, reason, whole_row FROM fedtwin_quarantine ORDER BY ALL"
    ).fetchall()

"""How much of the data is mapped to standard concepts, and which source codes are not.

Guarantee: a source code is named only where at least eleven persons have it unmapped: fewer may be one
person's words rather than a code.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from node.omop.store import OmopStore
from node.quality.running import reading

MIN_PERSONS = 11  # CMS cell-size suppression policy: no cell of 1 to 10
TOP = 25  # codes that are named: what a person maps in one sitting
_TABLES = {  # table: concept, source value
    "condition_occurrence": ("condition_concept_id", "condition_source_value"),
    "drug_exposure": ("drug_concept_id", "drug_source_value"),
    "procedure_occurrence": ("procedure_concept_id", "procedure_source_value"),
    "measurement": ("measurement_concept_id", "measurement_source_value"),
    "observation": ("observation_concept_id", "observation_source_value"),
    "device_exposure": ("device_concept_id", "device_source_value"),
    "visit_occurrence": ("visit_concept_id", "visit_source_value"),
}


@dataclass(frozen=True, slots=True)
class TableCoverage:
    """Records and distinct source codes of one table, and how many of them have a concept."""

    table: str
    records: int
    mapped: int
    codes: int
    codes_mapped: int


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A source code without a concept, and how many records have it."""

    table: str
    code: str
    records: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """All tables together. `rare` is the number of unmapped codes that too few persons have to be named."""

    tables: tuple[TableCoverage, ...]
    unmapped: tuple[Unmapped, ...]
    rare: int

    @property
    def share(self) -> float | None:
        """The share of records that are mapped; None without records."""
        records = sum(table.records for table in self.tables)
        return sum(table.mapped for table in self.tables) / records if records else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a report."""
        return {
            "share": self.share,
            "tables": [asdict(table) for table in self.tables],
            "top_unmapped": [asdict(code) for code in self.unmapped],
            "unmapped_codes_not_named": self.rare,
        }


def coverage(store: OmopStore) -> Coverage:
    """Return how much of the store is mapped."""
    tables, unmapped, rare = [], [], 0
    with reading(store) as cursor:
        for table, (concept, source) in _TABLES.items():
            if not store.has(table) or not {concept, source} <= set(store.table(table).columns):
                continue
            found = _counted(cursor, table, concept, source)
            if not found.records:
                continue
            tables.append(found)
            named, few = _unmapped(cursor, table, concept, source)
            unmapped += named
            rare += few
    unmapped.sort(key=lambda code: (-code.records, code.table, code.code))
    return Coverage(tuple(tables), tuple(unmapped[:TOP]), rare)


def _counted(cursor: duckdb.DuckDBPyConnection, table: str, concept: str, source: str) -> TableCoverage:
    row = cursor.execute(
        "SELECT coalesce(sum(n), 0), coalesce(sum(n) FILTER (c <> 0), 0), count(DISTINCT s),"  # noqa: S608
        " count(DISTINCT s) FILTER (c <> 0) FROM (SELECT coalesce("
        f"{concept}, 0) AS c, {source} AS s, count(*) AS n FROM {table} GROUP BY ALL)"
    ).fetchone()
    assert row is not None, "an aggregate always returns one row"
    return TableCoverage(table, *(int(value) for value in row))


def _unmapped(
    cursor: duckdb.DuckDBPyConnection, table: str, concept: str, source: str
) -> tuple[list[Unmapped], int]:
    rows = cursor.execute(
        f"SELECT {source} AS code, count(*) AS n, count(DISTINCT person_id) AS persons FROM {table}"  # noqa: S608
        f" WHERE coalesce({concept}, 0) = 0 AND {source} IS NOT NULL GROUP BY code ORDER BY n DESC, code"
    ).fetchall()
    named = [Unmapped(table, str(code), int(n)) for code, n, persons in rows if persons >= MIN_PERSONS]
    return named[:TOP], sum(persons < MIN_PERSONS for _, _, persons in rows)

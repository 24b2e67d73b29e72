"""A checked Circe definition as SQL statements, through duckcdm's port of circe-be and SqlRender.

Guarantee: of the definition only numbers, calendar dates and words of fixed lists become part of the SQL;
its texts are bound as parameters. The statements read one schema and write temporary tables and `RESULT`
only. Whether a person is in follows from that person's own records: Circe numbers and limits
events per person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from duckcdm import circe, sqlrender

from protocols.circe import CirceCohort
from protocols.cohort import MalformedCohort

RESULT = "fedtwin_circe_result"  # the table that they fill, made by `RESULT_DDL`
RESULT_DDL = (
    f"CREATE TEMPORARY TABLE {RESULT} (cohort_definition_id BIGINT, subject_id BIGINT,"
    " cohort_start_date DATE, cohort_end_date DATE)"
)
ANY_CONCEPT = "SELECT 1 FROM {schema}.concept LIMIT 1"
PERSONS = f"SELECT count(DISTINCT subject_id) FROM {RESULT}"  # noqa: S608 (our name)

_STAND_IN = "fedtwintext{}end"
_LITERAL = re.compile(r"'(%?)fedtwintext(\d+)end(%?)'")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Dialect(StrEnum):
    """The database that runs the statements."""

    DUCKDB = "duckdb"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and the texts bound to its marks `$1`, `$2`, in order."""

    sql: str
    texts: tuple[str, ...] = ()


def statements(cohort: CirceCohort, dialect: Dialect, *, schema: str) -> tuple[Statement, ...]:
    """Return what to execute, in order, on a connection that holds the empty table `RESULT`.

    Args:
        schema: where the CDM and its vocabulary lie; a plain lower-case name.
    Raises: MalformedCohort if Circe has no meaning for the definition; ValueError for another schema.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError("a schema is a plain lower-case name")
    texts: list[str] = []
    form = _without_texts(cohort.to_json(), texts)
    try:
        text = circe.build_cohort_query(
            form, cohort_id=1, cdm_schema=schema, target_table=RESULT, result_schema=schema
        )
        text = sqlrender.translate(sqlrender.render(text), dialect.value)
        parts = sqlrender.split_sql(text)
    except (circe.CirceError, sqlrender.JavaError):
        raise MalformedCohort("$", "Circe has no meaning for this definition") from None
    return tuple(_bound(part, texts) for part in parts)


def tables(parts: tuple[Statement, ...], *, schema: str) -> frozenset[str]:
    """Return the CDM tables that the statements read, in lower case."""
    table = re.compile(rf"\b{schema}\.(\w+)", re.IGNORECASE)
    return frozenset(name.lower() for part in parts for name in table.findall(part.sql))


def _without_texts(value: Any, texts: list[str]) -> Any:
    """Copy the definition with each text filter's text replaced by a stand-in."""
    if isinstance(value, list):
        return [_without_texts(item, texts) for item in value]
    if not isinstance(value, dict):
        return value
    copied = {}
    for key, item in value.items():
        if key == "Text":
            copied[key] = _STAND_IN.format(len(texts))
            texts.append(item)
        else:
            copied[key] = _without_texts(item, texts)
    return copied


def _bound(sql: str, texts: list[str]) -> Statement:
    """Put marks where the stand-ins are."""
    values: list[str] = []

    def mark(found: re.Match[str]) -> str:
        before, place, after = found.groups()
        values.append(before + texts[int(place)] + after)
        return f"${len(values)}"

    return Statement(_LITERAL.sub(mark, sql), tuple(values))

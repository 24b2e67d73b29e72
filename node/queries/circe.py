"""A checked Circe definition as SQL statements, through duckcdm's port of circe-be and SqlRender.

Guarantee: of the definition only numbers, calendar dates and words of fixed lists become part of the SQL;
its texts are bound as parameters. The statements read one schema and write temporary tables only, which is
checked on the SQL itself. Whether a person is in follows from that person's own records: Circe numbers and
limits events per person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from duckcdm import circe, sqlrender

from protocols.circe import CirceCohort
from protocols.cohort import MalformedCohort

RESULT = "fedtwin_circe_result"  # the table that Circe fills
EVENTS = "qualified_events"  # Circe's own temporary tables
RULES = "inclusion_events"
INCLUDED = "included_events"

_MEMBERS = (
    "SELECT CAST(subject_id AS BIGINT) AS person_id, min(cohort_start_date) AS index_date"  # noqa: S608 (ours)
    f" FROM {RESULT} GROUP BY subject_id"
)
# An event's satisfied rules in order: as long as the n-th of them is rule n - 1, none is missing before it.
_PASSED_RULES = f"""
SELECT person_id, CAST(max(rules) AS BIGINT) AS rules FROM (
  SELECT CAST(e.person_id AS BIGINT) AS person_id, e.event_id,
         coalesce(sum(CASE WHEN r.inclusion_rule_id = r.place THEN 1 ELSE 0 END), 0) AS rules
  FROM {EVENTS} e LEFT JOIN (
    SELECT person_id, event_id, inclusion_rule_id,
           row_number() OVER (PARTITION BY person_id, event_id ORDER BY inclusion_rule_id) - 1 AS place
    FROM (SELECT DISTINCT person_id, event_id, inclusion_rule_id FROM {RULES}) satisfied
  ) r ON r.person_id = e.person_id AND r.event_id = e.event_id
  GROUP BY e.person_id, e.event_id) events
GROUP BY person_id"""  # noqa: S608 (our names)

_KEPT = 128  # definitions whose SQL is kept; up to a few hundred kB each. Writing it takes 0.05 to 2 s
_CDM = "fedtwin_cdm"  # stands for the schema until it is known
_IN_CDM = re.compile(rf"\b{_CDM}\.(\w+)", re.IGNORECASE)
_STAND_IN = "fedtwintext{}end"
_OF_SPARK = re.compile(r"\s*DROP TABLE IF EXISTS (\w+?)Codesets\b")
_LITERAL = re.compile(r"'(%?)fedtwintext(\d+)end(%?)'")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_WRITES = re.compile(
    r"\s*(CREATE TEMP TABLE|INSERT INTO|DELETE FROM|TRUNCATE TABLE|DROP TABLE|ANALYZE)\s+(\w+)(?=[\s(]|$)",
    re.IGNORECASE,
)
_READS = re.compile(r"\s*\(*\s*(SELECT|WITH)\b", re.IGNORECASE)
_NEVER_INSIDE = re.compile(
    r";|\b(?:create|insert|update|delete|truncate|drop|alter|grant|copy|call|merge|attach|pragma|into)\b",
    re.IGNORECASE,
)


class Dialect(StrEnum):
    """The database that runs the statements."""

    DUCKDB = "duckdb"
    POSTGRESQL = "postgresql"
    SPARK = "spark"


class NotOnlyTemporary(Exception):
    """A fault: a statement would write something other than a temporary table that was made before it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and the texts bound to its marks `$1`, `$2`, in order.

    `verb` is what it does ("CREATE TEMP TABLE", "INSERT INTO", …), `target` the temporary table, lower case.
    """

    sql: str
    texts: tuple[str, ...] = ()
    verb: str = ""
    target: str = ""


_RESULT_DDL = Statement(
    f"CREATE TEMP TABLE {RESULT} (cohort_definition_id BIGINT, subject_id BIGINT,"
    " cohort_start_date DATE, cohort_end_date DATE)"
)


@dataclass(frozen=True, slots=True)
class Program:
    """The statements of one definition for one database; `tables` are those of the CDM that they read."""

    statements: tuple[Statement, ...]
    tables: frozenset[str]

    def members(self, place: str, *, into: str) -> Iterator[Statement]:
        """Yield what fills the temporary table `into` with (person_id, index_date), each person once.

        Args: place: the CDM's schema as it stands in SQL, quoted if it needs to be.
        """
        yield _RESULT_DDL
        yield from self._run(None, place, into, _MEMBERS)
        yield dropping(RESULT)

    def passed_rules(self, place: str, *, into: str) -> Iterator[Statement]:
        """Yield what fills the temporary table `into` with (person_id, rules), each person once."""
        yield from self._run(INCLUDED, place, into, _PASSED_RULES)

    def _run(self, until: str | None, place: str, into: str, query: str) -> Iterator[Statement]:
        """The statements up to the one that makes the table `until`, then `into`, and the drops."""
        there: list[str] = []
        for part in self.statements:
            if part.target == until:
                break
            if part.verb in ("DELETE FROM", "TRUNCATE TABLE"):
                continue  # only ever before the table is dropped
            if part.verb == "DROP TABLE":
                there.remove(part.target)
            if part.verb == "CREATE TEMP TABLE":
                there.append(part.target)
            sql = _IN_CDM.sub(lambda found: f"{place}.{found[1]}", part.sql)
            yield Statement(sql, part.texts, part.verb, part.target)
        yield Statement(f"CREATE TEMP TABLE {into} AS {query}", (), "CREATE TEMP TABLE", into)
        yield Statement(f"ANALYZE {into}", (), "ANALYZE", into)
        for name in there:
            yield dropping(name)


def dropping(table: str) -> Statement:
    """Return what drops a temporary table."""
    return Statement(f"DROP TABLE {table}", (), "DROP TABLE", table)


@lru_cache(maxsize=_KEPT)
def program(cohort: CirceCohort, dialect: Dialect) -> Program:
    """Return the statements of the definition, and which tables they read.

    Raises: MalformedCohort if Circe has no meaning for it; NotOnlyTemporary.
    """
    texts: list[str] = []
    form = _without_texts(cohort.to_json(), texts)
    try:
        text = circe.build_cohort_query(
            form, cohort_id=1, cdm_schema=_CDM, target_table=RESULT, result_schema=_CDM
        )
        text = sqlrender.translate(sqlrender.render(text), dialect.value)
        parts = sqlrender.split_sql(text)
        if dialect is Dialect.SPARK:
            parts = _as_temporary(parts)
    except (circe.CirceError, sqlrender.JavaError):
        raise MalformedCohort("$", "Circe has no meaning for this definition") from None
    found = _IN_CDM.findall(text)
    checked = only_temporary(tuple(_bound(part, texts) for part in parts))
    return Program(checked, frozenset(name.lower() for name in found))


def tables(cohort: CirceCohort) -> frozenset[str]:
    """Return the CDM tables that answering `cohort` reads, in lower case: what a policy allows or refuses.

    Raises: MalformedCohort.
    """
    return program(cohort, Dialect.DUCKDB).tables


def only_temporary(parts: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Return the statements with what each writes, after checking that all of it is temporary.

    Each statement makes, fills, empties or drops one table without a schema, made in this program (or
    `RESULT`), and holds no second statement. Raises: NotOnlyTemporary.
    """
    made = {RESULT}
    checked = []
    for part in parts:
        sql = _COMMENT.sub(" ", part.sql)
        head = _WRITES.match(sql)
        if head is None or _NEVER_INSIDE.search(sql, head.end()):
            raise NotOnlyTemporary
        verb, target = " ".join(head[1].upper().split()), head[2].lower()
        if verb == "CREATE TEMP TABLE":
            made.add(target)
        elif target not in made:
            raise NotOnlyTemporary
        checked.append(Statement(part.sql, part.texts, verb, target))
    return tuple(checked)


def only_query(sql: str) -> str:
    """Return the statement after checking that it only reads. Raises: NotOnlyTemporary."""
    bare = _COMMENT.sub(" ", sql)
    if not _READS.match(bare) or _NEVER_INSIDE.search(bare):
        raise NotOnlyTemporary
    return sql


def _as_temporary(parts: list[str]) -> list[str]:
    """Write Spark's statements as the others: SqlRender has no temporary tables there, but a prefix."""
    first = _OF_SPARK.match(parts[0])
    if first is None:
        raise NotOnlyTemporary
    written = []
    for part in parts:
        part = re.sub(rf"\b{first[1]}(?=\w)", "", part)
        part = re.sub(r"^\s*CREATE TABLE (\w+)\s+USING DELTA\s+AS\b", r"CREATE TEMP TABLE \1 AS", part)
        part = re.sub(r"^\s*CREATE TEMPORARY VIEW (\w+)\s+AS\b", r"CREATE TEMP TABLE \1 AS", part)
        if not re.match(r"\s*(DROP (TABLE|VIEW) IF EXISTS|ANALYZE TABLE)\b", part):
            written.append(part)
    return written


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

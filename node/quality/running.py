"""Runs the checks on a store. Reads, and changes nothing; one check that cannot run hides no other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import duckdb

from node.omop.store import OmopStore
from node.omop.tables import LOCAL_CONCEPTS_ABOVE
from node.quality import joined_rules
from node.quality.catalogue import Check, catalogue
from node.quality.row_rules import Columns, row_rule

_RULES_PER_PASS = 60  # so many sums in one statement: more only take longer to plan


class Status(StrEnum):
    """How a check came out."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"  # nothing there to check
    ERROR = "error"  # it could not run: counts as failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check's result: `failing` of `of` records. `why` is for checks that did not count."""

    check: Check
    status: Status
    failing: int = 0
    of: int = 0
    why: str = ""

    @property
    def percent(self) -> float:
        """How many percent fail."""
        return 100 * self.failing / self.of if self.of else 0.0


def run(store: OmopStore, checks: Iterable[Check] | None = None) -> list[Outcome]:
    """Run the checks (all there are) and return what came out, in their order."""
    asked = list(catalogue() if checks is None else checks)
    with reading(store) as cursor:
        found = _Found(cursor)
        done: dict[Check, Outcome] = {}
        waiting: dict[str, list[tuple[Check, str, str]]] = defaultdict(list)
        by_concept: dict[tuple[str, str], list[Check]] = defaultdict(list)
        for check in asked:
            outcome = found.before(check)
            if outcome is not None:
                done[check] = outcome
            elif check.name in ("plausibleGender", "plausibleUnitConceptIds"):
                by_concept[check.name, check.table].append(check)
            elif (rule := row_rule(check, found.columns(check.table))) is not None:
                waiting[check.table].append((check, rule.fails, rule.of))
            else:
                done[check] = _joined(cursor, check)
        for table, rules in waiting.items():
            for start in range(0, len(rules), _RULES_PER_PASS):
                done |= _one_pass(cursor, table, rules[start : start + _RULES_PER_PASS])
        for (name, _), group in by_concept.items():
            done |= _concepts(cursor, name, group)
    return [done[check] for check in asked]


@contextmanager
def reading(store: OmopStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """One state of the store, on a connection of its own."""
    cursor = store.cursor()
    try:
        cursor.execute("SET schema = '" + store.schema.replace("'", "''") + "'")
        cursor.execute("BEGIN TRANSACTION")
        yield cursor
    finally:
        cursor.close()


class _Found:
    """What the database has: tables, their columns, and which are empty."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._columns: dict[str, dict[str, str]] = defaultdict(dict)
        rows = cursor.execute(
            "SELECT lower(table_name), lower(column_name), data_type FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_catalog = current_database()"
        ).fetchall()
        for table, column, kind in rows:
            self._columns[table][column] = kind
        self._empty = {table for table in self._columns if _is_empty(cursor, table)}
        self._vocabulary = "concept" not in self._empty and "concept" in self._columns
        if self._vocabulary:  # names of our own are no vocabulary
            top = f"SELECT count(*) FROM concept WHERE concept_id BETWEEN 1 AND {LOCAL_CONCEPTS_ABOVE}"  # noqa: S608
            self._vocabulary = _two(cursor, f"{top} LIMIT 1", single=True)[0] > 0

    def columns(self, table: str) -> Columns:
        return Columns(self._columns[table])

    def before(self, check: Check) -> Outcome | None:
        """Return what follows from the shape of the database alone, None if the records decide."""
        there = check.table in self._columns
        if check.name == "cdmTable":
            return _decided(check, int(not there), 1)
        if not there:
            return _nothing(check, "no such table")
        if check.name == "cdmField":
            return _decided(check, int(check.field not in self._columns[check.table]), 1)
        if check.field and check.field not in self._columns[check.table]:
            return _nothing(check, "no such field")
        if check.table in self._empty and check.kind.level != "table":
            return _nothing(check, "the table is empty")
        for table in joined_rules.needs(check):
            if table not in self._columns or table in self._empty:
                return _nothing(check, f"{table} is empty")
            if table == "concept" and not self._vocabulary:
                return _nothing(check, "no vocabulary is loaded")
        return None


def _one_pass(
    cursor: duckdb.DuckDBPyConnection, table: str, rules: list[tuple[Check, str, str]]
) -> dict[Check, Outcome]:
    sums = ", ".join(
        f"count(*) FILTER (({fails}) AND ({of})), count(*) FILTER ({of})" for _, fails, of in rules
    )
    try:
        row = cursor.execute(f"SELECT {sums} FROM {table}").fetchone()  # noqa: S608 (our names)
    except duckdb.Error:
        cursor = _again(cursor)
        if len(rules) == 1:
            return {rules[0][0]: _error(rules[0][0])}
        half = len(rules) // 2
        return _one_pass(cursor, table, rules[:half]) | _one_pass(cursor, table, rules[half:])
    assert row is not None, "an aggregate always returns one row"
    return {
        check: _decided(check, int(row[2 * place]), int(row[2 * place + 1]))
        for place, (check, _, _) in enumerate(rules)
    }


def _joined(cursor: duckdb.DuckDBPyConnection, check: Check) -> Outcome:
    select = joined_rules.joined_rule(check)
    if select is None:  # a field that the rule needs is not in this database
        return _nothing(check, "no such field")
    try:
        return _decided(check, *_two(cursor, select))
    except duckdb.Error:
        _again(cursor)
        return _error(check)


def _concepts(cursor: duckdb.DuckDBPyConnection, name: str, checks: list[Check]) -> dict[Check, Outcome]:
    rules = joined_rules.gender_rules if name == "plausibleGender" else joined_rules.unit_rules
    try:
        rows = cursor.execute(rules(checks)).fetchall()
    except duckdb.Error:
        _again(cursor)
        return {check: _error(check) for check in checks}
    counted = {int(concept): (int(failing), int(of)) for concept, failing, of in rows}
    return {check: _decided(check, *counted.get(check.concept_ids[0], (0, 0))) for check in checks}


def _decided(check: Check, failing: int, of: int) -> Outcome:
    if not of:
        return _nothing(check, "no records that it is about")
    outcome = Outcome(check, Status.PASSED, failing, of)
    return outcome if outcome.percent <= check.limit_percent else Outcome(check, Status.FAILED, failing, of)


def _nothing(check: Check, why: str) -> Outcome:
    return Outcome(check, Status.NOT_APPLICABLE, why=why)


def _error(check: Check) -> Outcome:
    return Outcome(check, Status.ERROR, why="it could not run on this database")


def _again(cursor: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A statement that fails ends the transaction: begin another."""
    cursor.execute("ROLLBACK")
    cursor.execute("BEGIN TRANSACTION")
    return cursor


def _two(cursor: duckdb.DuckDBPyConnection, select: str, *, single: bool = False) -> tuple[int, int]:
    row = cursor.execute(select).fetchone()
    assert row is not None, "an aggregate always returns one row"
    return int(row[0] or 0), 0 if single else int(row[1] or 0)


def _is_empty(cursor: duckdb.DuckDBPyConnection, table: str) -> bool:
    return cursor.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is None  # noqa: S608 (names it told)

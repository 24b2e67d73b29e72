"""Checks that one record alone decides, as SQL: which records fail, out of which.

All rules of a table are counted in one pass over it (node.quality.running).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.quality.catalogue import Check

MOVED_DAYS = 366  # dates are moved by up to a year: one of tomorrow may stand as one of next year


@dataclass(frozen=True, slots=True)
class RowRule:
    """Args: fails, an SQL condition on a record; of, one on the records that count. Null means no."""

    fails: str
    of: str = "true"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the table under check, by name, with their types in the database."""

    types: dict[str, str]

    def has(self, name: str) -> bool:
        """Return whether the table has the column."""
        return name in self.types

    def whole(self, name: str) -> bool:
        """Return whether the column can hold nothing but whole numbers."""
        return self.types[name] in _WHOLE


_WHOLE = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
}


def row_rule(check: Check, columns: Columns) -> RowRule | None:
    """Return the rule of a check that one record decides, None for one that needs more."""
    rule = _RULES.get(check.name)
    if check.name == "plausibleTemporalAfter" and not check.argument.startswith(f"{check.table}."):
        return None  # it looks at the person
    return rule(check, columns) if rule else None


def _datatype(check: Check, columns: Columns) -> RowRule:
    field = check.field
    if columns.whole(field):
        return RowRule("false")
    number = f"try_cast({field} AS DOUBLE)"
    return RowRule(f"{field} IS NOT NULL AND ({number} IS NULL OR {number} <> floor({number}))")


def _unmapped(check: Check, columns: Columns) -> RowRule:
    field = check.field
    if field == "unit_concept_id" and columns.has("value_as_number"):  # a unit is of a number
        return RowRule(f"coalesce({field}, 0) = 0", "value_as_number IS NOT NULL")
    return RowRule(f"{field} = 0")


def _limit(check: Check) -> str:
    match check.argument:
        case "today":
            return f"current_date + {MOVED_DAYS}"
        case "this-year":
            return f"year(current_date + {MOVED_DAYS}) + 1"
        case text if text.count("-") == 2:
            return f"DATE '{text}'"
        case text:
            return repr(float(text))


def _bound(sign: str) -> Callable[[Check, Columns], RowRule]:
    def rule(check: Check, _: Columns) -> RowRule:
        field, limit = check.field, _limit(check)
        if limit.startswith(("current", "DATE")):
            field = f"CAST({field} AS DATE)"
        return RowRule(f"{field} {sign} {limit}", f"{check.field} IS NOT NULL")

    return rule


def _start_before_end(check: Check, columns: Columns) -> RowRule | None:
    end = check.argument
    if not columns.has(end):
        return None
    return RowRule(f"{check.field} > {end}", f"{check.field} IS NOT NULL AND {end} IS NOT NULL")


def _after_own(check: Check, columns: Columns) -> RowRule | None:
    start = check.argument.partition(".")[2]
    if not columns.has(start):
        return None
    return RowRule(f"{check.field} < {start}", f"{check.field} IS NOT NULL")


_RULES: dict[str, Callable[[Check, Columns], RowRule | None]] = {
    "cdmDatatype": _datatype,
    "isRequired": lambda check, _: RowRule(f"{check.field} IS NULL"),
    "measureValueCompleteness": lambda check, _: RowRule(f"{check.field} IS NULL"),
    "standardConceptRecordCompleteness": _unmapped,
    "sourceConceptRecordCompleteness": lambda check, _: RowRule(f"coalesce({check.field}, 0) = 0"),
    "plausibleValueLow": _bound("<"),
    "plausibleValueHigh": _bound(">"),
    "plausibleStartBeforeEnd": _start_before_end,
    "plausibleTemporalAfter": _after_own,
}

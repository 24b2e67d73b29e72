"""What may pass of each field, and why: one table for FHIR, HL7 v2, OMOP, claims, X12, wearables, tables.

`structured.csv` names for each source which field is treated how, with the clause of Safe Harbor
(45 CFR 164.514(b)(2)(i)) or another reason beside it. A field that is not in the table does not pass.

A field is named as its source does: `Patient.birthDate`, `PID-7`, `person.year_of_birth`, `CLM_FROM_DT`.
Patterns may stand for many: `*.coding.code` (FHIR: any path that ends so; the longest pattern wins), and in
the other sources shell patterns, of which the first in the table wins. `Patient.name.**` is everything below,
and wins over all but an exact name.
"""

from __future__ import annotations

import csv
import functools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from deid.errors import MalformedRules

OLDEST_AGE_YEARS = 89  # 45 CFR 164.514(b)(2)(i)(C): above it all ages are one category
RULE_KEYS = frozenset({"columns", "patient", "quasi"})


class Source(StrEnum):
    """Whose names the fields have."""

    FACTS = "facts"  # node.ingest.facts: what every reader gives
    FHIR = "fhir"
    HL7V2 = "hl7v2"
    OMOP = "omop"
    CLAIMS = "claims"  # CMS's names
    X12 = "x12"  # segment and place: NM1-9
    WEARABLE = "wearable"  # the names of Apple Health, Fitbit and glucose monitors
    TABLE = "table"  # anybody's


class Action(StrEnum):
    """What happens to a field's value."""

    KEEP = "keep"
    PSEUDONYM = "pseudonym"  # the id of a person, by the vault
    RECORD = "record"  # the id of something else, by a keyed hash
    REFERENCE = "reference"  # FHIR's Type/id
    DATE = "date"  # moves by the person's days, or keeps the year, by the practice
    BIRTH = "birth"  # the year, and of who is over 89 the year of who is 90
    YEAR = "year"  # a year of birth
    AGE = "age"  # over 89 it is 90
    ZIP3 = "zip3"
    TEXT = "text"  # through the finder of identity in texts
    CODED = "coded"  # HL7 v2: the codes of a coded element stay, its words are a text
    VALUE = "value"  # a number or a short code stays; words are a text
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    source: Source
    field: str
    action: Action
    why: str


class Rules:
    """The lines for one source."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[str, Rule] = {}
        self._below: list[tuple[str, Rule]] = []
        self._endings: dict[str, Rule] = {}
        self._patterns: list[Rule] = []
        for rule in rules:
            if rule.field.endswith(".**"):
                self._below.append((rule.field.removesuffix("**"), rule))
            elif rule.source is Source.FHIR and rule.field.startswith("*."):
                self._endings[rule.field.removeprefix("*.")] = rule
            elif "*" in rule.field:
                self._patterns.append(rule)
            else:
                self._exact[rule.field] = rule

    def of(self, field: str) -> Rule | None:
        """Return the line that a field falls under; None: nobody has said that it may pass."""
        if (exact := self._exact.get(field)) is not None:
            return exact
        for prefix, rule in self._below:
            if field.startswith(prefix) or (prefix.startswith("*.") and prefix[1:] in field):
                return rule
        parts = field.split(".")
        for start in range(1, len(parts)):
            if (ending := self._endings.get(".".join(parts[start:]))) is not None:
                return ending
        return next((rule for rule in self._patterns if fnmatchcase(field, rule.field)), None)

    def __contains__(self, field: str) -> bool:
        return self.of(field) is not None


@functools.cache
def table() -> tuple[Rule, ...]:
    """Return every line of the table."""
    text = resources.files("deid").joinpath("structured.csv").read_text(encoding="utf-8")
    return tuple(
        Rule(Source(row["source"]), row["field"], Action(row["action"]), row["why"])
        for row in csv.DictReader(text.splitlines())
    )


@functools.cache
def rules_of(source: Source) -> Rules:
    """Return the table's lines for one source."""
    return Rules(rule for rule in table() if rule.source is source)


@functools.cache
def restricted_zip3() -> frozenset[str]:
    """Return the 3-digit areas in which 20,000 people or fewer live, by any of the last three censuses.

    Source: HHS's guidance (2000), the list in use after 2010, and the ZCTA populations of 2020.
    """
    text = resources.files("deid").joinpath("structured_zip3.csv").read_text(encoding="utf-8")
    return frozenset(row["zip3"] for row in csv.DictReader(text.splitlines()))


@dataclass(frozen=True, slots=True)
class TableRules:
    """How the columns of one table are treated: the hospital's own lines first, then those of the source."""

    columns: Mapping[str, Action]
    patient: str | None  # the column whose ids the vault knows; None: the first that becomes a pseudonym
    quasi: tuple[str, ...] = ()  # columns for the report on risk

    @classmethod
    def load(cls, path: Path) -> TableRules:
        """Return the rules in a TOML file. Raises: MalformedRules, OSError."""
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise MalformedRules("$", "is not TOML") from None
        for key in sorted(found.keys() - RULE_KEYS):
            raise MalformedRules(key, "unknown key")
        columns = found.get("columns", {})
        if not isinstance(columns, dict):
            raise MalformedRules("columns", "a section with one action per column")
        patient, quasi = found.get("patient"), found.get("quasi", [])
        if patient is not None and columns.get(patient, Action.PSEUDONYM) != Action.PSEUDONYM:
            raise MalformedRules("patient", "the column of patients becomes a pseudonym")
        if not isinstance(quasi, list) or not all(isinstance(one, str) for one in quasi):
            raise MalformedRules("quasi", "a list of columns")
        return cls(
            {name: _action(action, f"columns.{name}") for name, action in columns.items()},
            patient,
            tuple(quasi),
        )

    def of(self, columns: Sequence[str], source: Source) -> dict[str, Action | None]:
        """Return what happens to each column; None for one that nobody has named.

        Raises: MalformedRules if the rules name a column that the table does not have.
        """
        for name in (*self.columns, *([self.patient] if self.patient else ())):
            if name not in columns:
                raise MalformedRules(f"columns.{name}", "the table has no such column")
        lines = rules_of(source)
        found: dict[str, Action | None] = {}
        for name in columns:
            line = lines.of(name if source is not Source.TABLE else _plain(name))
            found[name] = self.columns.get(name, line.action if line else None)
        if self.patient:
            found[self.patient] = Action.PSEUDONYM
        return found


NO_RULES = TableRules({}, None)


def _action(value: object, key: str) -> Action:
    try:
        return Action(str(value))
    except ValueError:
        raise MalformedRules(key, f"one of {', '.join(Action)}") from None


def _plain(name: str) -> str:
    """A column's name in the table's spelling.

    >>> _plain("Date of Birth")
    'date_of_birth'
    """
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())

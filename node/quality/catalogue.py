"""The checks there are: which, on what, and how many percent of records may fail one.

`checks.csv` beside this file: checks of tables, fields and concepts, with their thresholds, from the OHDSI
Data Quality Dashboard (https://github.com/OHDSI/DataQualityDashboard, Copyright Observational Health Data
Sciences and Informatics, Apache-2.0; changed: reduced to the tables used here and to what a check needs to
run, without names of concepts), and three temporal ones of our own: eventBeforeBirth, eventAfterDeath,
claimBeforeVisit.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources


class Category(StrEnum):
    """Kahn's categories of data quality."""

    CONFORMANCE = "Conformance"
    COMPLETENESS = "Completeness"
    PLAUSIBILITY = "Plausibility"


@dataclass(frozen=True, slots=True)
class CheckKind:
    """What every check of one name has in common. `says` is about the records that fail it."""

    level: str  # table, field, concept
    category: Category
    says: str


_CON, _COM, _PLA = Category.CONFORMANCE, Category.COMPLETENESS, Category.PLAUSIBILITY
KINDS: dict[str, CheckKind] = {
    "cdmTable": CheckKind("table", _CON, "the table is missing"),
    "measurePersonCompleteness": CheckKind("table", _COM, "persons without a record in the table"),
    "measureConditionEraCompleteness": CheckKind("table", _COM, "persons with conditions and without eras"),
    "measureObservationPeriodOverlap": CheckKind("table", _PLA, "persons whose periods overlap or touch"),
    "cdmField": CheckKind("field", _CON, "the field is missing"),
    "cdmDatatype": CheckKind("field", _CON, "values that are no whole number"),
    "isRequired": CheckKind("field", _CON, "records without a value that is required"),
    "isPrimaryKey": CheckKind("field", _CON, "records whose key another record has"),
    "isForeignKey": CheckKind("field", _CON, "records that point to nothing"),
    "fkDomain": CheckKind("field", _CON, "records with a concept of another domain"),
    "fkClass": CheckKind("field", _CON, "records with a concept of another class"),
    "isStandardValidConcept": CheckKind(
        "field", _CON, "records with a concept not standard or no longer valid"
    ),
    "measureValueCompleteness": CheckKind("field", _COM, "records without a value"),
    "standardConceptRecordCompleteness": CheckKind("field", _COM, "records that are not mapped"),
    "sourceConceptRecordCompleteness": CheckKind("field", _COM, "records without a source concept"),
    "sourceValueCompleteness": CheckKind("field", _COM, "source codes of which a record is not mapped"),
    "plausibleValueLow": CheckKind("field", _PLA, "values that are too low"),
    "plausibleValueHigh": CheckKind("field", _PLA, "values that are too high"),
    "plausibleTemporalAfter": CheckKind("field", _PLA, "dates before what they must follow"),
    "plausibleDuringLife": CheckKind("field", _PLA, "dates more than 60 days after death"),
    "plausibleAfterBirth": CheckKind("field", _PLA, "dates before birth"),
    "plausibleBeforeDeath": CheckKind("field", _PLA, "dates more than 60 days after death"),
    "plausibleStartBeforeEnd": CheckKind("field", _PLA, "starts that lie after the end"),
    "withinVisitDates": CheckKind("field", _PLA, "dates more than a week outside their visit"),
    "plausibleGender": CheckKind("concept", _PLA, "records of persons of an implausible sex"),
    "plausibleGenderUseDescendants": CheckKind("concept", _PLA, "records of persons of an implausible sex"),
    "plausibleUnitConceptIds": CheckKind("concept", _PLA, "numbers in an implausible unit"),
    "eventBeforeBirth": CheckKind("field", _PLA, "records dated before the year of birth"),
    "eventAfterDeath": CheckKind("field", _PLA, "records dated after the day of death"),
    "claimBeforeVisit": CheckKind("field", _PLA, "claims dated before the visit they are for"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Args: argument, what the check of this name needs besides; field is "" for a table."""

    name: str
    table: str
    field: str
    limit_percent: float
    argument: str

    @property
    def kind(self) -> CheckKind:
        """What its name says of it."""
        return KINDS[self.name]

    @property
    def concept_ids(self) -> tuple[int, ...]:
        """The concepts that a check of concepts is about."""
        if self.kind.level != "concept":
            return ()
        return tuple(int(concept) for concept in self.argument.partition(":")[0].split(","))


@cache
def catalogue() -> tuple[Check, ...]:
    """Return every check, in the order of the file."""
    text = resources.files("node.quality").joinpath("checks.csv").read_text(encoding="utf-8")
    return tuple(
        Check(row["check"], row["table"], row["field"], float(row["limit_percent"]), row["argument"])
        for row in csv.DictReader(text.splitlines())
    )

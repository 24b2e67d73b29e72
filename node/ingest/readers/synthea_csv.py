"""Synthea's CSV export: one file a kind of record, recognised by its header.

As OHDSI's ETL-Synthea reads it: encounters are visits; conditions, procedures, devices and supplies are in
SNOMED, observations in LOINC, medications in RxNorm, immunizations in CVX. What a medication, a procedure, an
immunization or an encounter cost stands in its own row; claims and their transactions say it again and are
turned away as "said-elsewhere". Times are UTC. A record is a line below the header.

Rows but encounters have no id of their own: they are named by encounter, code and time, and numbered where
one encounter has several of the same.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from node.ingest.errors import UnreadableSource
from node.ingest.facts import Action, FactBatch, Kind, Precision, TurnedAway, table_of
from node.ingest.readers.claims_rows import amount

MAX_LINE_BYTES = 1 << 16  # the longest of Synthea's is below 2 KB
NAMESPACE = "synthea"
EHR, VISIT, PRESCRIBED, ADMINISTERED, LAB, ENROLMENT = 32817, 32827, 32838, 32818, 32856, 32813
DEATH_CERTIFICATION = "308646001"  # the encounter whose reason is what the person died of
_ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_CLASSES = {  # of encounters; urgent care is an emergency visit, as ETL-Synthea has it
    "ambulatory": "AMB", "wellness": "AMB", "outpatient": "AMB", "emergency": "EMER", "urgentcare": "EMER",
    "inpatient": "IMP", "hospice": "HH", "home": "HH", "snf": "IMP", "virtual": "VR",
}  # fmt: skip
_RACES = {"white": "2106-3", "black": "2054-5", "asian": "2028-9", "native": "1002-5", "hawaiian": "2076-8"}
_ETHNICITIES = {"hispanic": "2135-2", "nonhispanic": "2186-5"}
_SEXES = {"M": "male", "F": "female"}
_CDC = "urn:oid:2.16.840.1.113883.6.238"
_SYSTEMS = {"SNOMED-CT": "SNOMED", "RXNORM": "RxNorm", "LOINC": "LOINC", "CVX": "CVX"}
_BOM = b"\xef\xbb\xbf"

Row = dict[str, str]
Fact = dict[str, object]
Reading = Callable[["_File", Row], "list[Fact] | str"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A day, or a moment in UTC."""

    at: datetime
    precision: str


@lru_cache(maxsize=1 << 15)
def moment(text: str) -> Moment | None:
    """Return a date or a date and time as Synthea writes it; None if it is none.

    >>> moment("2023-01-27T16:17:47Z").precision, moment("2023-01-27").precision, moment("2023-02-30")
    ('second', 'day', None)
    """
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            return Moment(datetime(day.year, day.month, day.day, tzinfo=UTC), Precision.DAY.value)
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return Moment(found.astimezone(UTC), Precision.SECOND.value)
    except (ValueError, OverflowError):
        return None


class SyntheaCsv:
    """The reader of Synthea's CSV files."""

    name = "synthea"
    version = "1"

    def reads(self, path: Path) -> bool:
        """Return whether the first line is a header of Synthea's."""
        if path.suffix.lower() != ".csv":
            return False
        with path.open("rb") as raw:
            return _understood(raw.readline(MAX_LINE_BYTES)) is not None

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield a file's facts in order. Raises: UnreadableSource if the header is none of Synthea's."""
        with path.open("rb") as raw:
            found = _understood(raw.readline(MAX_LINE_BYTES))
            if found is None:
                raise UnreadableSource(path.name, "no header of a Synthea file")
            yield from _File(raw, *found).batches(batch_records)


@dataclass(slots=True)
class _File:
    raw: BinaryIO
    columns: list[str]
    reading: Reading
    _record: int = 0
    _turned_away: list[TurnedAway] = field(default_factory=list)
    _encounter: str = ""
    _names: Counter[str] = field(default_factory=Counter)

    def batches(self, batch_records: int) -> Iterator[FactBatch]:
        """Yield batches; a line too long for memory is passed over, and counted."""
        rows: list[Fact] = []
        first = 0
        while line := self.raw.readline(MAX_LINE_BYTES + 1):
            too_long = len(line) > MAX_LINE_BYTES
            while too_long and line and not line.endswith(b"\n"):
                line = self.raw.readline(MAX_LINE_BYTES)
            if not too_long and not line.strip():
                continue
            self._record += 1
            found = "too-long" if too_long else self._one(line)
            if isinstance(found, str):
                self._turned_away.append(TurnedAway(self._record, "", found, True))
            else:
                rows += [_COMMON | {"record": self._record} | fact for fact in found]
            if self._record - first >= batch_records:
                yield self._batch(rows, self._record - first)
                rows, first = [], self._record
        if self._record > first:
            yield self._batch(rows, self._record - first)

    def _batch(self, rows: list[Fact], records: int) -> FactBatch:
        turned_away, self._turned_away = self._turned_away, []
        return FactBatch(table_of(rows), turned_away, records, self.raw.tell())

    def _one(self, line: bytes) -> list[Fact] | str:
        try:
            values = _fields(line)
        except UnicodeDecodeError:
            return "not-text"
        except csv.Error:
            return "bad-quotes"
        if len(values) != len(self.columns):
            return "bad-width"
        return self.reading(self, dict(zip(self.columns, map(str.strip, values), strict=True)))

    def note(self, name: str, reason: str) -> None:
        """Turn one field of the present record away."""
        self._turned_away.append(TurnedAway(self._record, name, reason, False))

    def number(self, row: Row, name: str) -> float | None:
        """Return a field as a number; one that is none is turned away."""
        text = row.get(name, "")
        if not text:
            return None
        found = amount(text)
        if found is None:
            self.note(name, "not-a-number")
        return found

    def until(self, row: Row, start: Moment) -> datetime | None:
        """Return when it ended; an end that cannot be is turned away."""
        text = row.get("STOP", "")
        if not text:
            return None
        end = moment(text)
        if end is None or (end.at < start.at and end.precision == start.precision):
            self.note("STOP", "bad-date" if end is None else "ends-before-it-starts")
            return None
        return end.at

    def key(self, what: str, row: Row, start: str) -> str:
        """Return a name for a row without an id."""
        encounter = row.get("ENCOUNTER") or row["PATIENT"]
        if encounter != self._encounter:  # rows stand by encounter: memory does not grow with the file
            self._encounter = encounter
            self._names.clear()
        name = f"{what}:{encounter}:{row['CODE']}:{start}"
        self._names[name] += 1
        return f"{name}:{self._names[name]}"


_COMMON: Fact = {"action": Action.ASSERT.value, "patient_namespace": NAMESPACE, "place": ""}


def _person(file: _File, row: Row) -> list[Fact] | str:
    if not row["Id"]:
        return "no-patient"
    born = moment(row["BIRTHDATE"])
    if born is None:
        file.note("BIRTHDATE", "bad-date")
    facts: list[Fact] = [
        {
            "kind": Kind.PERSON.value,
            "place": "patient",
            "patient": row["Id"],
            "birth": born.at.date() if born else None,
            "precision": Precision.DAY.value,
            "sex": _SEXES.get(row["GENDER"], "unknown"),
            "race": _group(_RACES, row["RACE"]),
            "ethnicity": _group(_ETHNICITIES, row["ETHNICITY"]),
        }
    ]
    if row["DEATHDATE"]:
        died = moment(row["DEATHDATE"])
        if died is None:
            file.note("DEATHDATE", "bad-date")
        else:
            facts.append(_death(row["Id"], died))
    return facts


def _death(patient: str, died: Moment, **more: object) -> Fact:
    return {
        "kind": Kind.DEATH.value, "place": "death", "key": f"death:{patient}", "patient": patient,
        "start": died.at, "precision": died.precision, "type_concept_id": EHR,
    } | more  # fmt: skip


def _group(codes: dict[str, str], word: str) -> Fact | None:
    word = word.lower()
    if not word:
        return None
    return (
        {"system": _CDC, "code": codes[word]} if word in codes else {"system": "local:synthea", "code": word}
    )


def _encounter(file: _File, row: Row) -> list[Fact] | str:
    start = moment(row["START"])
    if not row["PATIENT"] or not row["Id"]:
        return "no-patient" if not row["PATIENT"] else "no-id"
    if start is None:
        return "bad-date"
    kind = _CLASSES.get(row["ENCOUNTERCLASS"])
    facts: list[Fact] = [
        {
            "kind": Kind.VISIT.value, "place": "encounter", "key": row["Id"], "encounter": row["Id"],
            "patient": row["PATIENT"], "start": start.at, "precision": start.precision,
            "end": file.until(row, start), "type_concept_id": VISIT,
            "codes": [{"system": _ACT, "code": kind} if kind else
                      {"system": "local:synthea", "code": row["ENCOUNTERCLASS"] or "none"}],
        }
        | _money(file, row, "TOTAL_CLAIM_COST")
    ]  # fmt: skip
    if row["CODE"] == DEATH_CERTIFICATION and row["REASONCODE"]:
        cause = [{"system": "SNOMED", "code": row["REASONCODE"]}]
        facts.append(_death(row["PATIENT"], start, codes=cause, version=start.at))
    return facts


def _money(file: _File, row: Row, charged: str) -> Fact:
    asked, paid = file.number(row, charged), file.number(row, "PAYER_COVERAGE")
    if asked is None and paid is None:
        return {}
    return {"charged": asked, "paid": paid, "currency": "USD"}


def _event(
    kind: Kind, system: str, type_concept_id: int, *, started: str = "START", charged: str = ""
) -> Reading:
    """A reading of rows that are events with a code."""

    def reading(file: _File, row: Row) -> list[Fact] | str:
        start = moment(row.get(started) or row.get("DATE", ""))
        if not row["PATIENT"]:
            return "no-patient"
        if start is None:
            return "bad-date"
        if not row["CODE"]:
            return "no-code"
        named = row.get("SYSTEM", "").upper()
        fact: Fact = {
            "kind": kind.value, "place": kind.value, "patient": row["PATIENT"],
            "key": file.key(kind.value, row, (row.get(started) or row["DATE"])),
            "encounter": row.get("ENCOUNTER") or None, "start": start.at, "precision": start.precision,
            "end": file.until(row, start), "type_concept_id": type_concept_id,
            "codes": [{"system": _SYSTEMS.get(named, system), "code": row["CODE"]}],
        }  # fmt: skip
        if charged:
            fact |= _money(file, row, charged)
        if "QUANTITY" in row:
            fact["quantity"] = file.number(row, "QUANTITY")
        return [fact]

    return reading


_MEDICATION = _event(Kind.DRUG, "RxNorm", PRESCRIBED, charged="TOTALCOST")


def _medication(file: _File, row: Row) -> list[Fact] | str:
    found = _MEDICATION(file, row)
    if not isinstance(found, str):
        (fact,) = found
        start, end = fact["start"], fact["end"]
        if isinstance(start, datetime) and isinstance(end, datetime):
            fact["days_supply"] = (end.date() - start.date()).days
    return found


_SEEN = _event(Kind.OBSERVATION, "LOINC", EHR, started="DATE")


def _observation(file: _File, row: Row) -> list[Fact] | str:
    found = _SEEN(file, row)
    if isinstance(found, str):
        return found
    (fact,) = found
    lab = row.get("CATEGORY") == "laboratory"
    numeric = row.get("TYPE") == "numeric"
    fact |= {"type_concept_id": LAB if lab else EHR}
    if numeric:
        value = file.number(row, "VALUE")
        unit = row.get("UNITS", "")
        fact |= {
            "kind": Kind.MEASUREMENT.value,
            "value_number": value,
            "unit": None if unit == "null" else unit,
        }
    elif row["VALUE"]:
        fact["value_text"] = row["VALUE"]
    return [fact | ({"unit": None} if not fact.get("unit") else {})]


def _cover(file: _File, row: Row) -> list[Fact] | str:
    start, end = moment(row["START_YEAR"]), moment(row["END_YEAR"])
    if not row["PATIENT"]:
        return "no-patient"
    if start is None or (row["END_YEAR"] and end is None):
        return "bad-date"
    return [
        {
            "kind": Kind.COVERAGE.value, "place": "coverage", "patient": row["PATIENT"],
            "key": f"coverage:{row['PATIENT']}:{row['START_YEAR']}:{row['PAYER']}",
            "start": start.at, "precision": start.precision, "end": end.at if end else None,
            "type_concept_id": ENROLMENT, "details": [("payer", row["PAYER"])],
        }
    ]  # fmt: skip


def _always(reason: str) -> Reading:
    return lambda file, row: reason


# columns that tell a file from the others, and how its rows are read
_FILES: tuple[tuple[frozenset[str], Reading], ...] = (
    (frozenset(("Id", "BIRTHDATE", "DEATHDATE", "RACE", "ETHNICITY", "GENDER")), _person),
    (frozenset(("Id", "START", "STOP", "PATIENT", "ENCOUNTERCLASS", "CODE", "REASONCODE")), _encounter),
    (frozenset(("START", "STOP", "PATIENT", "ENCOUNTER", "CODE", "TYPE", "CATEGORY", "REACTION1")),
     _event(Kind.OBSERVATION, "SNOMED", EHR)),
    (frozenset(("START", "STOP", "PATIENT", "ENCOUNTER", "CODE", "DISPENSES", "TOTALCOST")), _medication),
    (frozenset(("DATE", "PATIENT", "ENCOUNTER", "CATEGORY", "CODE", "VALUE", "UNITS", "TYPE")), _observation),
    (frozenset(("START", "STOP", "PATIENT", "ENCOUNTER", "CODE", "UDI")),
     _event(Kind.DEVICE, "SNOMED", EHR)),
    (frozenset(("Id", "START", "STOP", "PATIENT", "ENCOUNTER", "CODE", "REASONCODE")), _always("care-plan")),
    (frozenset(("START", "STOP", "PATIENT", "ENCOUNTER", "CODE", "BASE_COST", "REASONCODE")),
     _event(Kind.PROCEDURE, "SNOMED", EHR, charged="BASE_COST")),
    (frozenset(("DATE", "PATIENT", "ENCOUNTER", "CODE", "BASE_COST")),
     _event(Kind.DRUG, "CVX", ADMINISTERED, started="DATE", charged="BASE_COST")),
    (frozenset(("DATE", "PATIENT", "ENCOUNTER", "CODE", "QUANTITY")),
     _event(Kind.DEVICE, "SNOMED", EHR, started="DATE")),
    (frozenset(("START", "STOP", "PATIENT", "ENCOUNTER", "CODE")), _event(Kind.CONDITION, "SNOMED", EHR)),
    (frozenset(("PATIENT", "START_YEAR", "END_YEAR", "PAYER")), _cover),
    (frozenset(("PATIENT", "ENCOUNTER", "MODALITY_CODE", "SOP_CODE")), _always("image-catalogue")),
    (frozenset(("CLAIMID", "CHARGEID", "PATIENTID")), _always("said-elsewhere")),
    (frozenset(("PATIENTID", "DIAGNOSIS1", "HEALTHCARECLAIMTYPEID1")), _always("said-elsewhere")),
    (frozenset(("Id", "ORGANIZATION", "SPECIALITY")), _always("not-clinical")),
    (frozenset(("Id", "NAME", "STATE_HEADQUARTERED")), _always("not-clinical")),
    (frozenset(("Id", "NAME", "REVENUE", "UTILIZATION")), _always("not-clinical")),
)  # fmt: skip


def _fields(line: bytes) -> list[str]:
    text = line.decode("utf-8").rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    rows = list(csv.reader([text], strict=True))
    return rows[0] if rows else []


def _understood(line: bytes) -> tuple[list[str], Reading] | None:
    try:
        columns = _fields(line.removeprefix(_BOM))
    except (UnicodeDecodeError, csv.Error):
        return None
    names = set(columns)
    if len(names) != len(columns):
        return None
    return next(((columns, reading) for needed, reading in _FILES if needed <= names), None)

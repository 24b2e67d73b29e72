"""What the rows of each of Synthea's files say, and by which columns a file is known."""

from __future__ import annotations

import csv
from datetime import datetime

from node.ingest.facts import Kind, Precision
from node.ingest.readers.synthea_file import Fact, Moment, Reading, Row, SyntheaFile, fields, moment

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


def _person(file: SyntheaFile, row: Row) -> list[Fact] | str:
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


def _encounter(file: SyntheaFile, row: Row) -> list[Fact] | str:
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


def _money(file: SyntheaFile, row: Row, charged: str) -> Fact:
    asked, paid = file.number(row, charged), file.number(row, "PAYER_COVERAGE")
    if asked is None and paid is None:
        return {}
    return {"charged": asked, "paid": paid, "currency": "USD"}


def _event(
    kind: Kind, system: str, type_concept_id: int, *, started: str = "START", charged: str = ""
) -> Reading:
    """A reading of rows that are events with a code."""

    def reading(file: SyntheaFile, row: Row) -> list[Fact] | str:
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


def _medication(file: SyntheaFile, row: Row) -> list[Fact] | str:
    found = _MEDICATION(file, row)
    if not isinstance(found, str):
        (fact,) = found
        start, end = fact["start"], fact["end"]
        if isinstance(start, datetime) and isinstance(end, datetime):
            fact["days_supply"] = (end.date() - start.date()).days
    return found


_SEEN = _event(Kind.OBSERVATION, "LOINC", EHR, started="DATE")


def _observation(file: SyntheaFile, row: Row) -> list[Fact] | str:
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


def _cover(file: SyntheaFile, row: Row) -> list[Fact] | str:
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


def understood(line: bytes) -> tuple[list[str], Reading] | None:
    """Return a header's columns and how the rows below it are read; None for a header of no such file."""
    try:
        columns = fields(line.removeprefix(_BOM))
    except (UnicodeDecodeError, csv.Error):
        return None
    names = set(columns)
    if len(names) != len(columns):
        return None
    return next(((columns, reading) for needed, reading in _FILES if needed <= names), None)

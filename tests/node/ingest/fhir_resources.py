"""FHIR resources made up for tests, and how tests read them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from node.ingest.facts import TurnedAway
from node.ingest.readers.fhir import FhirReader

Json = dict[str, Any]
SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
UCUM = "http://unitsofmeasure.org"
PATIENT = {"reference": "Patient/p1"}


def concept(code: str, system: str = SNOMED, text: str | None = None) -> Json:
    """Return a CodeableConcept with one code."""
    made: Json = {"coding": [{"system": system, "code": code, "display": f"display {code}"}]}
    return made | ({"text": text} if text else {})


def quantity(value: float, unit: str) -> Json:
    """Return a Quantity in UCUM."""
    return {"value": value, "unit": f"written {unit}", "system": UCUM, "code": unit}


def resource(kind: str, **fields: Any) -> Json:
    """Return a resource whose id is "x1" unless said otherwise."""
    return {"resourceType": kind, "id": "x1", **fields}


def observation(**fields: Any) -> Json:
    """Return a final laboratory result."""
    made = resource(
        "Observation",
        status="final",
        category=[concept("laboratory", "http://terminology.hl7.org/CodeSystem/observation-category")],
        code=concept("2345-7", LOINC, "Glucose"),
        subject=PATIENT,
        encounter={"reference": "Encounter/e1"},
        effectiveDateTime="2020-02-03T04:05:06-05:00",
        valueQuantity=quantity(95.5, "mg/dL"),
    )
    return {name: value for name, value in (made | fields).items() if value is not None}


class Facts:
    """What a file gave: facts as dicts without nulls, what was turned away, how many records."""

    def __init__(self, path: Path, *, batch_records: int = 1000) -> None:
        self.rows: list[Json] = []
        self.turned_away: list[TurnedAway] = []
        self.records = 0
        for batch in FhirReader().read(path, batch_records=batch_records):
            for row in batch.facts.to_pylist():
                kept = {name: value for name, value in row.items() if value is not None}
                if "details" in kept:
                    kept["details"] = dict(kept["details"])
                self.rows.append(kept)
            self.turned_away += batch.turned_away
            self.records += batch.records
        with_facts = {row["record"] for row in self.rows}
        refused = [away.record for away in self.turned_away if away.whole_record]
        assert len(refused) == len(set(refused))
        assert not with_facts & set(refused)
        assert with_facts | set(refused) == set(range(1, self.records + 1))

    @property
    def reasons(self) -> Counter[str]:
        """Reasons of records that were turned away."""
        return Counter(away.reason for away in self.turned_away if away.whole_record)

    @property
    def notes(self) -> set[tuple[str, str]]:
        """Fields that were turned away of records that gave facts."""
        return {(away.field, away.reason) for away in self.turned_away if not away.whole_record}

    def one(self, kind: str) -> Json:
        """Return the only fact of this kind."""
        (row,) = [row for row in self.rows if row["kind"] == kind]
        return row


def read_lines(folder: Path, *resources: Json | str, name: str = "export.ndjson") -> Facts:
    """Write resources as ndjson and read them."""
    path = folder / name
    lines = [one if isinstance(one, str) else json.dumps(one) for one in resources]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Facts(path)


def read_bundle(folder: Path, *entries: Json, kind: str = "transaction") -> Facts:
    """Write a bundle and read it."""
    path = folder / "bundle.json"
    path.write_text(json.dumps({"resourceType": "Bundle", "type": kind, "entry": list(entries)}, indent=1))
    return Facts(path)

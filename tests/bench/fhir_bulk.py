"""A bulk export of FHIR to measure with: made up, and the shared one of ten patients over and over.

Sizes and proportions are Synthea's: two of three records are Observations of a few hundred bytes, a fifth of
them blood pressures of two components. Each copy of the shared export has ids of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from tests.conftest import SHARED_DATA
from tests.node.ingest.fhir_resources import (
    LOINC,
    RXNORM,
    SNOMED,
    Json,
    concept,
    observation,
    quantity,
    resource,
)

SHARED = SHARED_DATA / "fhir_bulk_10"
TYPES = (
    "Patient", "Encounter", "Condition", "Observation", "MedicationRequest", "Procedure", "Immunization",
)  # fmt: skip
VISITS = 20  # of each patient who is made up
LABS = (
    ("2345-7", "mg/dL"), ("2160-0", "mg/dL"), ("718-7", "g/dL"), ("4548-4", "%"), ("2093-3", "mg/dL"),
    ("6690-2", "10*3/uL"), ("777-3", "10*3/uL"), ("8302-2", "cm"), ("29463-7", "kg"), ("39156-5", "kg/m2"),
)  # fmt: skip
DISEASES = ("44054006", "38341003", "195662009", "444814009", "10509002", "55822004", "162864005", "75498004")
MEDICINES = ("314076", "860975", "308136", "197361", "310798", "313782", "198405", "314231")
DONE = ("430193006", "710824005", "428211000124100", "715252007", "171207006", "76601001")
_UUID = re.compile(rb"[0-9a-f]{4}([0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


def write(folder: Path, *, patients: int, copies: int) -> int:
    """Write `patients` made up ones and, where the shared export is there, copies of it; return the bytes."""
    for name, (each, made) in _MADE.items():
        _write_made(folder / f"{name}.000.ndjson", made, patients=patients, each=each)
    for name in TYPES:
        for path in SHARED.glob(f"{name}.*.ndjson") if copies and SHARED.is_dir() else ():
            read = path.read_bytes()
            with (folder / f"{name}.001.ndjson").open("wb") as stream:
                for copy in range(copies):
                    stream.write(_UUID.sub(rb"%04x\1" % copy, read))
    return sum(path.stat().st_size for path in folder.glob("*.ndjson"))


def _write_made(path: Path, made: Callable[[int, str], Json], *, patients: int, each: int) -> None:
    days = np.random.default_rng(11).integers(0, 7_000, patients * VISITS)
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as stream:
        for number in range(patients * each):
            visit = number // each * VISITS + number % each % VISITS
            day = np.datetime64("2005-01-01") + days[visit]
            shared = {
                "meta": _META,
                "subject": {"reference": f"Patient/{_id('Patient', number // each)}"},
                "encounter": {"reference": f"Encounter/{_id('Encounter', visit)}"},
            }
            record = made(number, f"{day}T{visit % 10 + 8:02d}:{number % 60:02d}:16-05:00")
            record["id"] = _id(record["resourceType"], number)
            if each == 1:
                del shared["subject"]
            if each in (1, VISITS):
                del shared["encounter"]
            stream.write(encode(record | shared) + b"\n")


def _id(kind: str, number: int) -> str:
    return f"f{TYPES.index(kind):07x}-0000-4000-8000-{number:012x}"


def _patient(number: int, when: str) -> Json:
    return resource(
        "Patient",
        gender=("male", "female")[number % 2],
        birthDate=f"{1930 + number % 70}-{when[5:10]}",
        name=[{"family": f"Made{number}", "given": ["Up"]}],
    )


def _encounter(number: int, when: str) -> Json:
    kind = [concept("185347001", SNOMED, "Encounter for problem")]
    said = {"class": {"code": "AMB"}, "period": _hour_from(when)}
    return resource("Encounter", status="finished", type=kind, **said)


def _condition(number: int, when: str) -> Json:
    system = "http://terminology.hl7.org/CodeSystem/condition-"
    return resource(
        "Condition",
        code=concept(DISEASES[number % len(DISEASES)], SNOMED, "A disorder"),
        clinicalStatus=concept("active", f"{system}clinical"),
        verificationStatus=concept("confirmed", f"{system}ver-status"),
        category=[concept("encounter-diagnosis", f"{system}category")],
        onsetDateTime=when,
        recordedDate=when,
    )


def _observation(number: int, when: str) -> Json:
    code, unit = LABS[number % len(LABS)]
    value = 60 + number * 7919 % 1000 / 10
    if number % 5 < 4:
        said: Json = {"code": concept(code, LOINC, "A result"), "valueQuantity": quantity(value, unit)}
    else:
        parts = [
            {"code": concept(part, LOINC), "valueQuantity": quantity(value, "mm[Hg]")}
            for part in ("8480-6", "8462-4")
        ]
        said = {"code": concept("85354-9", LOINC, "Pressure"), "valueQuantity": None, "component": parts}
    return observation(effectiveDateTime=when, issued=when, **said)


def _medication(number: int, when: str) -> Json:
    return resource(
        "MedicationRequest",
        status="active",
        intent="order",
        medicationCodeableConcept=concept(MEDICINES[number % len(MEDICINES)], RXNORM, "A drug"),
        authoredOn=when,
        dosageInstruction=[{"timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}],
    )


def _procedure(number: int, when: str) -> Json:
    code = concept(DONE[number % len(DONE)], SNOMED, "Done")
    return resource("Procedure", status="completed", code=code, performedPeriod=_hour_from(when))


def _hour_from(when: str) -> Json:
    return {"start": when, "end": when[:14] + "59:59-05:00"}


_META = {"lastUpdated": "2025-01-02T03:04:05.678Z", "profile": ["http://hl7.org/fhir/us/core"]}
_MADE: dict[str, tuple[int, Callable[[int, str], Json]]] = {  # how many each patient has
    "Patient": (1, _patient),
    "Encounter": (VISITS, _encounter),
    "Condition": (8, _condition),
    "Observation": (120, _observation),
    "MedicationRequest": (15, _medication),
    "Procedure": (16, _procedure),
}

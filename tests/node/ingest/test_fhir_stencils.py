"""Resources that are filled in by columns give the same facts as those that are read one by one."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from node.ingest.readers.fhir import FhirReader
from node.ingest.readers.fhir_references import References
from node.ingest.readers.fhir_stencils import Stencils
from node.ingest.readers.fhir_time_columns import all_said, said
from tests.node.ingest.fhir_resources import LOINC, RXNORM, SNOMED, concept, quantity, resource

TIMES = [
    "2020-02-03T04:05:06-05:00", "2019-12-31T23:59:59+05:30", "2020-02-29T00:00:00Z",
    "2020-02-03T04:05:06.789Z", "2020-02-03", "2020-02", "2020", "2020-02-30T01:00:00Z",
    "2020-02-03T04:05:60+14:00", "2020-02-03T04:05:06", "2020-02-03T24:00:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "2021-02-29T01:00:00+00:00", "2020-13-01T01:00:00Z",
    "2020-02-03T04:05:06+14:01", "2020-02-03T04:05:06+01:60", "2020-02-03t04:05:06-05:00",
    "2020-02-03T04:05:0\u0666-05:00", "", "soon",
]  # fmt: skip
USUAL = TIMES[:4]
SUBJECTS = [
    {"reference": "Patient/p1"}, {"reference": "https://here/fhir/Patient/p2", "display": "Some"},
    {"reference": "urn:uuid:p3"}, {"identifier": {"system": "urn:mrn", "value": "7"}},
    {"reference": "Group/1"}, {"reference": "Patient?identifier=urn:mrn|7"},
    {"display": 7, "reference": "Patient/p1"}, None,
]  # fmt: skip
VISITS = [
    {"reference": "Encounter/e1"}, {"reference": "Encounter/e#2"}, {"reference": "Encounter?identifier=a|b"},
    {"display": "no address"}, None,
]  # fmt: skip
IDS = ["a1", "b#2", "c%3", "own-0", "own-1", None, 5, "", "\0"]
LAB = concept("laboratory", "http://terminology.hl7.org/CodeSystem/observation-category")
PART = {"code": concept("8480-6", LOINC)}


def _own(rng: np.random.Generator, wild: bool, *times: str, who: str = "subject") -> dict[str, Any]:
    """What is a resource's own, mostly as usual."""

    def one(of: list[Any], usual: int) -> Any:
        return of[int(rng.integers(len(of) if wild and rng.random() < 0.3 else usual))]

    found = {"id": one(IDS, 2), who: one(SUBJECTS, 3), "encounter": one(VISITS, 2)}
    found |= {name: one(TIMES, len(USUAL)) for name in times if not wild or rng.random() < 0.9}
    if rng.random() < 0.8:
        found["meta"] = {"lastUpdated": one(TIMES, len(USUAL))}
    return found


def _period(rng: np.random.Generator) -> dict[str, str] | None:
    ends = {name: TIMES[int(rng.integers(6))] for name in ("start", "end") if rng.random() < 0.8}
    return ends if rng.random() < 0.9 else None


def made(rng: np.random.Generator, wild: bool) -> dict[str, Any]:
    """A resource of one of few contents, with an own part of its own."""
    value = quantity(float(rng.normal()), "mg/dL")
    status = "final" if not wild else ["final", "preliminary", "entered-in-error"][int(rng.integers(3))]
    kind, content = int(rng.integers(7)), int(rng.integers(3))
    if kind == 0:
        said: list[dict[str, Any]] = [
            {"valueQuantity": value, "referenceRange": [{"low": quantity(1, "mg/dL")}]},
            {"component": [PART | {"valueQuantity": value}, PART | {"valueQuantity": quantity(3, "mm[Hg]")}]},
            {"valueQuantity": value | ({"value": None} if wild and rng.random() < 0.5 else {}), "component": [
                PART | {"valueInteger": 4}]},
        ]  # fmt: skip
        own = _own(rng, wild, "effectiveDateTime", "issued") | {"effectivePeriod": _period(rng)}
        if wild and rng.random() < 0.3:
            own["hasMember"] = [{"reference": "Observation/x"}]
        if rng.random() < 0.3:
            own["effectiveDateTime"] = None
        return resource(
            "Observation", status=status, category=[LAB], code=concept("1", LOINC), **(own | said[content])
        )
    if kind == 1:
        own = _own(rng, wild, "onsetDateTime", "abatementDateTime", "recordedDate")
        status = "refuted" if status == "entered-in-error" else "confirmed"
        verified = concept(status, "http://terminology.hl7.org/CodeSystem/condition-ver-status")
        return resource("Condition", code=concept(str(content), SNOMED), verificationStatus=verified, **own)
    if kind == 2:
        own = _own(rng, wild, "performedDateTime") | {"performedPeriod": _period(rng)}
        done = {"code": concept(str(content), SNOMED), "status": "completed"}
        return resource(
            "Procedure", **(own | done | ({"modifierExtension": [{}]} if status != "final" else {}))
        )
    if kind == 3:
        bounds = {"boundsPeriod": {"end": TIMES[0]}, "frequency": 2, "period": 1, "periodUnit": "d"}
        dosage = {"timing": {"repeat": bounds}, "doseAndRate": [{"doseQuantity": quantity(2, "mg")}]}
        more: dict[str, Any] = {"dosageInstruction": [dosage]} if content else {"context": VISITS[0]}
        drug = {"medicationCodeableConcept": concept(str(content), RXNORM), "status": "active"}
        return resource("MedicationRequest", intent="order", **(_own(rng, wild, "authoredOn") | drug | more))
    if kind == 4:
        own = _own(rng, wild, "effectiveDateTime") | {"effectivePeriod": _period(rng)}
        drug = {"medicationCodeableConcept": concept(str(content), RXNORM), "status": "completed"}
        return resource("MedicationAdministration", **(own | drug))
    if kind == 5:
        own = _own(rng, wild, "occurrenceDateTime", "recorded", who="patient")
        return resource("Immunization", status="completed", vaccineCode=concept(str(content)), **own)
    own = _own(rng, wild) | {"period": _period(rng), "encounter": None}
    return resource(
        "Encounter", status="finished", **{"class": {"code": ("AMB", "IMP", "EMER")[content]}}, **own
    )


def read(path: Path) -> tuple[pa.Table, set[tuple[int, str, str, bool]]]:
    batches = list(FhirReader().read(path, batch_records=700))
    away = {(a.record, a.field, a.reason, a.whole_record) for batch in batches for a in batch.turned_away}
    return pa.concat_tables([batch.facts for batch in batches]).combine_chunks(), away


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_filled_in_or_read_one_by_one_the_facts_are_the_same(tmp_path: Path, wild: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    resources = [made(rng, wild) for _ in range(1_500)]
    resources = [{name: each for name, each in one.items() if each is not None} for one in resources]
    (tmp_path / "lines.ndjson").write_text("".join(json.dumps(one) + "\n" for one in resources))
    entries = [{"resource": one} for one in resources]  # entries of a bundle are read one by one
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    (tmp_path / "bundle.json").write_text(json.dumps(bundle))
    facts, away = read(tmp_path / "lines.ndjson")
    expected, expected_away = read(tmp_path / "bundle.json")
    for name in facts.schema.names:
        assert facts[name].equals(expected[name]), name
    assert away == expected_away
    assert facts["record"].to_pylist() == sorted(facts["record"].to_pylist())
    lines = [json.dumps(one).encode() for one in resources]
    stencils = Stencils(References())
    for _ in range(4):
        _, left = stencils.fill(range(1, len(lines) + 1), lines)
    assert len(left) < (0.75 if wild else 0.35) * len(lines)


def test_what_breaks_one_resource_breaks_it_where_others_of_its_content_are_filled_in(tmp_path: Path) -> None:
    good = {"status": "final", "code": concept("1", LOINC), "subject": SUBJECTS[0]}
    numbers = [quantity(float(n), "mg") for n in range(12)]
    odd = [numbers[0] | {"value": None}, numbers[0] | {"value": "7"}]
    made = [good | {"id": f"o{n}", "valueQuantity": number} for n, number in enumerate(numbers + odd)]
    made += [made[0] | {"id": "nul\0"}, made[0] | {"subject": {"reference": "Patient/p", "display": 1}}]
    path = tmp_path / "Observation.ndjson"
    path.write_text("".join(json.dumps(resource("Observation", **one)) + "\n" for one in made))
    facts, away = read(path)
    assert facts["value_number"].to_pylist() == [*map(float, range(12)), None]
    assert {(record, reason) for record, _, reason, _ in away} == {(n, "malformed") for n in (14, 15, 16)}


def test_damaged_lines_between_are_turned_away_by_their_numbers(tmp_path: Path) -> None:
    good = resource("Encounter", status="finished", subject=SUBJECTS[0], period={"start": TIMES[0]})
    broken = cycle([b"{", b"\xff\xff", b'{"resourceType": "Nothing"}', b'{"resourceType": "Goal"}', b"[1]"])
    lines = [
        next(broken) if n % 7 == 0 else json.dumps(good | {"id": f"e{n}"}).encode() for n in range(1, 500)
    ]
    (tmp_path / "Encounter.ndjson").write_bytes(b"\n".join(lines))
    facts, away = read(tmp_path / "Encounter.ndjson")
    assert {record for record, *_ in away} == set(range(7, 500, 7))
    assert {reason for _, _, reason, _ in away} == {"malformed", "unknown-resource", "not-supported"}
    assert facts["key"].to_pylist() == [f"Encounter/e{n}" for n in range(1, 500) if n % 7]


def test_what_a_bundle_on_a_line_says_holds_from_then_on(tmp_path: Path) -> None:
    def seen(n: int) -> dict[str, Any]:
        return resource("Encounter", id=f"e{n}", status="finished", subject={"reference": "urn:uuid:x"})

    patient = resource("Patient", id="P", gender="female")
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": "urn:uuid:x", "resource": patient}]}
    lines = [json.dumps(one) for one in (*map(seen, range(20)), bundle, *map(seen, range(20, 40)))]
    (tmp_path / "Encounter.ndjson").write_text("\n".join(lines))
    patients = read(tmp_path / "Encounter.ndjson")[0]["patient"].to_pylist()
    assert patients == ["x"] * 20 + ["P"] * 21


def test_a_content_that_comes_once_is_kept_for_nothing(tmp_path: Path) -> None:
    stencils = Stencils(References())
    done = {"status": "completed", "subject": SUBJECTS[0]}
    resources = [resource("Procedure", id=f"p{n}", code=concept(str(n)), **done) for n in range(6_000)]
    lines = [json.dumps(one).encode() for one in resources]
    for start in (0, 5_000):
        facts, left = stencils.fill(range(1_000), lines[start : start + 5_000])
        assert facts is None
        assert len(left) == len(lines[start : start + 5_000])
    facts, _ = stencils.fill(range(8), [lines[0]] * 8)  # by then it is not looked for any more
    assert facts is None


def test_times_by_columns_are_those_one_by_one() -> None:
    rng = np.random.default_rng(5)
    texts: list[str | None] = [*TIMES, None]
    for _ in range(4_000):
        year, month, day, hour = (
            int(rng.integers(*ends)) for ends in ((0, 10_000), (0, 14), (0, 33), (0, 26))
        )
        minute, second, zone, rest = (int(number) for number in rng.integers(0, 62, 4))
        offset = "Z" if zone % 3 == 0 else f"{'+-'[zone % 2]}{zone % 16:02d}:{rest:02d}"
        texts.append(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{offset}")
    assert all_said(texts).tolist() == [list(said(text)) for text in texts]
    assert sum(shape == 1 for _, _, shape in map(said, texts)) > 1_000
    assert all_said(["2020-02-03T04:05:06Z"] * 3).tolist() == [list(said("2020-02-03T04:05:06Z"))] * 3

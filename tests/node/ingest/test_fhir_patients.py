"""Ten patients of published FHIR files, from the file to the CDM: what they have there is what the JSON says.

The plain reading shares no code with the reader, the harmonizer or the store. How many records each of the
ten has was also counted by hand, with grep over the files (`COUNTED`).
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.ingest.registry import READERS
from tests.node.ingest.fhir_resources import PATIENT, concept, resource
from tests.node.ingest.test_fhir_samples import code, last, plain
from tests.node.made_facts import Hospital, hospital

NAMESPACE = "fhir"
KINDS = ("condition", "drug", "procedure", "visit", "measurement")
# grep -c '"reference":"Patient/ID"' Condition.000.ndjson ..., by the first eight digits of the id:
# conditions, prescriptions and vaccinations, procedures, visits
COUNTED = {
    "129c6ac7": (49, 457, 587, 90),
    "3af3708d": (6, 14, 36, 20),
    "63ee2253": (3, 19, 8, 15),
    "6a4160eb": (62, 107, 57, 59),
    "79a66c97": (219, 1046, 805, 708),
    "7bc002fa": (23, 18, 32, 30),
    "8e1a0a7c": (47, 15, 69, 33),
    "a4a401d1": (34, 16, 86, 44),
    "a5cb8ce9": (33, 75, 110, 83),
    "bb6a9034": (5, 21, 31, 18),
}


@dataclass
class Person:
    """What the JSON says of a patient: (code, first day, last day) of each kind."""

    sex: int = 0
    born: int = 0
    died: date | None = None
    records: dict[str, Counter[tuple[Any, ...]]] = field(
        default_factory=lambda: {kind: Counter() for kind in KINDS}
    )


def day(text: str | None, days: int) -> date | None:
    """The day that the clock of the source showed, moved."""
    return None if text is None else date.fromisoformat(text[:10]) + timedelta(days=days)


def told(one: dict[str, Any], codes: dict[str, str], days: int) -> tuple[str, tuple[Any, ...]] | None:
    """Return the kind and what a resource says, by its own words and the rules of the CDM."""
    kind, period = one["resourceType"], one.get("performedPeriod", one.get("period", {}))
    if kind == "Condition":
        first, ended = one["onsetDateTime"], one.get("abatementDateTime")
        return "condition", (code(one["code"]), day(first, days), day(ended, days))
    if kind == "MedicationRequest" and one["intent"] == "order":
        if "medicationCodeableConcept" in one:
            drug = code(one["medicationCodeableConcept"])
        else:
            drug = codes[last(one["medicationReference"]) or ""]
        return "drug", (drug, day(one["authoredOn"], days), None)
    if kind == "Immunization" and one["status"] == "completed":
        return "drug", (code(one["vaccineCode"]), day(one["occurrenceDateTime"], days), None)
    if kind == "Procedure" and one["status"] == "completed":
        return "procedure", (code(one["code"]), day(period["start"], days), day(period.get("end"), days))
    if kind == "Encounter":
        return "visit", (one["class"]["code"], day(period["start"], days), day(period.get("end"), days))
    if kind == "Observation" and "valueQuantity" in one:
        value = one["valueQuantity"]
        return "measurement", (code(one["code"]), day(one["effectiveDateTime"], days), value["value"])
    return None


def read(files: list[Path], moved: dict[str, int]) -> dict[str, Person]:
    """Return what files say, by patient."""
    people: dict[str, Person] = {}
    codes: dict[str, str] = {}
    resources = [one for file in files for one in plain(file)]
    for one in resources:
        if one["resourceType"] == "Medication":
            codes[one["id"]] = code(one["code"])
    for one in resources:
        if one["resourceType"] == "Patient":
            person = people.setdefault(one["id"], Person())
            born = day(one["birthDate"], moved[one["id"]])
            assert born is not None
            person.born, person.sex = born.year, {"male": 8507, "female": 8532}[one["gender"]]
            person.died = day(one.get("deceasedDateTime"), moved[one["id"]])
            continue
        patient = last(one.get("subject") or one.get("patient"))
        found = None if patient is None or patient not in moved else told(one, codes, moved[patient])
        if found is not None:
            people.setdefault(str(patient), Person()).records[found[0]][found[1]] += 1
    return people


QUERIES = {
    "condition": "SELECT condition_source_value, condition_start_date, condition_end_date"
    " FROM condition_occurrence",
    "drug": "SELECT drug_source_value, drug_exposure_start_date, NULL FROM drug_exposure",
    "procedure": "SELECT procedure_source_value, procedure_date, procedure_end_date"
    " FROM procedure_occurrence",
    "visit": "SELECT visit_source_value, visit_start_date, visit_end_date FROM visit_occurrence",
    "measurement": "SELECT measurement_source_value, measurement_date, value_as_number FROM measurement",
}


@dataclass
class Loaded:
    site: Hospital
    people: dict[str, Person]
    ids: dict[str, int]

    def stored(self, patient: str, kind: str) -> Counter[tuple[Any, ...]]:
        where = f" WHERE person_id = {self.ids[patient]}"
        # claims say again what encounters, orders and procedures say; here they are by their own type
        if kind in ("drug", "procedure"):
            where += f" AND {kind}_type_concept_id <> 32810"
        return Counter(self.site.rows(QUERIES[kind] + where))


def loaded(files: list[Path], where: Path) -> Loaded:
    site = hospital(where, words=False)
    site.take(*files, readers=READERS)
    names = sorted(one["id"] for file in files for one in plain(file) if one["resourceType"] == "Patient")
    found = site.vault.pseudonyms(names, namespace=NAMESPACE)
    moved = dict(zip(names, found.shift_days.tolist(), strict=True))
    return Loaded(site, read(files, moved), dict(zip(names, found.ids.tolist(), strict=True)))


@pytest.fixture(scope="module")
def bulk(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    files = sorted((shared_data / "fhir_bulk_10").glob("*.ndjson"))
    if not files:
        pytest.skip("needs ../shared/data/fhir_bulk_10")
    made = loaded(files, tmp_path_factory.mktemp("bulk"))
    yield made
    made.site.store.close()
    made.site.vault.close()


@pytest.fixture(scope="module")
def bundles(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    files = sorted((shared_data / "fhir_bundles").glob("*-*-*.json"))[:10]
    if not files:
        pytest.skip("needs ../shared/data/fhir_bundles")
    made = loaded(files, tmp_path_factory.mktemp("bundles"))
    yield made
    made.site.store.close()
    made.site.vault.close()


def compare(made: Loaded, number: int, kinds: tuple[str, ...]) -> None:
    patient = sorted(made.people)[number]
    person = made.people[patient]
    for kind in kinds:
        assert made.stored(patient, kind) == person.records[kind], kind
    assert sum(person.records["visit"].values())
    ((born, sex),) = made.site.rows(
        f"SELECT year_of_birth, gender_concept_id FROM person WHERE person_id = {made.ids[patient]}"
    )
    assert sex == person.sex
    assert born >= person.born  # nobody is older than ninety
    assert born == person.born or born - person.born < 40
    died = made.site.rows(f"SELECT death_date FROM death WHERE person_id = {made.ids[patient]}")
    assert died == ([] if person.died is None else [(person.died,)])


@pytest.mark.parametrize("number", range(10))
def test_ten_patients_of_a_bulk_export(bulk: Loaded, number: int) -> None:
    compare(bulk, number, ("condition", "drug", "procedure", "visit"))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_ten_patients_of_bundles(bundles: Loaded, number: int) -> None:
    compare(bundles, number, KINDS)


@pytest.mark.parametrize("start", sorted(COUNTED))
def test_ten_patients_have_as_many_records_as_were_counted_by_hand(bulk: Loaded, start: str) -> None:
    (patient,) = (name for name in bulk.people if name.startswith(start))
    assert (
        tuple(
            sum(bulk.stored(patient, kind).values()) for kind in ("condition", "drug", "procedure", "visit")
        )
        == COUNTED[start]
    )


def test_a_day_ends_by_the_clock_of_its_end(tmp_path: Path) -> None:
    """A history: an end took the offset of its start, and lost a day at night, and west of Greenwich."""
    rows = [
        {"onsetDateTime": "1988-02-27T23:30:00-05:00", "abatementDateTime": "1988-06-10T23:30:00-04:00"},
        {"onsetDateTime": "2020-01-01T10:00:00-05:00", "abatementDateTime": "2020-01-05"},
        {"onsetDateTime": "2020-01-01T10:00:00+09:00", "abatementDateTime": "2020-01-05T01:00:00+09:00"},
        {"onsetDateTime": "2020-01-01", "abatementDateTime": "2020-01-05T23:00:00-05:00"},
        {"onsetDateTime": "2020-01-01T10:00:00-05:00", "abatementDateTime": "9999-12-31T23:59:59-12:00"},
    ]
    site = hospital(tmp_path, words=False)
    made = [resource("Patient", gender="female", birthDate="1950-02-03") | {"id": "p1"}]
    made += [
        resource("Condition", code=concept(str(n)), subject=PATIENT, **row) | {"id": f"c{n}"}
        for n, row in enumerate(rows)
    ]
    (site.folder / "all.ndjson").write_text("".join(json.dumps(one) + "\n" for one in made))
    site.take(readers=READERS)
    shift = site.vault.pseudonyms(["p1"], namespace=NAMESPACE).shift_days.tolist()[0]
    ends = [
        end and end - timedelta(days=shift)
        for (end,) in site.rows(
            "SELECT condition_end_date FROM condition_occurrence ORDER BY condition_source_value"
        )
    ]
    assert ends == [date(1988, 6, 10), date(2020, 1, 5), date(2020, 1, 5), date(2020, 1, 5), None]
    site.store.close()
    site.vault.close()

"""What a hospital's records say of who a patient is, is found in their notes, however written."""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from deid.spans import Category, Known
from deid.text import Redactor
from deid.vault import MOST_KNOWN
from node.ingest.fact_rules import FactRules, TextPolicy
from node.ingest.pipeline import Pipeline
from node.ingest.readers import identity
from node.ingest.readers.fhir_references import NAMESPACE
from tests.node.made_facts import CLOCK, Hospital, hospital

KEEP_NOTES = FactRules(notes=TextPolicy.REDACTED)
# small letters, no title, a number without a label: nothing here looks like identity
NOTE = "pt slept well. given plorvine tea; would like wimbrel better. qx81rt. bp 120/80, on metformin"
SECRETS = ("plorvine", "wimbrel", "qx81rt")
UNSEEN = ["plorvine"]  # by who does not know the patient


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path)
    yield made
    made.store.close()
    made.vault.close()


def patient(identifier: str = "p1") -> dict[str, object]:
    return {
        "resourceType": "Patient",
        "id": identifier,
        "gender": "female",
        "birthDate": "1961-04-09",
        "name": [{"family": "Plorvine", "given": ["Ilka"]}],
        "address": [{"line": ["Wimbrel"], "city": "Ostrau"}],
        "identifier": [{"system": "urn:ward", "value": "QX-81-RT"}],
    }


def note(text: str = NOTE, subject: str = "p1") -> dict[str, object]:
    return {
        "resourceType": "DocumentReference",
        "id": f"n-{subject}",
        "status": "current",
        "docStatus": "final",
        "type": {"coding": [{"system": "http://loinc.org", "code": "34109-9"}], "text": "Note"},
        "subject": {"reference": f"Patient/{subject}"},
        "date": "2021-05-03T10:00:00Z",
        "content": [{"attachment": {"contentType": "text/plain", "data": b64encode(text.encode()).decode()}}],
    }


def write(folder: Path, name: str, *resources: dict[str, object]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(resource) + "\n" for resource in resources))
    return path


def take(site: Hospital, *paths: Path, rules: FactRules = KEEP_NOTES) -> None:
    Pipeline(site.store, site.vault, CLOCK, rules=rules).ingest(list(paths))


def notes(site: Hospital) -> list[str]:
    return [str(row[0]) for row in site.rows("SELECT note_text FROM note")]


def test_a_result_in_words_loses_what_the_records_say_of_its_patient(site: Hospital, tmp_path: Path) -> None:
    said = {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8302-2"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2021-05-03T10:00:00Z",
        "valueString": "plorvine tea: 3 cups, qx81rt",
    }
    other = {**said, "id": "o2", "subject": {"reference": "Patient/p2"}}
    stranger = {**patient("p2"), "name": [], "address": [], "identifier": []}
    rules = FactRules(values=TextPolicy.REDACTED)
    take(site, write(tmp_path, "Patient.ndjson", patient(), stranger), rules=rules)
    take(site, write(tmp_path, "Observation.ndjson", said, other), rules=rules)
    texts = [str(row[0]) for row in site.rows("SELECT value_as_string FROM observation")]
    known, unknown = sorted(texts, key=lambda text: "plorvine" in text)
    assert "3 cups" in known
    assert not any(secret in known for secret in SECRETS)
    assert "plorvine" in unknown


def test_the_note_alone_does_not_show_who_it_is_about() -> None:
    left = Redactor().redact_note(NOTE)
    assert [word for word in UNSEEN if word in left] == UNSEEN


def test_what_the_patient_resource_says_is_found_in_notes_of_another_file(
    site: Hospital, tmp_path: Path
) -> None:
    first = write(tmp_path, "DocumentReference.ndjson", note())
    take(site, write(tmp_path, "Patient.ndjson", patient()), first)
    [kept] = notes(site)
    assert not [secret for secret in SECRETS if secret in kept]
    assert "metformin" in kept
    assert "120/80" in kept


def test_it_is_remembered_for_notes_that_come_later(site: Hospital, tmp_path: Path) -> None:
    take(site, write(tmp_path, "Patient.ndjson", patient()))
    take(site, write(tmp_path, "DocumentReference.ndjson", note()))
    assert not [secret for secret in SECRETS if secret in notes(site)[0]]


def test_another_patients_note_keeps_the_same_words(site: Hospital, tmp_path: Path) -> None:
    other = {**patient("p2"), "name": [], "address": [], "identifier": []}
    take(
        site,
        write(tmp_path, "Patient.ndjson", patient(), other),
        write(tmp_path, "DocumentReference.ndjson", note(subject="p2")),
    )
    assert [word for word in UNSEEN if word in notes(site)[0]] == UNSEEN


def test_the_header_of_an_hl7_message_says_who_its_document_is_about(site: Hospital, tmp_path: Path) -> None:
    message = "\r".join(
        (
            "MSH|^~\\&|A|B|C|D|20210503100000||MDM^T02|1|P|2.5",
            "EVN|T02|20210503100000",
            "PID|1||QX81RT^^^H^MR||Plorvine^Ilka||19610409|F|||Wimbrel^^Ostrau",
            "PV1|1|I|W^1^1||||||||||||||||V1",
            "TXA|1|PN|TX|20210503100000||||||||D1||||||AU",
            f"OBX|1|TX|34109-9^Note^LN||{NOTE}||||||F",
            "",
        )
    )
    path = tmp_path / "notes.hl7"
    path.write_text(message)
    take(site, path)
    [kept] = notes(site)
    assert not [secret for secret in SECRETS if secret in kept]


def test_nothing_is_remembered_where_no_notes_are_kept(site: Hospital, tmp_path: Path) -> None:
    take(site, write(tmp_path, "Patient.ndjson", patient()), rules=FactRules())
    assert site.vault.known_of(["p1"], namespace=NAMESPACE) == [()]


CONSENT = {
    "resourceType": "Consent",
    "id": "c1",
    "status": "inactive",
    "scope": {"coding": [{"code": "research"}]},
    "patient": {"reference": "Patient/p1"},
    "dateTime": "2021-06-01",
}


def test_a_patient_who_withdraws_is_forgotten(site: Hospital, tmp_path: Path) -> None:
    take(site, write(tmp_path, "Patient.ndjson", patient()))
    assert site.vault.known_of(["p1"], namespace=NAMESPACE) != [()]
    take(site, write(tmp_path, "Consent.ndjson", CONSENT))
    assert site.vault.known_of(["p1"], namespace=NAMESPACE) == [()]


@pytest.mark.parametrize("batch_records", [1, 10])
@pytest.mark.parametrize("consent_first", [True, False])
def test_a_patient_who_withdraws_in_the_same_file_is_not_remembered(
    site: Hospital, tmp_path: Path, consent_first: bool, batch_records: int
) -> None:
    told = [CONSENT, patient()] if consent_first else [patient(), CONSENT]
    path = write(tmp_path, "everything.ndjson", *told)
    Pipeline(site.store, site.vault, CLOCK, rules=KEEP_NOTES, batch_records=batch_records).ingest([path])
    assert site.vault.known_of(["p1"], namespace=NAMESPACE) == [()]


def test_the_vault_keeps_identity_sealed_bounded_and_for_one_patient_each(
    site: Hospital, tmp_path: Path
) -> None:
    known = (Known(Category.NAME, "Ilka Plorvine"), Known(Category.PHONE, "0664 123"))
    site.vault.remember({"p1": known}, namespace="fhir")
    site.vault.remember({"p1": known[:1], "p2": ()}, namespace="fhir")
    assert site.vault.known_of(["p1", "p2", "p3"], namespace="fhir") == [known, (), ()]
    assert site.vault.known_of(["p1"], namespace="mrn") == [()]
    site.vault.remember({"p1": [Known(Category.ID, f"number-{n}") for n in range(100)]}, namespace="fhir")
    [kept] = site.vault.known_of(["p1"], namespace="fhir")
    assert len(kept) == MOST_KNOWN
    assert kept[-1].value == "number-99"
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "vault" in path.name]
    assert files
    assert not any(b"Plorvine" in content or b"number-" in content for content in files)


@pytest.mark.parametrize("damaged", [None, "x", 7, [7, None, "x"], [{"given": 3, "line": {}, "value": []}]])
def test_damaged_names_and_addresses_are_left_out(damaged: object) -> None:
    assert list(identity.of_names(damaged)) == []
    assert list(identity.of_contacts(damaged)) == []
    assert list(identity.of_addresses(damaged)) == []


def test_what_stands_everywhere_is_not_looked_for() -> None:
    assert list(identity.known(Category.NAME, "Li")) == []
    assert list(identity.known(Category.ADDRESS, "x" * 500)) == []
    assert [item.value for item in identity.of_names([{"text": "Dr. Ilka Plorvine"}])] == [
        "Dr. Ilka Plorvine"
    ]

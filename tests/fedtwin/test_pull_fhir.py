"""`fedtwin node pull-fhir` against a server on loopback: fetched, loaded, dropped; next time only news."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from tests.node.ingest.fhir_resources import observation, resource
from tests.node.ingest.fhir_server import BulkServer, serving

PATIENT = json.dumps(resource("Patient", id="p1", gender="female", birthDate="1950-01-01")).encode()
RESULT = json.dumps(observation(id="o1")).encode()
DOCTOR = json.dumps(resource("Practitioner", id="d1")).encode()


@pytest.fixture
def server() -> Iterator[BulkServer]:
    files = {"Patient-1": PATIENT, "Observation-1": RESULT, "Practitioner-1": DOCTOR}
    with serving(BulkServer(files=files, polls=0)) as running:
        yield running


def test_an_export_is_loaded_and_its_files_are_dropped(
    server: BulkServer, hospital: Path, fedtwin: Callable[..., object]
) -> None:
    said = fedtwin("node", "pull-fhir", server.base, "--home", hospital, "--json")
    told = json.loads(said.out)
    assert said.code == 0
    assert (told["files"], told["records_in"]) == (3, 3)
    assert (told["stored"], told["quarantined"]) == (2, 1)
    assert [s["reasons"] for s in told["sources"] if s["reasons"]] == [{"not-clinical": 1}]
    assert list(hospital.glob("inbox/fhir/*/data/*")) == []

    server.polls, server.files = 0, {"Observation-1": json.dumps(observation(id="o2")).encode()}
    server.transaction_time = "2026-02-02T00:00:00Z"
    again = json.loads(fedtwin("node", "pull-fhir", server.base, "--home", hospital, "--json").out)
    assert (again["since"], again["stored"]) == (told["true_at"], 1)
    assert "_since=2026-01-02" in [path for _, path, _ in server.log if "$export" in path][-1]
    deleted = {"request": {"method": "DELETE", "url": "Observation/o1"}}
    gone = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [deleted]}).encode()
    server.polls, server.files, server.transaction_time = 0, {"deleted-1": gone}, "2026-03-03T00:00:00Z"
    fedtwin("node", "pull-fhir", server.base, "--home", hospital)
    with duckdb.connect(str(hospital / "store" / "omop.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM main.measurement").fetchone() == (1,)  # o2 of o1 and o2

    server.files = {}
    full = json.loads(fedtwin("node", "pull-fhir", server.base, "--full", "--home", hospital, "--json").out)
    assert full["since"] is None


def test_a_refusal_and_wrong_options_have_their_exit_codes(
    server: BulkServer, hospital: Path, fedtwin: Callable[..., object], tmp_path: Path
) -> None:
    server.status = {"/Patient/$export": 403}
    said = fedtwin("node", "pull-fhir", server.base, "--home", hospital)
    assert (said.code, "403" in said.err, "Jane" in said.err) == (3, True, False)
    assert fedtwin("node", "pull-fhir", "http://fhir.example.org", "--home", hospital).code == 2
    assert fedtwin("node", "pull-fhir", server.base, "--client-id", "x", "--home", hospital).code == 2
    assert fedtwin("node", "pull-fhir", server.base, "--since", "now", "--home", hospital).code == 2
    assert fedtwin("node", "pull-fhir", server.base, "--home", tmp_path / "nowhere").code == 2


def test_an_outage_is_a_fault_and_the_next_call_goes_on(
    server: BulkServer, hospital: Path, fedtwin: Callable[..., object]
) -> None:
    server.counts = {"Observation-1": 7}
    said = fedtwin("node", "pull-fhir", server.base, "--home", hospital)
    assert (said.code, "go on" in said.err) == (1, True)
    kept = list(hospital.glob("inbox/fhir/*/data/Patient*"))
    assert len(kept) == 1
    assert kept[0].parent.stat().st_mode & 0o077 == 0

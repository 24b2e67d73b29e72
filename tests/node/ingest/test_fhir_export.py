"""Pulling an export: from the question to files on the disk, through every fault that a server may have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from node.ingest.fhir_export import Pulled, Wanted, pull
from node.ingest.fhir_export_errors import BadKey, ExportFailed, ExportRefused, UnsafeAddress
from node.ingest.fhir_export_http import BackendClient, Requests, checked, client, retry_after
from node.ingest.fhir_export_state import Folder
from node.ingest.readers.fhir import FhirReader
from privacy.private_files import OpenToOthers
from protocols.clock import FixedClock
from tests.node.ingest.fhir_resources import observation, resource
from tests.node.ingest.fhir_server import BulkServer, digest_of, serving

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENTS = b"".join(json.dumps(resource("Patient", id=f"p{i}")).encode() + b"\n" for i in range(50))
RESULTS = b"\n".join(json.dumps(observation(id=f"o{i}")).encode() for i in range(400))
DELETED = json.dumps(
    {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Observation/o7"}}]}
).encode()


class Puller:
    """A node's side of a pull, with a clock that sleeping moves."""

    def __init__(self, server: BulkServer, folder: Path, who: BackendClient | None = None) -> None:
        self.clock = FixedClock(NOW)
        self.slept: list[float] = []
        self.folder = Folder(folder)
        self.server = server
        self.http = client()
        numbers = count()
        self.requests = Requests(
            server.base, self.http, who, clock=self.clock, sleep=self.sleep, nonce=lambda: f"n{next(numbers)}"
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))

    def pull(self, wanted: Wanted | None = None) -> Pulled:
        return pull(wanted or Wanted(), self.requests, self.folder, clock=self.clock)


@pytest.fixture
def server() -> Iterator[BulkServer]:
    files = {"Patient-1": PATIENTS, "Observation-1": RESULTS, "Observation-2": RESULTS, "deleted-1": DELETED}
    with serving(BulkServer(files=files)) as running:
        yield running


@pytest.fixture
def puller(server: BulkServer, tmp_path: Path) -> Iterator[Puller]:
    made = Puller(server, tmp_path / "pull")
    yield made
    made.http.close()


def test_an_export_is_asked_for_awaited_and_fetched(server: BulkServer, puller: Puller) -> None:
    server.files["error-1"] = b'{"resourceType":"OperationOutcome"}'
    pulled = puller.pull(Wanted(types=("Patient", "Observation"), since="2025-01-01T00:00:00Z"))
    assert [path.name for path in pulled.files] == [
        "Patient.20260102030405678.000.ndjson",
        "Observation.20260102030405678.000.ndjson",
        "Observation.20260102030405678.001.ndjson",
        "deleted.20260102030405678.000.ndjson",
    ]
    assert pulled.files[0].read_bytes() == PATIENTS
    assert pulled.bytes == len(PATIENTS) + 2 * len(RESULTS) + len(DELETED)
    assert pulled.export.errors == 1
    assert {oct(path.stat().st_mode)[-3:] for path in pulled.files} == {"600"}
    assert puller.slept == [3, 3]  # as long as the server said
    method, question, headers = server.log[0]
    assert (method, headers["Prefer"]) == ("GET", "respond-async")
    assert "/Patient/$export" in question
    assert "_type=Patient%2CObservation" in question
    assert "_since=2025-01-01T00%3A00%3A00Z" in question
    assert server.log[-1][:2] == ("DELETE", "/fhir/status/1")
    (retracted,) = [b.facts for b in FhirReader().read(pulled.files[3], batch_records=9)]
    assert retracted["action"].to_pylist() == ["retract"]


@pytest.mark.parametrize("key", ["rsa", "ec"])
def test_a_token_is_asked_for_with_a_signed_assertion(server: BulkServer, tmp_path: Path, key: str) -> None:
    made = rsa.generate_private_key(65537, 2048) if key == "rsa" else ec.generate_private_key(ec.SECP384R1())
    server.public_key = made.public_key()
    puller = Puller(server, tmp_path / "pull", BackendClient("node", key_file(tmp_path, made), key_id="k1"))
    assert len(puller.pull().files) == 4
    assert {headers.get("Authorization") for headers in server.asked("/files/")} == {"Bearer token-0"}
    claims = server.assertions[0]
    assert claims["exp"] - claims["iat"] <= 300
    puller.http.close()


def test_a_token_that_ran_out_is_renewed_with_another_assertion(server: BulkServer, tmp_path: Path) -> None:
    made = ec.generate_private_key(ec.SECP384R1())
    server.public_key, server.polls, server.token_life_s = made.public_key(), 40, 61
    puller = Puller(server, tmp_path / "pull", BackendClient("node", key_file(tmp_path, made)))
    puller.pull()
    assert len(server.tokens) > 5
    assert len({claims["jti"] for claims in server.assertions}) == len(server.tokens)
    server.polls, server.tokens = 0, [*server.tokens, "server-forgot"]
    puller.folder.forget()
    assert len(puller.pull().files) == 4  # after one 401
    puller.http.close()


def key_file(folder: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path = folder / "client.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return path


def test_keys_that_are_weak_open_or_broken_sign_nothing(tmp_path: Path) -> None:
    weak = BackendClient("node", key_file(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(BadKey):
        weak.assertion("https://x/token", now=NOW, nonce="n")
    weak.key_file.write_text("-----BEGIN nothing")
    with pytest.raises(BadKey):
        weak.assertion("https://x/token", now=NOW, nonce="n")
    weak.key_file.chmod(0o644)
    with pytest.raises(OpenToOthers):
        weak.assertion("https://x/token", now=NOW, nonce="n")


def test_a_busy_server_is_asked_again_when_it_says(server: BulkServer, puller: Puller) -> None:
    server.busy = {"/Patient/$export": 2, "/status/1": 1, "/files/Patient-1": 1}
    assert len(puller.pull().files) == 4
    assert puller.slept.count(7) == 3


def test_a_connection_that_is_cut_goes_on_where_it_was_cut(server: BulkServer, puller: Puller) -> None:
    server.cut_after = {"Observation-1": 1000}
    pulled = puller.pull()
    assert pulled.files[1].read_bytes() == RESULTS
    assert [headers.get("Range") for headers in server.asked("Observation-1")] == [None, "bytes=1000-"]


def test_without_ranges_a_cut_file_is_fetched_again(server: BulkServer, puller: Puller) -> None:
    server.cut_after, server.ranges = {"Observation-1": 1000}, False
    assert puller.pull().files[1].read_bytes() == RESULTS


def test_a_pull_that_failed_goes_on_and_fetches_only_what_is_missing(
    server: BulkServer, puller: Puller, tmp_path: Path
) -> None:
    server.status = {"/files/Observation-2": 503}
    with pytest.raises(ExportFailed):
        puller.pull()
    server.status = {}
    again = Puller(server, tmp_path / "pull")
    pulled = again.pull()
    assert pulled.resumed
    assert len(pulled.files) == 4
    assert len(server.asked("$export")) == 1
    assert len(server.asked("Patient-1")) == 1
    again.http.close()


def test_another_question_begins_anew(server: BulkServer, puller: Puller) -> None:
    server.status = {"/files/Observation-2": 503}
    with pytest.raises(ExportFailed):
        puller.pull()
    server.status = {}
    assert not puller.pull(Wanted(level="system")).resumed


@pytest.mark.parametrize(
    ("path", "status"), [("/Patient/$export", 403), ("/status/1", 404), ("/files/Patient-1", 410)]
)
def test_a_refusal_ends_the_pull_and_says_nothing_of_the_server(
    server: BulkServer, puller: Puller, path: str, status: int
) -> None:
    server.status = {path: status}
    with pytest.raises(ExportRefused) as caught:
        puller.pull()
    assert caught.value.status == status
    assert "Jane" not in str(caught.value)
    assert list(puller.folder.data.iterdir()) == []
    assert puller.folder.load() is None


def test_a_file_with_another_number_of_records_is_dropped(server: BulkServer, puller: Puller) -> None:
    server.counts = {"Observation-1": 399}
    with pytest.raises(ExportFailed, match="number of records"):
        puller.pull()
    assert [path.name.partition(".")[0] for path in puller.folder.data.iterdir()] == ["Patient"]


def test_a_file_whose_digest_is_wrong_is_not_taken(server: BulkServer, puller: Puller) -> None:
    server.files = {"Patient-1": PATIENTS}
    server.headers = {"Repr_Digest": digest_of(PATIENTS)}
    assert len(puller.pull().files) == 1
    puller.folder.forget()
    server.polls, server.headers = 0, {"Repr_Digest": digest_of(RESULTS)}
    with pytest.raises(ExportFailed):
        puller.pull()
    assert list(puller.folder.data.iterdir()) == []


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b'{"transactionTime": "2026-01-02T03:04:05Z", "output": [{"type": "../../etc", "url": "http://127.0.0.1/x"}]}',
        b'{"transactionTime": "yesterday"}',
        b'{"transactionTime": "2026-01-02T03:04:05Z", "output": [{"type": "Patient", "url": "http://evil.org/x"}]}',
        b'{"transactionTime": "2026-01-02T03:04:05Z", "output": [{"type": "Patient", "url": "file:///etc/passwd"}]}',
        b'{"transactionTime": "2026-01-02T03:04:05Z", "requiresAccessToken": true,'
        b' "output": [{"type": "Patient", "url": "https://evil.org/x"}]}',
        b"[" * 200_000,
    ],
)  # fmt: skip
def test_a_list_of_files_that_is_wrong_or_points_elsewhere_is_refused(
    server: BulkServer, puller: Puller, manifest: bytes
) -> None:
    server.raw_manifest = manifest
    with pytest.raises((ExportFailed, UnsafeAddress)) as caught:
        puller.pull()
    assert "evil" not in str(caught.value)


def test_the_token_never_leaves_the_servers_origin(server: BulkServer, tmp_path: Path) -> None:
    made = ec.generate_private_key(ec.SECP384R1())
    with serving(BulkServer(files=dict(server.files))) as store:
        server.public_key, server.file_base = made.public_key(), store.base
        plain = json.loads(server.manifest()) | {"requiresAccessToken": False}
        server.raw_manifest = json.dumps(plain).encode()
        puller = Puller(server, tmp_path / "pull", BackendClient("node", key_file(tmp_path, made)))
        assert len(puller.pull().files) == 4
        assert all("Authorization" not in headers for headers in store.asked("/files/"))
        puller.http.close()


def test_a_redirect_is_not_followed(server: BulkServer, puller: Puller) -> None:
    server.status = {"/files/Patient-1": 302}
    with pytest.raises(ExportRefused):
        puller.pull()


@pytest.mark.parametrize(
    "address",
    [
        "http://fhir.hospital.org/fhir",
        "http://127.0.0.1.evil.org/",
        "ftp://127.0.0.1/",
        "https://user:secret@hospital.org/",
        "https:///x",
        "https://host/a b",
        "https://host:99999/",
        "fhir",
    ],
)
def test_only_https_or_this_machine(address: str) -> None:
    with pytest.raises(UnsafeAddress) as caught:
        checked(address, step="address")
    assert "secret" not in str(caught.value)
    assert checked("https://hospital.org/fhir", step="address")
    assert checked("http://[::1]:80/fhir", step="address")


def test_the_state_remembers_when_the_last_whole_export_was_true(server: BulkServer, puller: Puller) -> None:
    pulled = puller.pull()
    question = Wanted(since="2025-01-01T00:00:00Z").question(server.base)
    assert question == Wanted().question(server.base)
    assert puller.folder.last(question) is None
    puller.folder.taken_in(question, pulled.export, keep=False)
    assert puller.folder.last(question) == server.transaction_time
    assert puller.folder.last(Wanted(level="system").question(server.base)) is None
    assert list(puller.folder.data.iterdir()) == []


def test_a_server_that_is_away_is_a_failure_after_some_tries(puller: Puller) -> None:
    puller.requests.base = "http://127.0.0.1:9"
    with pytest.raises(ExportFailed):
        puller.pull()
    assert len(puller.slept) == 5


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("120", 120),
        ("0", 0.05),
        ("99999", 300),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("soon", None),
        ("", None),
    ],
)
def test_how_long_a_server_asks_to_wait(said: str, wait: float | None) -> None:
    assert retry_after(httpx.Response(503, headers={"Retry-After": said}), now=NOW) == wait


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": "group"},
        {"level": "all"},
        {"group": "g"},
        {"level": "group", "group": "../x"},
        {"types": ("patient",)},
        {"since": "2026-01-01"},
    ],
)
def test_a_question_that_makes_no_sense_cannot_be_built(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"level|group|types|since"):
        Wanted(**wrong)

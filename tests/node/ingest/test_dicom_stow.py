"""STOW-RS: what is confirmed is on the disk; who shows no token, or sends what is no image, is told so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("starlette")

import io

import httpx
import pydicom

from node.ingest.dicom_inbox import DicomInbox
from node.ingest.dicom_stow import Counts, stow_app
from node.ingest.inbox import InboxBusy
from node.ingest.multipart import MalformedParts, boundary_of, parts
from tests.node.ingest.test_dicom import STUDY, image

TOKEN = "t" * 40
KIND = 'multipart/related; type="application/dicom"; boundary=XX'


def encoded(**changes: Any) -> bytes:
    file = io.BytesIO()
    image(**changes).save_as(file, enforce_file_format=True)
    return file.getvalue()


def body(*objects: bytes, boundary: bytes = b"XX") -> bytes:
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(b"--" + boundary + head + one + b"\r\n" for one in objects) + b"--" + boundary + b"--\r\n"


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[DicomInbox]:
    made = DicomInbox.open(tmp_path / "inbox", reserved=0)
    yield made
    made.close()


def post(
    inbox: DicomInbox,
    content: bytes,
    *,
    path: str = "/studies",
    kind: str = KIND,
    token: str = TOKEN,
    **how: int,
) -> httpx.Response:
    import asyncio

    async def sent() -> httpx.Response:
        app = stow_app(inbox, token=TOKEN, counts=how.pop("counts", Counts()), **how)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
            headers = {"content-type": kind, "authorization": f"Bearer {token}"}
            return await client.post(path, content=content, headers=headers)

    return asyncio.run(sent())


def test_objects_are_on_the_disk_when_they_are_confirmed(inbox: DicomInbox) -> None:
    sent = [encoded(), encoded()]
    answer = post(inbox, body(*sent))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert sorted(path.read_bytes() for path in inbox.ready()) == sorted(sent)
    told = {item["00081155"]["Value"][0] for item in answer.json()["00081199"]["Value"]}
    assert told == {str(pydicom.dcmread(io.BytesIO(one)).SOPInstanceUID) for one in sent}
    assert {path.stat().st_mode & 0o777 for path in inbox.ready()} == {0o600}
    assert all(STUDY not in path.name for path in inbox.ready())


def test_what_is_not_taken_is_told_by_object(inbox: DicomInbox) -> None:
    screen = encoded(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    letter = encoded(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    answer = post(inbox, body(encoded(), screen, letter, b"no DICOM at all"), ocr=False)
    assert answer.status_code == 202
    failed = [item["00081197"]["Value"][0] for item in answer.json()["00081198"]["Value"]]
    assert failed == [0x0122, 0x0122, 0xC000]
    assert len(inbox.ready()) == 1
    assert post(inbox, body(screen), ocr=False).status_code == 409
    assert len(inbox.ready()) == 1
    assert post(inbox, body(screen), ocr=True).status_code == 200
    assert len(inbox.ready()) == 2


def test_only_objects_of_the_study_that_the_path_names(inbox: DicomInbox) -> None:
    assert post(inbox, body(encoded()), path=f"/studies/{STUDY}").status_code == 200
    answer = post(inbox, body(encoded()), path="/studies/1.2.3")
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]


@pytest.mark.parametrize("token", ["", "t" * 39, "T" * 40, "é" * 40])
def test_without_the_token_nothing_is_read(inbox: DicomInbox, token: str) -> None:
    import asyncio

    async def sent() -> int:
        app = stow_app(inbox, token=TOKEN, counts=Counts())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
            headers = [(b"content-type", KIND.encode()), (b"authorization", f"Bearer {token}".encode())]
            return (await client.post("/studies", content=body(encoded()), headers=headers)).status_code

    assert asyncio.run(sent()) == 401
    assert inbox.ready() == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", KIND, 400),
        (b"--XX\r\n", KIND, 400),
        (body(b"abc")[:-8], KIND, 400),
        (b"--XX--", "application/dicom", 415),
        (b"--XX--", 'multipart/related; type="application/dicom"', 415),
        (b"--XX--", 'multipart/related; type="application/dicom+json"; boundary=XX', 415),
    ],
)
def test_bodies_that_are_not_what_they_say(inbox: DicomInbox, content: bytes, kind: str, status: int) -> None:
    assert post(inbox, content, kind=kind).status_code == status
    assert inbox.ready() == []


def test_a_body_beyond_the_limit_and_a_full_disk_are_answered(inbox: DicomInbox, tmp_path: Path) -> None:
    assert post(inbox, body(encoded()), max_body=100).status_code == 413
    assert post(inbox, body(encoded()), max_object=100).status_code == 409
    inbox.close()
    full = DicomInbox.open(tmp_path / "inbox", reserved=1 << 62)
    assert post(full, body(encoded())).status_code == 503
    assert list((tmp_path / "inbox").iterdir()) == [tmp_path / "inbox" / ".lock"]
    full.close()


def test_one_listener_an_inbox_and_a_crash_leaves_whole_files(tmp_path: Path) -> None:
    first = DicomInbox.open(tmp_path / "inbox", reserved=0)
    with pytest.raises(InboxBusy):
        DicomInbox.open(tmp_path / "inbox")
    first.put(b"whole")
    first.spool().write_bytes(b"half")
    first.close()
    again = DicomInbox.open(tmp_path / "inbox", reserved=0)
    assert [path.read_bytes() for path in again.ready()] == [b"whole"]
    assert len(list((tmp_path / "inbox").iterdir())) == 2
    again.done(again.ready()[0])
    assert again.ready() == []
    again.close()


def test_a_boundary_inside_an_object_is_no_boundary() -> None:
    content = b"--XX\r\n\r\na--XXb\r\n--X\r\n--XX--"
    (only,) = parts(content, b"XX")
    assert content[only.start : only.end] == b"a--XXb\r\n--X"
    with pytest.raises(MalformedParts):
        boundary_of("multipart/related; boundary=" + "x" * 71)


def test_a_token_that_could_be_guessed_is_refused(inbox: DicomInbox) -> None:
    with pytest.raises(ValueError, match="32"):
        stow_app(inbox, token="short", counts=Counts())

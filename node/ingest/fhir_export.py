"""Pulls a Bulk Data export from a FHIR server: asks, waits, fetches each file, and goes on after a crash.

Guarantee: a file stands under its own name in the data folder only when all of it has come (its length, the
server's digest and its number of records, where the server says them, are right), and only its owner may read
it. The server's words, names and addresses stand in no file name and no error. Secrets go to the server's own
origin and to its token server, by https only.

Source: HL7 FHIR Bulk Data Access 2.0, system, patient and group level export.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx
import msgspec

from node.ingest.fhir_export_errors import ExportFailed, ExportRefused, UnsafeAddress
from node.ingest.fhir_export_http import Requests, checked, origin
from node.ingest.fhir_export_state import INSTANT, TYPE, Export, File, Folder, Manifest
from privacy import private_files
from protocols.clock import Clock

NDJSON = "application/fhir+ndjson"
JSON = "application/fhir+json"
ASYNC = {"Accept": JSON, "Prefer": "respond-async"}
MAX_POLLING = timedelta(hours=24)  # a large hospital's export takes hours
FILE_TRIES = 5  # of a file whose connection is cut
RESERVE = 1 << 30  # bytes of disk that a pull leaves free
PIECE = 1 << 20
ROOM = 64 << 20  # bytes after which the disk is looked at again
GROUP = re.compile(r"[A-Za-z0-9.-]{1,64}")
DIGEST = re.compile(r"sha-256=:?([A-Za-z0-9+/]{43}=):?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for. level: "system", "patient", or "group" with its id. since: an instant."""

    level: str = "patient"
    group: str | None = None
    types: tuple[str, ...] = ()
    since: str | None = None

    def __post_init__(self) -> None:
        if self.level not in ("system", "patient", "group") or (self.group is None) is (
            self.level == "group"
        ):
            raise ValueError("level is system, patient, or group with a group's id")
        if self.group is not None and not GROUP.fullmatch(self.group):
            raise ValueError("a group's id is 1 to 64 of A-Z, a-z, 0-9, '-' and '.'")
        if not all(TYPE.fullmatch(kind) for kind in self.types):
            raise ValueError("types are names of resources, as Patient")
        if self.since is not None and not INSTANT.fullmatch(self.since):
            raise ValueError("since is an instant with its zone, as 2026-01-02T03:04:05Z")

    def question(self, base: str) -> str:
        """Return what is asked, whatever is known already."""
        return replace(self, since=None).address(base)

    def address(self, base: str) -> str:
        """Return the question."""
        path = {"system": "", "patient": "/Patient", "group": f"/Group/{self.group}"}[self.level]
        query = {"_outputFormat": NDJSON}
        if self.types:
            query["_type"] = ",".join(self.types)
        if self.since is not None:
            query["_since"] = self.since
        return f"{base}{path}/$export?{urlencode(query)}"


@dataclass(frozen=True, slots=True)
class Pulled:
    """An export that has come as a whole."""

    export: Export
    files: tuple[Path, ...]
    bytes: int
    resumed: bool


def pull(
    wanted: Wanted,
    requests: Requests,
    folder: Folder,
    *,
    clock: Clock,
    watch: Callable[[str, int], None] = lambda name, done: None,
) -> Pulled:
    """Fetch an export into the folder; go on with one that was begun there and asked the same.

    Raises: ExportRefused if the server says no, ExportFailed if it did not work this time (call again to go
    on), UnsafeAddress if the server points to a place that is not encrypted.
    """
    address = wanted.address(requests.base)
    export = folder.load()
    resumed = export is not None and export.address == address and export.status_url is not None
    if export is None or not resumed:
        folder.forget()
        export = Export(address, status_url=_ask(address, requests))
        folder.save(export)
    if export.files is None:
        try:
            _await(export, requests, clock=clock)
        except ExportRefused:
            folder.forget()  # gone or impossible: the next pull asks anew
            raise
        folder.save(export)
    for file in export.files or []:
        if file.sha256 is None or not (folder.data / file.name).is_file():
            try:
                _fetch(file, export, requests, folder.data, watch)
            except ExportRefused:
                folder.forget()
                raise
            folder.save(export)
    if export.status_url is not None:
        _drop(export.status_url, requests)
    paths = tuple(folder.data / file.name for file in export.files or [])
    return Pulled(export, paths, sum(file.size or 0 for file in export.files or []), resumed)


def _ask(address: str, requests: Requests) -> str:
    """Ask for an export; return where its state is told."""
    step = "kick-off"
    answer = requests.get(address, step, headers=ASYNC)
    if answer.status_code != 202:
        raise ExportRefused(step, answer.status_code)
    place = answer.headers.get("Content-Location", "")
    place = str(answer.url.join(place)) if place else ""
    if not place:
        raise ExportFailed(step, "the server does not say where the export's state is")
    return checked(place, step=step)


def _await(export: Export, requests: Requests, *, clock: Clock) -> None:
    """Ask until the export is ready, as often as the server wants to be asked."""
    step, ends, attempt = "waiting", clock.now() + MAX_POLLING, 0
    while True:
        answer = requests.get(export.status_url or "", step, headers={"Accept": JSON})
        if answer.status_code == 200:
            break
        if answer.status_code != 202:
            raise ExportRefused(step, answer.status_code)
        if clock.now() >= ends:
            raise ExportFailed(step, "the export is not ready after a day")
        requests.wait(attempt, answer)
        attempt += 1
    try:
        manifest = msgspec.json.decode(answer.content, type=Manifest)
        files = manifest.files()
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise ExportFailed(step, "the server's list of files is not one") from None
    for file in files:
        checked(file.url, step="file")
        if manifest.requiresAccessToken and origin(file.url) != origin(requests.base):
            raise UnsafeAddress("file", "the server wants the token to be sent to another host")
    export.files, export.transaction_time = files, manifest.transactionTime
    export.requires_token, export.errors = manifest.requiresAccessToken, len(manifest.error)


def _fetch(
    file: File, export: Export, requests: Requests, data: Path, watch: Callable[[str, int], None]
) -> None:
    """Fetch one file, going on where the connection was cut."""
    part = data / f"{file.name}.part"
    for attempt in range(FILE_TRIES):
        try:
            if _receive(file, export, requests, part, watch):
                break
        except (httpx.TransportError, httpx.DecodingError):
            if attempt == FILE_TRIES - 1:
                raise ExportFailed("file", "the connection was cut again and again") from None
        requests.wait(attempt, None)
    else:
        raise ExportFailed("file", "the server did not give it")
    _check(file, part)
    part.replace(data / file.name)
    private_files.sync_folder(data)


def _receive(
    file: File, export: Export, requests: Requests, part: Path, watch: Callable[[str, int], None]
) -> bool:
    """Add to the part what is missing; return whether it has all come, False if it should be tried again."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept": NDJSON, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.stream(file.url, "file", headers=headers, with_token=export.requires_token) as answer:
        if answer.status_code == 416:  # there is nothing after what we have, or it has changed
            part.unlink(missing_ok=True)
            return False
        if answer.status_code == 401:
            requests.forget_token()
            return False
        if answer.status_code in (429, 500, 502, 503, 504):
            return False
        if answer.status_code not in (200, 206):
            raise ExportRefused("file", answer.status_code)
        goes_on = answer.status_code == 206
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            return False
        return _write(file, answer, part, have if goes_on else 0, watch)


def _write(
    file: File, answer: httpx.Response, part: Path, have: int, watch: Callable[[str, int], None]
) -> bool:
    """Write an answer's bytes; return whether as many came as were announced."""
    coded = answer.headers.get("Content-Encoding", "identity") != "identity"  # though we asked for none
    announced = "" if coded else answer.headers.get("Content-Length", "")
    if coded and have:
        part.unlink()
        return False
    digest = DIGEST.search(
        ",".join(answer.headers.get(n, "") for n in ("Repr-Digest", "Content-Digest", "Digest"))
    )
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if have else os.O_TRUNC)
    came, room = 0, 0
    with os.fdopen(os.open(part, flags, private_files.FILE_MODE), "ab" if have else "wb") as stream:
        for piece in answer.iter_bytes():  # as it comes: what is held back is lost when the connection is cut
            if came >= room:
                room += ROOM
                if shutil.disk_usage(part.parent).free < RESERVE + ROOM:
                    raise ExportFailed("file", "less than 1 GiB of disk would be left")
            stream.write(piece)
            came += len(piece)
            watch(file.name, have + came)
        stream.flush()
        os.fsync(stream.fileno())
    if announced.isdigit() and came != int(announced):
        return False
    if digest is not None and not have and digest[1] != b64encode(bytes.fromhex(_sha256(part))).decode():
        part.unlink()
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(file: File, part: Path) -> None:
    """Note a file's size and hash; one with another number of records than announced is dropped."""
    lines, begun = 0, False
    with part.open("rb") as stream:
        while piece := stream.read(PIECE):
            *ended, rest = piece.split(b"\n")
            for line in ended:
                lines += begun or bool(line.strip())
                begun = False
            begun |= bool(rest.strip())
    lines += begun
    if file.count is not None and lines != file.count:
        part.unlink()
        raise ExportFailed("file", "it holds another number of records than the server announced")
    file.size, file.sha256 = part.stat().st_size, _sha256(part)


def _drop(status_url: str, requests: Requests) -> None:
    """Tell the server that its copy is not needed any more; if it does not listen, it will drop it itself."""
    try:
        requests.get(status_url, "clean-up", headers={"Accept": JSON}, method="DELETE")
    except (ExportFailed, ExportRefused):
        return

"""STOW-RS (DICOM PS3.18, 10.5): objects come by HTTP, and lie in the node's inbox before they are confirmed.

POST /studies and /studies/{uid}, multipart/related; type="application/dicom". Who sends shows the bearer
token. Answers: 200 all stored, 202 some, 409 none, with a DICOM JSON of what was and was not; 400, 401, 413,
415, 503.

Guarantee: an object that is confirmed is on the disk, whole. Encapsulated documents are not taken, nor are
secondary captures without OCR, as by the C-STORE service. No path, answer or log line holds anything of an
object but the UIDs that its sender is told. A body is spooled to the disk, one object of it at a time is in
memory.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import mmap
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pydicom
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from node.ingest.dicom_inbox import DicomInbox
from node.ingest.multipart import MalformedParts, boundary_of, parts
from node.ingest.readers.dicom import has_ocr, not_taken
from privacy import private_files

MAX_BODY = 4 << 30  # bytes of a request
MAX_OBJECT = 1 << 30
MIN_TOKEN = 32  # characters
NOT_SUPPORTED, NOT_UNDERSTOOD, NO_ROOM, OTHER_STUDY = 0x0122, 0xC000, 0xA700, 0xA900  # PS3.18 table I.2-2
_JSON = "application/dicom+json"
_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"]
_HEADER = 1 << 20  # bytes in which the three stand


@dataclass(slots=True)
class Counts:
    """What became of the objects since the start."""

    stored: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Answer:
    stored: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    def response(self) -> Response:
        body: dict[str, Any] = {}
        if self.stored:
            body["00081199"] = {"vr": "SQ", "Value": self.stored}
        if self.failed:
            body["00081198"] = {"vr": "SQ", "Value": self.failed}
        status = 200 if not self.failed else 202 if self.stored else 409
        return Response(json.dumps(body), status, media_type=_JSON)


def stow_app(
    inbox: DicomInbox,
    *,
    token: str,
    counts: Counts,
    max_body: int = MAX_BODY,
    max_object: int = MAX_OBJECT,
    ocr: bool | None = None,
) -> Starlette:
    """Return the service. Raises: ValueError for a token that could be guessed.

    Args: ocr, whether there is one; None: look for it.
    """
    if len(token) < MIN_TOKEN or not token.isascii():
        raise ValueError(f"a token has at least {MIN_TOKEN} ASCII characters")
    service = _Service(
        inbox, f"Bearer {token}".encode(), counts, max_body, max_object, has_ocr() if ocr is None else ocr
    )
    routes = [Route(path, service.store, methods=["POST"]) for path in ("/studies", "/studies/{study}")]
    return Starlette(routes=routes)


@dataclass(frozen=True, slots=True)
class _Service:
    inbox: DicomInbox
    authorization: bytes
    counts: Counts
    max_body: int
    max_object: int
    ocr: bool

    async def store(self, request: Request) -> Response:
        """Answer one request."""
        shown = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(shown, self.authorization):
            return Response(status_code=401, headers={"www-authenticate": "Bearer"})
        try:
            kind, boundary = boundary_of(request.headers.get("content-type", ""))
        except MalformedParts:
            return Response(status_code=415)
        if kind != "application/dicom":
            return Response(status_code=415)
        spool = self.inbox.spool()
        private_files.write(spool, b"")
        try:
            refused = await self._spooled(request, spool)
            if refused is not None:
                return refused
            return await asyncio.to_thread(self._taken, spool, boundary, request.path_params.get("study"))
        finally:
            spool.unlink(missing_ok=True)

    async def _spooled(self, request: Request, spool: Any) -> Response | None:
        """Write the body to the disk; return an answer if that ends it."""
        size = 0
        try:
            with spool.open("ab") as file:
                async for piece in request.stream():
                    size += len(piece)
                    if size > self.max_body:
                        return Response(status_code=413)
                    self.inbox.room_for(len(piece))
                    file.write(piece)
        except OSError:
            return Response(status_code=503)
        except ClientDisconnect:
            return Response(status_code=400)
        return None if size else Response(status_code=400)

    def _taken(self, spool: Any, boundary: bytes, study: str | None) -> Response:
        answer = _Answer()
        with spool.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
            try:
                found = list(parts(body, boundary))
            except MalformedParts:
                return Response(status_code=400)
            for part in found:
                wanted = part.media_type in ("application/dicom", "")
                self._object(body[part.start : part.end] if wanted else b"", study, answer)
        self.counts.stored += len(answer.stored)
        self.counts.refused += len(answer.failed)
        return answer.response()

    def _object(self, encoded: bytes, study: str | None, answer: _Answer) -> None:
        """Put one object into the inbox, and say so."""
        header = _header(encoded)
        sop_class, instance, of_study = header or ("", "", "")
        said = {"00081150": _uid(sop_class), "00081155": _uid(instance)}
        reason = None
        if header is None:
            reason = NOT_UNDERSTOOD
        elif not_taken(sop_class, ocr=self.ocr):
            reason = NOT_SUPPORTED
        elif study is not None and study != of_study:
            reason = OTHER_STUDY
        elif len(encoded) > self.max_object:
            reason = NO_ROOM
        else:
            try:
                self.inbox.put(encoded)
            except OSError:
                reason = NO_ROOM
        if reason is None:
            answer.stored.append(said)
        else:
            answer.failed.append(said | {"00081197": {"vr": "US", "Value": [reason]}})


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]} if value else {"vr": "UI"}


def _header(encoded: bytes) -> tuple[str, str, str] | None:
    """Return class, instance and study of an object, None if it is none."""
    if encoded[128:132] != b"DICM":
        return None
    try:
        start = BytesIO(encoded[:_HEADER])
        found = pydicom.dcmread(start, stop_before_pixels=True, specific_tags=list(_TAGS))
        values = [str(found.get(name) or "").strip() for name in _TAGS]
    except Exception:  # a parser of hostile bytes raises whatever it met, with content in it
        return None
    fits = all(value and len(value) <= 64 and set(value) <= set("0123456789.") for value in values)
    return (values[0], values[1], values[2]) if fits else None

"""A C-STORE service: modalities and PACS send images, which lie in the node's inbox before they are
confirmed.

Guarantee: success (0000H) is answered only once the object is on the disk, whole. Files have random names;
the
sender's are not used. Only application entities that are named may send, to the title that is named. It
listens
on loopback unless told otherwise: DICOM's own port has no encryption and no authentication worth the name;
with `tls` it has, as far as its context asks for certificates of those who send.

Encapsulated documents are not negotiated, nor are secondary captures without OCR; an object beyond the limit
ends the association
while it still comes.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.pdu import P_DATA_TF

from node.ingest.readers.dicom import has_ocr, not_taken
from privacy import private_files

SUCCESS, OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO
MAX_OBJECT = 1 << 30  # bytes; a large CT volume in one multi-frame object is half of it
MAX_ASSOCIATIONS = 10
NATIVE = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]  # explicit and implicit VR, little-endian
COMPRESSED = [
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
]


@dataclass(frozen=True, slots=True)
class Listening:
    """Who may send, to whom, where, and how much. port 0: any that is free."""

    title: str
    senders: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 11112
    max_object: int = MAX_OBJECT

    def __post_init__(self) -> None:
        if not self.senders or not all(0 < len(name) <= 16 for name in (self.title, *self.senders)):
            raise ValueError("titles of application entities have 1 to 16 characters, and there is a sender")
        if self.max_object <= 0:
            raise ValueError("max_object is more than 0 bytes")


class StorageService:
    """The running service: a context manager."""

    def __init__(
        self,
        inbox: Path,
        listening: Listening,
        *,
        tls: ssl.SSLContext | None = None,
        ocr: bool | None = None,
    ) -> None:
        """Args: ocr, whether there is one; None: look for it."""
        ocr = has_ocr() if ocr is None else ocr
        self._inbox = private_files.make_folder(inbox)
        self._limit = listening.max_object
        self._coming: dict[int, int] = {}
        self._guard = threading.Lock()
        self.stored = 0
        self.refused = 0
        # pynetdicom logs what it receives; nothing of that may be in a log
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        entity = AE(ae_title=listening.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(listening.senders)
        entity.maximum_associations = MAX_ASSOCIATIONS
        entity.add_supported_context(VERIFICATION)
        for context in AllStoragePresentationContexts:
            kind = str(context.abstract_syntax)
            if not not_taken(kind, ocr=ocr):
                entity.add_supported_context(kind, NATIVE + COMPRESSED)
        server = entity.start_server(
            (listening.host, listening.port),
            block=False,
            ssl_context=tls,
            evt_handlers=[
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_PDU_RECV, self._count),
                (evt.EVT_CONN_CLOSE, self._closed),
            ],
        )
        assert server is not None, "start_server gives one unless it blocks"
        self._server = server
        self.address: tuple[str, int] = server.server_address[:2]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        """Write one object; answer what became of it."""
        with self._guard:
            self._coming.pop(id(event.assoc), None)
        try:
            encoded = event.encoded_dataset(include_meta=True)
        except Exception:  # whatever the sender's bytes did to the library
            self._refuse()
            return NOT_UNDERSTOOD
        if len(encoded) > self._limit:
            self._refuse()
            return OUT_OF_RESOURCES
        try:
            private_files.write(self._inbox / f"{secrets.token_hex(16)}.dcm", encoded)
        except OSError:
            self._refuse()
            return OUT_OF_RESOURCES
        with self._guard:
            self.stored += 1
        return SUCCESS

    def _refuse(self) -> None:
        with self._guard:
            self.refused += 1

    def _count(self, event: Any) -> None:
        """End an association that sends more than an object may have."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        with self._guard:
            size = self._coming.get(id(event.assoc), 0) + event.pdu.pdu_length
            self._coming[id(event.assoc)] = size
        if size > self._limit + (1 << 16):
            self._refuse()
            transport = event.assoc.dul.socket.socket
            if transport is not None:  # no more comes; the library sees the end and clears up by itself
                with suppress(OSError):
                    transport.shutdown(socket.SHUT_RDWR)

    def _closed(self, event: Any) -> None:
        with self._guard:
            self._coming.pop(id(event.assoc), None)

"""Files of FHIR resources as bytes: lines or one document, plain or gzip, within limits of memory."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from node.ingest.errors import UnreadableSource
from node.ingest.readers.fhir_catalogue import NAMED
from node.ingest.readers.fhir_elements import CodeableConcept
from node.ingest.readers.fhir_references import Medication

MAX_LINE = 64 << 20  # a resource with a note of 4 MiB fits ten times
MAX_DOCUMENT = 1 << 30  # a bundle is read as a whole; larger exports come as ndjson
MAX_RATIO = 200  # JSON shrinks to a tenth or a thirtieth; a bomb reaches 1,032
RATIO_FROM = 64 << 20  # below this a high ratio does no harm
FIRST_BYTES = 256 << 10  # in which `resourceType` must show; a server may write it last
MAX_MEDICATIONS = 500_000  # drugs of one hospital, about 300 MB
SOURCE = "FHIR file"  # in errors; the file's own name may be a patient's
SUFFIXES = (".ndjson", ".jsonl", ".json")
BOM = b"\xef\xbb\xbf"
MEDICATION_FILE = re.compile(r"Medication([^A-Za-z].*)?\.(ndjson|jsonl)(\.gz)?")


def is_fhir(path: Path) -> bool:
    """Return whether a file's name and first bytes are those of FHIR resources in JSON."""
    if not path.name.lower().removesuffix(".gz").endswith(SUFFIXES):
        return False
    try:
        with opened(path) as source:
            return b'"resourceType"' in source.stream.read(FIRST_BYTES)
    except (UnreadableSource, OSError):
        return False


class Source:
    """An open file."""

    def __init__(self, raw: BinaryIO, stream: io.BufferedIOBase | BinaryIO, *, size: int) -> None:
        self.stream = stream
        self._raw = raw
        self._limit = max(RATIO_FROM, size * MAX_RATIO) if stream is not raw else None
        self._read = 0

    def position(self) -> int:
        """Return how far the file itself was read."""
        return self._raw.tell()

    def lines(self) -> Iterator[bytes | None]:
        """Yield the lines, None for one that is too long. Blank lines count and are yielded empty."""
        readline, first = self.stream.readline, True
        while line := readline(MAX_LINE + 1):
            if self._limit is not None:
                self._count(len(line))
            if first:
                line, first = without_bom(line), False
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = readline(MAX_LINE)
                    self._count(len(line))
                yield None
            else:
                yield line.strip()

    def document(self) -> bytes:
        """Return the whole file. Raises: UnreadableSource if it is too large."""
        parts = []
        while part := self.stream.read(1 << 20):
            self._count(len(part))
            if self._read > MAX_DOCUMENT:
                raise UnreadableSource(SOURCE, "larger than 1 GiB in one document; export it as ndjson")
            parts.append(part)
        return without_bom(b"".join(parts))

    def _count(self, read: int) -> None:
        self._read += read
        if self._limit is not None and self._read > self._limit:
            raise UnreadableSource(SOURCE, f"expands to more than {MAX_RATIO} times its size")


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a file, through gzip if its first bytes say so.

    Raises: UnreadableSource for damaged compression, when the damage is reached.
    """
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20) if packed else raw
        try:
            yield Source(raw, stream, size=path.stat().st_size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise UnreadableSource(SOURCE, "its compression is damaged or cut off") from None


def without_bom(data: bytes) -> bytes:
    """Return data without the mark that some editors put in front. Raises: UnreadableSource if not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableSource(SOURCE, "is UTF-16; FHIR is UTF-8")
    return data.removeprefix(BOM)


def has_lines(path: Path) -> bool:
    """Return whether each line is a resource: by the name, else if the first of several lines is one."""
    if path.name.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl")):
        return True
    with opened(path) as source:
        lines = (line for line in source.lines() if line is None or line)
        first, second = next(lines, None), next(lines, b"")
    if not first or second == b"":
        return False
    try:
        return NAMED.decode(first).resourceType is not None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def medications_beside(path: Path) -> dict[str, CodeableConcept]:
    """Return the drugs in the Medication files of the same folder, which an export's records point to.

    Damaged ones are skipped here; where that file is read itself they are turned away.
    """
    found: dict[str, CodeableConcept] = {}
    for file in sorted(path.parent.iterdir()):
        if MEDICATION_FILE.fullmatch(file.name) is None:
            continue
        with opened(file) as source:
            for line in source.lines():
                if len(found) >= MAX_MEDICATIONS:
                    raise UnreadableSource(SOURCE, f"more than {MAX_MEDICATIONS} Medications stand beside it")
                try:
                    drug = msgspec.json.decode(line or b"{}", type=Medication)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue
                if drug.resourceType == "Medication" and drug.id and drug.code is not None:
                    found[drug.id] = drug.code
    return found

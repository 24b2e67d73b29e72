"""Which readers there are, in the order in which they are asked for a file.

A reader's module is imported when a file might be for it, so that a library it needs may be missing on a
machine that never reads such files. To add one: a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from node.ingest.errors import ReaderUnavailable
from node.ingest.facts import Reader


@dataclass(frozen=True, slots=True)
class Entry:
    """A reader's name, the module and class that it is, and the extra that brings what it imports."""

    name: str
    module: str
    attribute: str
    extra: str = "node"


READERS: tuple[Entry, ...] = (
    Entry("fhir", "node.ingest.readers.fhir", "FhirReader"),
    Entry("hl7v2", "node.ingest.readers.hl7v2", "Hl7v2Reader"),
    Entry("apple-health", "node.ingest.readers.apple_health", "AppleHealth"),
    Entry("fitbit", "node.ingest.readers.fitbit", "Fitbit"),
    Entry("cgm", "node.ingest.readers.cgm", "Cgm"),
    Entry("claims", "node.ingest.readers.claims_csv", "ClaimsCsv"),
    Entry("x12", "node.ingest.readers.x12", "X12"),
    Entry("synthea", "node.ingest.readers.synthea_csv", "SyntheaCsv"),
    Entry("wfdb-numerics", "node.ingest.readers.wfdb_numerics", "WfdbNumerics"),
    Entry("dicom", "node.ingest.readers.dicom_files", "DicomReader", "imaging"),
)


@cache
def reader(entry: Entry) -> Reader:
    """Return the reader, importing it. Raises: ReaderUnavailable if a library is missing."""
    try:
        made: Reader = getattr(import_module(entry.module), entry.attribute)()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("node."):
            raise
        raise ReaderUnavailable(entry.name, error.name or "a library", entry.extra) from None
    return made


def reader_for(path: Path, entries: tuple[Entry, ...] | None = None) -> Reader | None:
    """Return the first reader that takes the file; None if no one does.

    Raises: ReaderUnavailable if no one takes it and one could not be asked.
    """
    unavailable: list[ReaderUnavailable] = []
    for found in _available(READERS if entries is None else entries, unavailable):
        if found.reads(path):
            return found
    if unavailable:
        raise unavailable[0]
    return None


def _available(entries: tuple[Entry, ...], unavailable: list[ReaderUnavailable]) -> Iterator[Reader]:
    for entry in entries:
        try:
            yield reader(entry)
        except ReaderUnavailable as error:
            unavailable.append(error)

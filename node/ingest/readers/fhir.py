"""Reads FHIR R4: bulk ndjson (plain or gzip), bundles, single resources.

A record is one line of ndjson, one entry of a bundle, or the one resource of a file. Every record gives
facts or is turned away with a word of `fhir_reasons`; a field that cannot be used is noted beside the facts
of the rest.

Keys are "Type/id", of parts "Type/id#part". A resource that is entered in error, cancelled, refuted or not
done gives retractions of its key and of the parts it still names. `encounter` and `other_key` are keys.

For a drug that is a reference, the Medication files of the same folder are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from node.ingest.errors import UnreadableSource
from node.ingest.facts import Action, FactBatch, TurnedAway
from node.ingest.readers import fhir_reasons as reasons
from node.ingest.readers.fhir_catalogue import KINDS, NAMED, NAMES, NOT_READ, READ, RESOURCE, Bundle, Entry
from node.ingest.readers.fhir_files import SOURCE, Source, has_lines, is_fhir, medications_beside, opened
from node.ingest.readers.fhir_record import Record
from node.ingest.readers.fhir_references import NAMESPACE, References
from node.ingest.readers.fhir_rows import Origin, Rows
from node.ingest.readers.fhir_stencils import Stencils, in_order

MAX_BATCH_BYTES = 32 << 20  # a batch ends here too, so that large records do not add up
MAX_ROWS = 1024  # become Arrow at once: 5,000 would outgrow the processor's cache and take a fifth longer
MAX_LINES = 4096  # that are looked at together
MAX_LINES_BYTES = 4 << 20  # of them
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # FHIR forbids it, and databases cannot store it
DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class FhirReader:
    """The Reader of FHIR R4. patient_namespace: whose the ids of the server's Patients are."""

    name = "fhir"
    version = "3"
    marks_parts = True

    def __init__(self, *, patient_namespace: str = NAMESPACE) -> None:
        self._namespace = patient_namespace
        self.apart = {"patient_namespace": patient_namespace}

    def reads(self, path: Path) -> bool:
        """Return whether the file is JSON with FHIR resources."""
        return is_fhir(path)

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield the file's facts in order.

        Memory: a batch of lines, or the whole of a bundle. Raises: UnreadableSource.
        """
        if batch_records < 1:
            raise ValueError("a batch has at least one record")
        references = References(namespace=self._namespace, medications=lambda: medications_beside(path))
        lines = has_lines(path)
        with opened(path) as source:
            yield from (_lines if lines else _document)(source, _Batch(references), batch_records)


def _lines(source: Source, batch: _Batch, batch_records: int) -> Iterator[FactBatch]:
    number = 0
    numbers: list[int] = []
    lines: list[bytes] = []
    size = 0
    for line in source.lines():
        if line == b"":
            continue
        number += 1
        if line is None:
            batch.refuse(number, "", reasons.TOO_LARGE)
        else:
            numbers.append(number)
            lines.append(line)
            size += len(line)
        full = batch.records + len(lines) >= batch_records or batch.size + size >= MAX_BATCH_BYTES
        if full or len(lines) >= MAX_LINES or size >= MAX_LINES_BYTES:
            batch.read_lines(numbers, lines)
            numbers, lines, size = [], [], 0
        if full:
            yield batch.take(source.position())
    batch.read_lines(numbers, lines)
    if batch.records or number == 0:
        yield batch.take(source.position())


def _document(source: Source, batch: _Batch, batch_records: int) -> Iterator[FactBatch]:
    """Read a bundle's entries, or the one resource that the file is."""
    data = source.document()
    done = source.position()
    try:
        found = RESOURCE.decode(data)
    except DAMAGE:
        if _why(data) == reasons.MALFORMED and not _is_named(data):
            raise UnreadableSource(SOURCE, "is not JSON, cut off, or nested too deep") from None
        found = None
    if not isinstance(found, Bundle):
        batch.read(1, data)
        yield batch.take(done)
        return
    ids = [batch.learn(entry) for entry in found.entry]
    for i, entry in enumerate(found.entry):
        batch.entry(i + 1, entry, "", ids[i])
        if batch.records >= batch_records or batch.size >= MAX_BATCH_BYTES:
            yield batch.take(done * (i + 1) // len(found.entry))
    if batch.records or not found.entry:
        yield batch.take(done)


class _Batch:
    """Facts of consecutive records until they are taken."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._stencils = Stencils(references)
        self._rows = Rows()
        self._tables: list[pa.Table] = []
        self._turned_away: list[TurnedAway] = []
        self.records = 0
        self.size = 0

    def take(self, bytes_done: int) -> FactBatch:
        """Return what has come together, and start anew."""
        facts = pa.concat_tables([*self._tables, self._rows.take()])
        told, self._rows.told = self._rows.told, []
        batch = FactBatch(facts, self._turned_away, self.records, bytes_done, told=told)
        self._tables, self._turned_away, self.records, self.size = [], [], 0, 0
        return batch

    def refuse(self, number: int, field: str, reason: str) -> None:
        """Turn a whole record away."""
        self.records += 1
        self._turned_away.append(TurnedAway(number, field, reason, whole_record=True))

    def learn(self, entry: Entry) -> str | None:
        """Note what others may point to; what is damaged is found when it is read."""
        if not bytes(entry.resource):
            return None
        self._stencils.forget()
        try:
            return self._references.learn(entry.fullUrl, entry.resource)
        except DAMAGE:
            return None

    def read_lines(self, numbers: Sequence[int], lines: Sequence[bytes]) -> None:
        """Read consecutive records: together what others said before, one by one the rest."""
        facts, left = self._stencils.fill(numbers, lines)
        if facts is None:
            for number, line in zip(numbers, lines, strict=True):
                self.read(number, line)
            return
        filled = set(range(len(lines))).difference(left)
        self.records += len(filled)
        self.size += sum(len(lines[place]) for place in filled)
        self._tables.append(self._rows.take())
        before = len(self._tables)
        for place in left:
            self.read(numbers[place], lines[place])
        if len(self._rows) or len(self._tables) > before:
            others = [*self._tables[before:], self._rows.take()]
            facts = in_order(pa.concat_tables([*others, facts]))
        self._tables[before:] = [facts]

    def read(self, number: int, data: bytes) -> None:
        """Read one record that stands alone; it may be a bundle, as exports write deletions."""
        first = len(self._rows)
        name, reason = self._resource(number, data, "", None)
        self._close(number, name, reason, first, len(data))

    def entry(self, number: int, entry: Entry, place: str, fallback_id: str | None) -> None:
        """Read one entry of a bundle as a record."""
        first = len(self._rows)
        name, reason = self._entry(number, entry, place, fallback_id)
        self._close(number, name, reason, first, len(bytes(entry.resource)))

    def _close(self, number: int, name: str, reason: str | None, first: int, size: int) -> None:
        """Count a record: it has facts, or a reason why it has none."""
        self.size += size
        if len(self._rows) > first:
            self.records += 1
            if len(self._rows) >= MAX_ROWS:
                self._tables.append(self._rows.take())
        else:
            self.refuse(number, name, reason or reasons.NO_CONTENT)

    def _entry(
        self, number: int, entry: Entry, place: str, fallback_id: str | None
    ) -> tuple[str, str | None]:
        if bytes(entry.resource):
            return self._resource(number, bytes(entry.resource), place, fallback_id)
        request = entry.request
        if request is None or request.method != "DELETE" or not request.url:
            return "", reasons.NO_CONTENT
        name, slash, found = request.url.rpartition("/")
        name = name.rpartition("/")[2]
        if not slash or name not in KINDS or "?" in found or not found:
            known = name in NOT_READ
            return (name, NOT_READ[name]) if known else ("", reasons.UNKNOWN_RESOURCE)
        namespace = self._references.namespace  # of whom it was is not said, of whose records it is
        origin = Origin(number, f"{place}{name}", f"{name}/{found}", None, None, namespace)
        self._rows.add(origin, KINDS[name], action=Action.RETRACT, type_concept_id=None)
        return name, None

    def _resource(
        self, number: int, data: bytes, place: str, fallback_id: str | None
    ) -> tuple[str, str | None]:
        """Add a resource's facts; return its type and why it has none."""
        first = len(self._rows)
        name = ""
        try:
            resource = RESOURCE.decode(data)
            form = type(resource)
            name = form.__name__
            if form in READ:
                if b"\\u0000" in data and NUL.search(data):
                    return name, reasons.MALFORMED
                if resource.modifierExtension or resource.implicitRules:
                    return name, reasons.MODIFIER
                record = Record(number, place, self._rows, self._references, fallback_id=fallback_id)
                reason = READ[form][0](resource, record)
                if record.finish():
                    self._turned_away += record.turned_away
                    return name, None
                return name, reason
            if form is Bundle:
                return (name, reasons.NOT_SUPPORTED) if place else self._bundle(number, resource)
            return name, NOT_READ[name]
        except DAMAGE:
            self._rows.forget(first)
            return name, _why(data)

    def _bundle(self, number: int, bundle: Bundle) -> tuple[str, str | None]:
        """Read a bundle that is one record: its entries are places in it."""
        reason: str | None = reasons.NO_CONTENT
        ids = [self.learn(entry) for entry in bundle.entry]
        for i, entry in enumerate(bundle.entry):
            name, why = self._entry(number, entry, f"entry[{i}].", ids[i])
            if why is not None:
                reason = why
                self._turned_away.append(TurnedAway(number, f"entry[{i}].{name}", why, whole_record=False))
        return "Bundle", reason


def _is_named(data: bytes) -> bool:
    """Return whether data are JSON with a resource's name."""
    try:
        return NAMED.decode(data).resourceType is not None
    except DAMAGE:
        return False


def _why(data: bytes) -> str:
    """Return why data are no resource that is read."""
    try:
        name = NAMED.decode(data).resourceType
    except DAMAGE:
        return reasons.MALFORMED
    return (
        reasons.MALFORMED if name is None or name in NAMES or name == "Bundle" else reasons.UNKNOWN_RESOURCE
    )

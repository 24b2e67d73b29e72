"""Apple Health's export: export.xml, alone or inside the export.zip as the phone makes it.

Records in are `Record` elements, the beats inside of them (`InstantaneousBeatsPerMinute`) and the other
elements that stand where records do (workouts, daily rings, clinical documents), which are turned away.
`sourceName` ("Anna's iPhone"), routes, positions and metadata are never kept; of `device` its kind alone.

The file is streamed. Its document type is cut off before it is parsed: some versions of iOS write one that is
not XML, and nothing else can declare an entity. One that declares any is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from deid.vault import Vault
from node.ingest.errors import UnreadableSource
from node.ingest.readers import apple_health_xml
from node.ingest.readers.apple_health_samples import beat_samples, quantity_samples
from node.ingest.readers.apple_health_xml import Elements
from node.ingest.readers.signal_files import Stream, is_zip, opened, zipped
from node.signals.intake import SignalFacts
from node.signals.samples import SampleBatch
from node.signals.sifting import NO_SIGNAL, each_turned_away

PROLOG = 1 << 18  # bytes in which the document type has to end; Apple's has 8 kB


class AppleHealth:
    """Reads export.xml and export.zip of Apple Health."""

    name = "apple-health"
    version = "1"

    def reads(self, path: Path) -> bool:
        """Return whether the file is an export: by its root element, or a zip that has one."""
        if is_zip(path):
            return any(_is_export(name) for name in zipped(path))
        with path.open("rb") as file:
            head = file.read(PROLOG)
        return b"<HealthData" in head and head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")

    def bind(self, store_folder: Path, *, vault: Vault, latest_day: int | None) -> SignalFacts:
        """Return this reader as one of facts, with raw samples beside the store."""
        return SignalFacts.beside(store_folder, self, vault=vault, latest_day=latest_day)

    def samples(self, path: Path, *, batch_records: int) -> Iterator[SampleBatch]:
        """Yield the samples. Raises: UnreadableSource."""
        with opened(path, _is_export) as stream:
            elements = Elements(path.name)
            for chunk in _without_doctype(stream, path.name):
                elements.feed(chunk)
                if elements.found >= batch_records:
                    yield _batch(elements, stream.bytes_done)
            elements.close()
            yield _batch(elements, stream.bytes_done)


def _batch(elements: Elements, bytes_done: int) -> SampleBatch:
    taken = elements.take()
    samples, wrong = quantity_samples(np.array(taken.numbers, dtype=np.int64), taken.records, taken.manual)
    of_beats, wrong_beats = beat_samples(taken.beats)
    return SampleBatch(
        pa.concat_tables([samples, of_beats]),
        each_turned_away(taken.others, NO_SIGNAL) + wrong + wrong_beats,
        taken.count,
        bytes_done,
    )


def _is_export(name: str) -> bool:
    return name.lower().rsplit("/", 1)[-1] in (
        "export.xml",
        "exportar.xml",
        "exportieren.xml",
        "exportation.xml",
    )


def _without_doctype(stream: Stream, name: str) -> Iterator[bytes]:
    """Yield the bytes without the document type.

    Raises: UnreadableSource if it declares an entity, or does not end.
    """
    head = b""
    while b"<HealthData" not in head:
        more = stream.read(apple_health_xml.CHUNK)
        head += more
        if not more or len(head) > PROLOG + apple_health_xml.CHUNK:
            raise UnreadableSource(name, "no Apple Health export: there is no HealthData in it")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in head[:200]:
        raise UnreadableSource(name, "not UTF-8")
    root = head.index(b"<HealthData")
    prolog = head[:root]
    begin = prolog.find(b"<!DOCTYPE")
    if b"<!ENTITY" in prolog or b"<!entity" in prolog.lower():
        raise UnreadableSource(name, "declares XML entities, as no phone does: refused")
    if begin >= 0:
        prolog = prolog[:begin]
    yield prolog + head[root:]
    while chunk := stream.read(apple_health_xml.CHUNK):
        yield chunk

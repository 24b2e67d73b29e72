"""Synthea's CSV export: one file a kind of record, recognised by its header.

As OHDSI's ETL-Synthea reads it: encounters are visits; conditions, procedures, devices and supplies are in
SNOMED, observations in LOINC, medications in RxNorm, immunizations in CVX. What a medication, a procedure, an
immunization or an encounter cost stands in its own row; claims and their transactions say it again and are
turned away as "said-elsewhere". Times are UTC. A record is a line below the header.

Rows but encounters have no id of their own: they are named by encounter, code and time, and numbered where
one encounter has several of the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from node.ingest.errors import UnreadableSource
from node.ingest.facts import FactBatch
from node.ingest.readers.synthea_file import MAX_LINE_BYTES, SyntheaFile
from node.ingest.readers.synthea_rows import understood


class SyntheaCsv:
    """The reader of Synthea's CSV files."""

    name = "synthea"
    version = "1"
    apart: ClassVar[dict[str, str]] = {}

    def reads(self, path: Path) -> bool:
        """Return whether the first line is a header of Synthea's."""
        if path.suffix.lower() != ".csv":
            return False
        with path.open("rb") as raw:
            return understood(raw.readline(MAX_LINE_BYTES)) is not None

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield a file's facts in order. Raises: UnreadableSource if the header is none of Synthea's."""
        with path.open("rb") as raw:
            found = understood(raw.readline(MAX_LINE_BYTES))
            if found is None:
                raise UnreadableSource(path.name, "no header of a Synthea file")
            yield from SyntheaFile(raw, *found).batches(batch_records)

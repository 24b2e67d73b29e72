"""What a source says, before identity is removed and codes are mapped: one row per fact, in Arrow.

A reader (node.ingest.readers) turns a file or message into facts and does nothing else: no pseudonyms, no
concepts, no tables. `node.ingest.harmonize`, with the modules `fact_*`, is the only one who reads facts, and
where identity ends.

Every record of a source (a FHIR resource, an HL7 message, a claim, a line) has a number in its file, from 1.
It gives facts, or stands in `turned_away` with a reason; doing neither is an error of the reader:
records in = records with a fact + records turned away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from deid.spans import Known


class Kind(StrEnum):
    """What a fact is about. The concept's domain decides about the CDM table, not this word."""

    PERSON = "person"
    VISIT = "visit"
    CONDITION = "condition"
    DRUG = "drug"
    PROCEDURE = "procedure"
    MEASUREMENT = "measurement"
    OBSERVATION = "observation"
    DEVICE = "device"
    DEATH = "death"
    NOTE = "note"
    COST = "cost"
    COVERAGE = "coverage"  # payer_plan_period
    IMAGE = "image"  # one series: image_occurrence
    LINK = "link"  # fact_relationship: `key` belongs to `other_key`


class Action(StrEnum):
    """What the source does with the fact."""

    ASSERT = "assert"  # it holds; a later version with the same key takes its place
    RETRACT = "retract"  # entered in error, cancelled, deleted: whatever has this key goes
    MERGE = "merge"  # `patient` is from now on `other_patient` (HL7 A40, Patient.link replaced-by)
    MOVE = (
        "move"  # the visit `encounter` of `patient` is from now on `other_key` of `other_patient` (HL7 A45)
    )
    WITHDRAW = "withdraw"  # the patient withdrew consent: all of their records leave


class Precision(StrEnum):
    """How exactly a time is known."""

    YEAR = "year"
    MONTH = "month"
    DAY = "day"
    SECOND = "second"


START = (
    "start"  # detail of a VISIT whose source says not when it began: `start` is then no more than a day of it
)
START_UNSAID, OPEN_AGAIN = "unsaid", "unsaid, open"  # its end is known; its end is not

CODING = pa.struct([("system", pa.string()), ("code", pa.string()), ("display", pa.string())])
"""One coding. `system` is a FHIR system URI, an HL7 table name, an OMOP vocabulary_id, or "local:<where>"."""

PART_MARK = "#"  # in the keys of a reader that has `marks_parts`: between a whole's key and its part


def unmarked(text: str) -> str:
    """Return an id of a source as it stands in a key whose parts are marked: never with a mark of its own.

    >>> unmarked("A#1"), unmarked("A%231"), unmarked("A-1")
    ('A%231', 'A%25231', 'A-1')
    """
    if PART_MARK not in text and "%" not in text:
        return text
    return text.replace("%", "%25").replace(PART_MARK, "%23")


UTC = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        # where it stands
        pa.field("record", pa.int64(), nullable=False),  # number in the file, from 1
        pa.field("place", pa.string(), nullable=False),  # inside the record: "component[1]", "OBX-3", "DX2"
        pa.field("key", pa.string()),  # the source's own stable id of this fact; null: file and place
        pa.field("version", UTC),  # when the source recorded it (lastUpdated, MSH-7): later ones win
        pa.field("action", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        # whom and when
        pa.field("patient", pa.string()),  # the hospital's own id
        pa.field("patient_namespace", pa.string()),  # whose ids these are: "mrn", an assigning authority
        pa.field("other_patient", pa.string()),  # of a merge: who they really are
        pa.field("encounter", pa.string()),
        pa.field("start", UTC),
        pa.field("end", UTC),  # by the clock of `utc_offset_min`: the day and time that the source shows
        pa.field("precision", pa.string()),  # of start
        pa.field("utc_offset_min", pa.int16()),  # what the local clock showed, null if not said
        # what
        pa.field("codes", pa.list_(CODING)),  # all that were given, the source's preferred one first
        pa.field("text", pa.string()),  # in words: label, note text, reason; may hold identity
        pa.field("type_concept_id", pa.int32()),  # OMOP type concept: 32817 EHR, 32856 lab, ...
        pa.field("status", pa.string()),  # the source's word: "final", "active", "completed", ...
        pa.field("value_number", pa.float64()),
        pa.field("value_operator", pa.string()),  # "<", "<=", ">=", ">"; null is "="
        pa.field("value_text", pa.string()),
        pa.field("value_codes", pa.list_(CODING)),
        pa.field("unit", pa.string()),  # UCUM where the source says so, else as written
        pa.field("range_low", pa.float64()),
        pa.field("range_high", pa.float64()),
        # drugs and supplies
        pa.field("quantity", pa.float64()),
        pa.field("days_supply", pa.int32()),
        pa.field("refills", pa.int32()),
        pa.field("route", CODING),
        pa.field("dose", pa.string()),
        # persons
        pa.field("sex", pa.string()),  # "male", "female", "other", "unknown"
        pa.field("race", CODING),
        pa.field("ethnicity", CODING),
        pa.field("birth", pa.date32()),  # exactness as `precision` says
        # money
        pa.field("charged", pa.float64()),
        pa.field("paid", pa.float64()),
        pa.field("currency", pa.string()),  # ISO 4217
        # links, images, notes: key and value pairs that a harmonizer of the kind knows
        pa.field("other_key", pa.string()),
        pa.field("details", pa.map_(pa.string(), pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A record, or one field of it, that gives no fact. `reason` is a word of a short list, never content."""

    record: int
    field: str
    reason: str
    whole_record: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a source says of who a patient is: to be found in their texts, and never stored but sealed.

    Prints as hidden.
    """

    patient: str
    namespace: str | None
    known: tuple[Known, ...]

    def __repr__(self) -> str:
        return "Told(<hidden>)"


@dataclass(frozen=True, slots=True)
class FactBatch:
    """Facts of consecutive records of one file, and what was turned away among them."""

    facts: pa.Table
    turned_away: list[TurnedAway] = field(default_factory=list)
    records: int = 0  # how many records this batch covers
    bytes_done: int = 0  # of the file, for progress
    kept: int = (
        0  # records among them that are stored beside the CDM: raw samples. Their facts come in batches
    )
    # that cover no records
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.facts.schema.equals(SCHEMA):
            raise ValueError("facts have the schema of this module")


class Reader(Protocol):
    """Reads one kind of source. Pure but for the file: no store, no vault, no clock.

    `name` stands in reports ("fhir"), `version` changes whenever the same file would give other facts: a file
    that was loaded by an older version counts as not loaded.

    A reader may have `marks_parts = True`: what stands before the first PART_MARK of its keys is then the key
    of what the fact is a part of (a line of a claim), and it takes marks out of the ids of its sources
    (`unmarked`). In the keys of all other readers the sign means nothing.

    A reader may have `apart`: the words by which its class makes the same reader in another process, which
    then may read its files (node.ingest.reading_apart).
    """

    name: str
    version: str

    def reads(self, path: Path) -> bool:
        """Return whether this reader is for the file, by its name and its first bytes."""
        ...

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        """Yield the file's facts in order; memory is bounded by `batch_records`, not by the file.

        Raises: UnreadableSource if the file as a whole is not what `reads` took it for, or unsafe.
        """
        ...


def table_of(rows: list[dict[str, object]]) -> pa.Table:
    """Return rows as a table of facts; fields that are not named are null. For readers that are not columnar.

    Raises: KeyError for a field that facts do not have.
    """
    names = set(SCHEMA.names)
    for row in rows:
        if not row.keys() <= names:
            raise KeyError(", ".join(sorted(row.keys() - names)))
    return pa.Table.from_pylist(rows, schema=SCHEMA)

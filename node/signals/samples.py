"""What a device measured, sample by sample, before identity is removed: the signals' counterpart of facts.

A signal reader turns a file into sample batches and does nothing else. `node.signals.intake` is the only one
who reads them; raw samples stay in the node, hourly and daily summaries become facts.

A device's serial number, its owner's name for it, routes and positions are not in a batch, ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from node.ingest.facts import UTC, TurnedAway

SAMPLES = pa.schema(
    [
        pa.field("record", pa.int64(), nullable=False),  # number in the file, from 1
        pa.field("patient", pa.string()),  # as the source says it; null: the file as a whole is one person's
        pa.field("signal", pa.string(), nullable=False),  # a name of node.signals.kinds
        pa.field("start", UTC, nullable=False),  # see SampleBatch.wall_clock
        pa.field("end", UTC),  # of what was counted over an interval (steps, sleep)
        pa.field("utc_offset_min", pa.int16()),  # what the local clock showed; null: the source does not say
        pa.field("value", pa.float64(), nullable=False),  # in the signal's own unit
        pa.field("device", pa.string(), nullable=False),  # its kind: a word of DEVICES
        pa.field("recorded", UTC),  # when the source wrote it down
    ]
)

DEVICES = ("watch", "phone", "tracker", "scale", "cuff", "cgm", "monitor", "manual", "other")


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Samples of consecutive records of one file, and what was turned away among them.

    wall_clock: what a time without an offset is: True, what a clock on the wall showed (stored in `start`
    as if
    it were UTC, until the intake knows the zone); False, a moment in UTC whose local clock is not known.
    namespace: whose ids `patient` are, where the source says.
    """

    samples: pa.Table
    turned_away: list[TurnedAway] = field(default_factory=list)
    records: int = 0
    bytes_done: int = 0
    wall_clock: bool = False
    namespace: str | None = None

    def __post_init__(self) -> None:
        if not self.samples.schema.equals(SAMPLES):
            raise ValueError("samples have the schema of this module")


class SignalReader(Protocol):
    """Reads one kind of signals file. Pure but for the file, as `node.ingest.facts.Reader` is."""

    name: str
    version: str

    def reads(self, path: Path) -> bool:
        """Return whether this reader is for the file, by its name and its first bytes."""
        ...

    def samples(self, path: Path, *, batch_records: int) -> Iterator[SampleBatch]:
        """Yield the file's samples in order; memory is bounded by `batch_records` or a stated size.

        Guarantee: records in = records with a sample + records turned away.
        Raises: UnreadableSource if the file as a whole is not what `reads` took it for, or unsafe.
        """
        ...

"""Facts become records of the CDM: where identity ends and codes become concepts.

One `Harmonizer` takes the batches of one source into one open load. Per batch, in columns: patients become
pseudonyms and dates move (deid); keys become record ids that are the same whenever the source is loaded;
states, dates and texts are judged; codes, units and values are mapped; SQL puts each record where its
concept's domain belongs (node.ingest.cdm_areas). What is turned away is noted by record, field and reason:

    missing-patient  missing-date  implausible-date  status  withdrawn  text-withheld  implausible-birth
    missing-target (of a link or a merge)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from deid.dates import DatePractice
from deid.text import Redactor
from deid.vault import Vault
from node.ingest.code_words import CodeWords
from node.ingest.errors import Unaccounted
from node.ingest.fact_columns import Columns
from node.ingest.fact_concepts import FactConcepts
from node.ingest.fact_dates import Dates
from node.ingest.fact_judging import judge
from node.ingest.fact_names import Names
from node.ingest.fact_rules import FactRules
from node.ingest.fact_stage import Judged, stage_actions, stage_records
from node.ingest.fact_texts import Texts
from node.ingest.facts import FactBatch
from node.omop.concepts import Concepts
from node.omop.fact_loading import FactLoad


@dataclass(slots=True)
class Count:
    """How the records of a source came out. `reasons` counts records, by the first reason of each."""

    records_in: int = 0
    stored: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Harmonizer:
    """Takes the batches of one source. Not thread-safe."""

    def __init__(
        self,
        load: FactLoad,
        vault: Vault,
        concepts: Concepts,
        *,
        source_name: str,
        source_sha256: str,
        rules: FactRules,
        practice: DatePractice,
        latest_day: int,
        redact: Redactor,
        marks_parts: bool = False,
    ) -> None:
        self._load = load
        self._vault = vault
        self._source_name = source_name
        self._sha256 = source_sha256
        self._rules = rules
        self._practice = practice
        self._latest_day = latest_day
        self._marks_parts = marks_parts
        self._texts = Texts(load, vault, rules=rules, redact=redact)
        self._concepts = FactConcepts(concepts)
        self.words = CodeWords()
        self.count = Count()

    def take(self, batch: FactBatch) -> None:
        """Stage the records of a batch. Raises: Unaccounted if the reader lost a record."""
        self._load.next_batch(batch.facts.num_rows)
        self._texts.learn(batch)
        judged = self._judged(batch)
        columns = judged.columns
        notes = columns.notes
        notes += [(away.record, away.field, away.reason, away.whole_record) for away in batch.turned_away]
        stage_actions(judged, self._load)
        stage_records(judged, self._load, self._vault, self._concepts, self.words, self._practice)
        self._tally(batch, columns)
        self._load.quarantine(
            pa.table(
                {
                    "source_row": pa.array([note[0] for note in notes], pa.int64()),
                    "field": pa.array([note[1] for note in notes], pa.string()),
                    "reason": pa.array([note[2] for note in notes], pa.string()),
                    "whole_row": pa.array([note[3] for note in notes], pa.bool_()),
                }
            )
        )

    def _judged(self, batch: FactBatch) -> Judged:
        """The batch without identity, and with what gives no record turned away."""
        columns = Columns(batch.facts)
        names = Names(
            columns,
            self._load,
            self._vault,
            source_sha256=self._sha256,
            marks_parts=self._marks_parts,
        )
        dates = Dates(columns, names.shift, practice=self._practice, latest_day=self._latest_day)
        judge(columns, dates, self._rules)
        note_text = self._texts.notes(columns)
        value_text, value_word, withheld = self._texts.values(columns)
        self._load.unkeyed |= bool((columns.good & columns.asserts & ~names.keyed).any())
        return Judged(columns, names, dates, note_text, value_text, value_word, withheld)

    def _tally(self, batch: FactBatch, columns: Columns) -> None:
        """Records in = stored + turned away, or the reader is wrong."""
        if batch.records == 0:  # facts of records that were kept before
            return
        stored = set(columns.record[columns.good].tolist())
        reasons: dict[int, str] = {}
        for away in batch.turned_away:
            if away.whole_record:
                reasons.setdefault(away.record, away.reason)
        for record, _field, reason, _whole in columns.notes:
            reasons.setdefault(record, reason)
        quarantined = reasons.keys() - stored
        for place, note in enumerate(columns.notes):
            if note[0] in quarantined and not note[3]:
                columns.notes[place] = (*note[:3], True)
        count = self.count
        count.records_in += batch.records
        count.stored += len(stored) + batch.kept
        count.quarantined += len(quarantined)
        count.reasons.update(reasons[record] for record in quarantined)
        if len(stored) + batch.kept + len(quarantined) != batch.records:
            raise Unaccounted(
                self._source_name,
                records_in=batch.records,
                stored=len(stored),
                quarantined=len(quarantined),
            )

"""What the store could not map: codes and labels of the source that stand there with concept 0.

Only the code (or label) as the source wrote it, its system where the vocabulary knows it, what it is called
for at least `SMALL` patients (node.ingest.code_words), and how often it stands: nothing else of any patient.
In reports a count below `SMALL` is not told.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.concept_maps.candidates import DOMAINS
from node.omop.code_map import ANYWHERE
from node.omop.concepts import SOURCE_VALUE_CHARACTERS, WORDS_SYSTEM
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES

_TABLES = {
    "condition": "condition_occurrence",
    "drug": "drug_exposure",
    "procedure": "procedure_occurrence",
    "measurement": "measurement",
    "observation": "observation",
}
SMALL = 11  # CMS cell-size suppression policy, as in the reports of the node


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A code that leads nowhere. `label` is what the vocabulary calls it, or the code itself."""

    table: str
    source_vocabulary_id: str
    source_code: str
    label: str
    records: int
    persons: int

    @property
    def records_told(self) -> str:
        """How often, for a report."""
        if self.records == 0:
            return f"{SMALL}+"
        return f"<{SMALL}" if self.persons < SMALL else str(self.records)


def unmapped(store: OmopStore) -> list[Unmapped]:
    """Return the codes with concept 0, the most frequent first; ties by table and code.

    The label of a code that no vocabulary knows is what it is called for at least `SMALL` patients; words
    without a code, of as many patients, stand for themselves.
    """
    called = common_words(store)
    found: list[Unmapped] = []
    for table in EVENT_TABLES.values():
        if table.name not in DOMAINS:
            continue
        rows = store.connection.con.execute(
            f"SELECT CASE WHEN k.concept_id > 0 THEN k.vocabulary_id ELSE '{ANYWHERE}' END,"  # noqa: S608 (our names)
            f" coalesce(CASE WHEN k.concept_id > 0 THEN k.concept_code END, e.{table.source_value}) AS code,"
            f" coalesce(CASE WHEN k.concept_id > 0 THEN k.concept_name END, e.{table.source_value}),"
            f" count(*), count(DISTINCT e.person_id) FROM {table.name} e"
            f" LEFT JOIN concept k ON k.concept_id = e.{table.source_concept}"
            f" WHERE e.{table.concept} = 0 AND trim(e.{table.source_value}) <> '' GROUP BY ALL"
        ).fetchall()
        for vocabulary, code, label, records, persons in rows:
            words = called.get((table.name, code), label) if label == code else label
            found.append(Unmapped(table.name, vocabulary, code, words, records, persons))
    found += _without_codes(store)
    return sorted(found, key=lambda one: (-one.records, one.table, one.source_vocabulary_id, one.source_code))


def common_words(store: OmopStore) -> dict[tuple[str, str], str]:
    """Return what codes are called, by table and code: of several names the first in the alphabet."""
    if not store.has("fedtwin_code_words"):
        return {}
    rows = store.connection.con.execute(
        "SELECT kind, source_code, min(words) FROM fedtwin_code_words WHERE words IS NOT NULL"  # noqa: S608 (our names)
        f" AND source_vocabulary_id <> '{WORDS_SYSTEM}' GROUP BY ALL"
    ).fetchall()
    return {(_TABLES[kind], code[:SOURCE_VALUE_CHARACTERS]): words for kind, code, words in rows}


def _without_codes(store: OmopStore) -> list[Unmapped]:
    """Words that stood where a code should, of `SMALL` patients or more; their records are not counted."""
    if not store.has("fedtwin_code_words"):
        return []
    rows = store.connection.con.execute(
        "SELECT kind, source_code, min(words) FROM fedtwin_code_words w WHERE words IS NOT NULL"  # noqa: S608 (our names)
        f" AND source_vocabulary_id = '{WORDS_SYSTEM}' AND NOT EXISTS (SELECT 1 FROM source_to_concept_map m"
        " WHERE m.source_code = w.source_code AND m.target_concept_id <> 0"
        f" AND m.source_vocabulary_id IN ('{WORDS_SYSTEM}', '{ANYWHERE}')) GROUP BY ALL"
    ).fetchall()
    return [Unmapped(_TABLES[kind], WORDS_SYSTEM, code, words, 0, SMALL) for kind, code, words in rows]

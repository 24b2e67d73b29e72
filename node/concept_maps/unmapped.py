"""What the store could not map: codes and labels of the source that stand there with concept 0.

Only the code (or label) as the source wrote it, its system where the vocabulary knows it, and how often it
stands: nothing else of any patient. In reports a count below `SMALL` is not told.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.concept_maps.candidates import DOMAINS
from node.omop.code_map import ANYWHERE
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES

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
        return f"<{SMALL}" if self.persons < SMALL else str(self.records)


def unmapped(store: OmopStore) -> list[Unmapped]:
    """Return the codes with concept 0, the most frequent first; ties by table and code."""
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
        found += [Unmapped(table.name, *row) for row in rows]
    return sorted(found, key=lambda one: (-one.records, one.table, one.source_vocabulary_id, one.source_code))

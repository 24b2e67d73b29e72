"""The standard concepts that a code may be mapped to, by all the names that the store has for them."""

from __future__ import annotations

from types import MappingProxyType

from node.concept_maps.ranking import Named
from node.omop.store import OmopStore

# A record of a table may belong to another: what a hospital calls an observation is often a measurement.
DOMAINS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "condition_occurrence": ("Condition", "Observation"),
        "drug_exposure": ("Drug",),
        "procedure_occurrence": ("Procedure", "Measurement"),
        "measurement": ("Measurement", "Observation"),
        "observation": ("Observation", "Measurement", "Condition"),
    }
)


def candidates(store: OmopStore, table: str) -> list[Named]:
    """Return the names and synonyms of the standard concepts for records of `table`, by concept and name."""
    rows = store.connection.con.execute(
        "WITH fit AS (SELECT concept_id, concept_name FROM concept WHERE standard_concept = 'S'"
        " AND invalid_reason IS NULL AND domain_id IN (SELECT unnest(?)))"
        " SELECT concept_id, concept_name FROM fit UNION"
        " SELECT concept_id, concept_synonym_name FROM concept_synonym JOIN fit USING (concept_id) "
        "ORDER BY ALL",
        [list(DOMAINS[table])],
    ).fetchall()
    return [Named(concept, name) for concept, name in rows]


def described(store: OmopStore, concept_ids: list[int]) -> dict[int, tuple[str, str]]:
    """Return name and vocabulary of those of the concepts that are there and standard."""
    rows = store.connection.con.execute(
        "SELECT concept_id, concept_name, vocabulary_id FROM concept WHERE concept_id IN (SELECT unnest(?))"
        " AND standard_concept = 'S' AND invalid_reason IS NULL",
        [concept_ids],
    ).fetchall()
    return {concept: (name, vocabulary) for concept, name, vocabulary in rows}

"""Bringing a person's decisions into force, and telling what is in force.

Guarantee: all of a review or nothing of it. Accepting the same review twice changes nothing; another
decision about a code ends the earlier one, which stays on record. Records that were loaded before keep
their concept until their source is loaded again, which a change of the mappings makes it be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from node.concept_maps.candidates import described
from node.concept_maps.review import Decisions
from node.omop import code_map
from node.omop.store import OmopStore

ORIGIN = "review-"


class UnknownTarget(ValueError):
    """A decision names a concept that is not a standard one of the vocabulary that the store holds."""

    def __init__(self, concept_id: int) -> None:
        super().__init__(f"{concept_id} is no standard concept of this store's vocabulary")
        self.concept_id = concept_id


@dataclass(frozen=True, slots=True)
class InForce:
    """A mapping that a person accepted. `review` names the decisions that it came with."""

    source_vocabulary_id: str
    source_code: str
    target_concept_id: int
    target_name: str | None
    review: str
    since: datetime
    until: datetime | None


def accept(store: OmopStore, decisions: Decisions, *, now: datetime) -> int:
    """Bring the decisions into force; return how many mappings are new.

    Raises: UnknownTarget.
    """
    targets = sorted({mapping.target_concept_id for mapping in decisions.mappings})
    known = described(store, targets)
    for target in targets:
        if target not in known:
            raise UnknownTarget(target)
    with store.writing() as writer:
        return code_map.put(writer, decisions.mappings, origin=ORIGIN + decisions.version, now=now)


def in_force(store: OmopStore, *, history: bool = False) -> list[InForce]:
    """Return the accepted mappings, by system and code; with `history` also those that have ended."""
    if not store.has("fedtwin_code_map"):
        return []
    rows = store.connection.con.execute(
        "SELECT source_vocabulary_id, source_code, target_concept_id, concept_name, origin, since, until"  # noqa: S608 (our names)
        " FROM fedtwin_code_map LEFT JOIN concept ON concept_id = target_concept_id"
        f" WHERE origin LIKE '{ORIGIN}%'{'' if history else ' AND until IS NULL'} ORDER BY 1, 2, 6"
    ).fetchall()
    return [
        InForce(
            system, code, target, name, origin.removeprefix(ORIGIN), since.replace(tzinfo=UTC), _utc(until)
        )
        for system, code, target, name, origin, since, until in rows
    ]


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)

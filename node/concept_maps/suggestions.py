"""Suggestions for what a store could not map: the unmapped codes, each with ranked candidates."""

from __future__ import annotations

from dataclasses import dataclass

from node.concept_maps.candidates import candidates, described
from node.concept_maps.embedding import Embedder, EmbeddingUnavailable
from node.concept_maps.ranking import Ranked, Ranker
from node.concept_maps.unmapped import Unmapped, unmapped
from node.omop.store import OmopStore

LEXICAL, HYBRID = "lexical", "lexical and embedding"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An unmapped code and what it may stand for, the best first; names beside the candidates."""

    source: Unmapped
    candidates: tuple[tuple[Ranked, str, str], ...]  # with the concept's name and vocabulary


@dataclass(frozen=True, slots=True)
class Suggestions:
    """All suggestions, how they were ranked, and why not with the model if it was not."""

    found: tuple[Suggestion, ...]
    method: str
    note: str | None


def suggest(store: OmopStore, *, codes: int, candidates_each: int, model: bool = True) -> Suggestions:
    """Return suggestions for the `codes` most frequent unmapped codes.

    Without the extra `mapping`, or with `model` off, they are ranked by writing alone; `note` says so.
    """
    embedder, note = _embedder(model)
    wanted = unmapped(store)[:codes]
    found: dict[Unmapped, list[Ranked]] = {}
    for table in dict.fromkeys(one.table for one in wanted):
        here = [one for one in wanted if one.table == table]
        ranker = Ranker(candidates(store, table), embedder=embedder, drugs=table == "drug_exposure")
        found.update(zip(here, ranker.best([one.label for one in here], most=candidates_each), strict=True))
    names = described(store, sorted({ranked.concept_id for best in found.values() for ranked in best}))
    return Suggestions(
        tuple(
            Suggestion(one, tuple((ranked, *names[ranked.concept_id]) for ranked in found[one]))
            for one in wanted
        ),
        HYBRID if embedder else LEXICAL,
        note,
    )


def _embedder(model: bool) -> tuple[Embedder | None, str | None]:
    if not model:
        return None, "ranked by writing alone, as asked"
    try:
        return Embedder(), None
    except EmbeddingUnavailable as error:
        return None, f"ranked by writing alone: {error}"

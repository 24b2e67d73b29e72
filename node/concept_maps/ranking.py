"""Ranked candidates for labels: how they are written, and what they mean.

A concept is known by its name and its synonyms; it is as good as the best of them. A label that is written
exactly as one of them comes first. Else the score is the mean of the lexical likeness (as written and with
abbreviations spelled out, the better one) and of the likeness of meaning, if the embedding model is there;
of a drug, the mean of that and of how well ingredient, form, brand and strengths agree (`drug_names`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.concept_maps.drug_names import DrugIndex
from node.concept_maps.embedding import Embedder
from node.concept_maps.lexical import LexicalIndex
from node.concept_maps.wording import plain, spelled_out

EMBEDDED_NAMES = (
    20_000  # as many names are embedded whole: about a minute; of more, the best by their writing
)
SHORT_LIST = 200  # of so many a label
_ROWS = 256  # labels at a time at most,
_CELLS = 32_000_000  # and labels times names: 128 MB a matrix of likeness, of which there are six or so


@dataclass(frozen=True, slots=True)
class Named:
    """A concept and one of the names it goes by."""

    concept_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate for a label, its score from 0 to 1, and the name that matched."""

    concept_id: int
    score: float
    matched: str


class Ranker:
    """Ranks concepts for labels. Without an embedder it goes by the writing alone."""

    def __init__(self, names: Sequence[Named], *, embedder: Embedder | None, drugs: bool = False) -> None:
        self._names = sorted(set(names), key=lambda one: (one.concept_id, one.name))  # ties fall the same way
        self._concepts = np.array([one.concept_id for one in self._names], np.int64)
        self._exact: dict[str, list[int]] = {}
        for place, one in enumerate(self._names):
            for form in {plain(one.name), spelled_out(one.name)}:
                self._exact.setdefault(form, []).append(place)
        self._index = LexicalIndex([spelled_out(one.name) for one in self._names])
        self._drugs = DrugIndex([one.name for one in self._names]) if drugs else None
        self._embedder = embedder
        self._vectors: dict[int, NDArray[np.float32]] = {}
        if embedder is not None and len(self._names) <= EMBEDDED_NAMES:
            self._embed(range(len(self._names)))

    def best(self, labels: Sequence[str], *, most: int) -> list[list[Ranked]]:
        """Return up to `most` candidates for each label, the best first; ties by concept id."""
        found: list[list[Ranked]] = []
        rows = max(1, min(_ROWS, _CELLS // max(1, len(self._names))))
        for begin in range(0, len(labels), rows):
            part = labels[begin : begin + rows]
            scores = self._scores(part) if self._names else np.zeros((len(part), 0), np.float32)
            found += [self._top(row, most) for row in scores]
        return found

    def _scores(self, labels: Sequence[str]) -> NDArray[np.float32]:
        spelled = [spelled_out(label) for label in labels]
        scores = np.maximum(
            self._index.scores([plain(label) for label in labels]), self._index.scores(spelled)
        )
        if self._embedder is not None:
            scores = (scores + self._meaning(spelled, scores)) / 2
        if self._drugs is not None:
            scores = (scores + self._drugs.scores(labels)) / 2
        for row, label in enumerate(labels):
            for form in (plain(label), spelled[row]):
                for place in self._exact.get(form, ()):
                    scores[row, place] = 1.0
        return np.asarray(scores, np.float32)

    def _meaning(self, spelled: Sequence[str], lexical: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._embedder is not None, "asked only with one"
        vectors = self._embedder.embed(spelled)
        if len(self._names) <= EMBEDDED_NAMES:
            whole = np.stack([self._vectors[place] for place in range(len(self._names))])
            return np.asarray(np.maximum(vectors @ whole.T, 0), np.float32)
        found = np.zeros_like(lexical)
        short = np.argpartition(-lexical, SHORT_LIST, axis=1)[:, :SHORT_LIST]
        self._embed(sorted(set(short.ravel().tolist()) - self._vectors.keys()))
        for row, places in enumerate(short):
            found[row, places] = [
                max(0.0, float(vectors[row] @ self._vectors[place])) for place in places.tolist()
            ]
        return found

    def _embed(self, places: Sequence[int]) -> None:
        assert self._embedder is not None, "asked only with one"
        vectors = self._embedder.embed([spelled_out(self._names[place].name) for place in places])
        self._vectors.update(zip(places, vectors, strict=True))

    def _top(self, scores: NDArray[np.float32], most: int) -> list[Ranked]:
        order = np.lexsort((self._concepts, -np.round(scores, 6)))
        found: dict[int, Ranked] = {}
        for place in order:
            if len(found) == most or scores[place] <= 0:
                break
            one = self._names[place]
            found.setdefault(one.concept_id, Ranked(one.concept_id, round(float(scores[place]), 4), one.name))
        return list(found.values())

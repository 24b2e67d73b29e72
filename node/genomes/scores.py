"""Polygenic scores of a load: the sum over variants of weight times copies of the effect allele.

An allele is found on the strand of the file or on the other one. Where both strands look the same (A/T, C/G)
nobody can tell, and the variant is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.genomes.scoring_file import ScoringFile, Weight
from node.genomes.store import GenomeStore, Genotypes

MIN_MATCHED = 0.75  # of a score's variants: what pgsc_calc of the PGS Catalog asks for
MIN_CALLED = 0.95  # of the matched variants, per person: uncalled ones count as no copies
_OTHER_STRAND = str.maketrans("ACGT", "TGCA")


class UnfitGenomes(ValueError):
    """A score cannot be computed on a load. `reason`: "build-unknown", "build-differs", "too-few-matched"."""

    def __init__(self, reason: str, matched: int = 0, of: int = 0) -> None:
        super().__init__(f"{reason}: {matched} of {of} variants" if of else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Scores:
    """One score of everybody of a load. `variants` counts the score's lines by what became of them."""

    pgs_id: str
    persons: NDArray[np.int64]
    values: NDArray[np.float64]
    variants: dict[str, int]
    too_few_calls: int


def score(
    store: GenomeStore,
    name: str,
    scoring: ScoringFile,
    *,
    build: str | None = None,
    min_matched: float = MIN_MATCHED,
    min_called: float = MIN_CALLED,
) -> Scores:
    """Compute a score on a load.

    Args:
        build: of whichever of the two does not say.
    Raises: UnfitGenomes unless both are known to be of one build and enough variants match.
    """
    builds = {store.about(name).build or build, scoring.build or build}
    if None in builds:
        raise UnfitGenomes("build-unknown")
    if len(builds) > 1:
        raise UnfitGenomes("build-differs")
    places: dict[tuple[str, int], list[int]] = {}
    for number, weight in enumerate(scoring.weights):
        places.setdefault((weight.chromosome, weight.position), []).append(number)
    fate = ["not-found"] * len(scoring.weights)
    sums = called = persons = None
    for some in store.genotypes(name):
        if sums is None or called is None:
            persons = some.persons
            sums, called = np.zeros(len(persons)), np.zeros(len(persons), dtype=np.int64)
        _add(some, scoring.weights, places, fate, sums, called)
    variants = Counter(fate) + Counter(scoring.left_out)
    matched, total = variants["matched"], sum(variants.values())
    if sums is None or called is None or persons is None or matched < max(1, min_matched * total):
        raise UnfitGenomes("too-few-matched", matched, total)
    enough = called >= min_called * matched
    return Scores(
        scoring.pgs_id, persons[enough], sums[enough], dict(variants), int(len(persons) - enough.sum())
    )


def _add(
    some: Genotypes,
    weights: Sequence[Weight],
    places: dict[tuple[str, int], list[int]],
    fate: list[str],
    sums: NDArray[np.float64],
    called: NDArray[np.int64],
) -> None:
    where = zip(some.variants["chromosome"].to_pylist(), some.variants["position"].to_pylist(), strict=True)
    for row, place in enumerate(where):
        for number in places.get(place, ()):
            if fate[number] == "matched":
                continue  # the same position on another line of the file
            reference = some.variants["reference"][row].as_py()
            alleles = [reference, *some.variants["alternates"][row].as_py()]
            found = allele_of(weights[number], alleles)
            if isinstance(found, str):
                fate[number] = found
                continue
            fate[number] = "matched"
            copies = some.copies(row, found)
            known = ~np.isnan(copies)
            sums[known] += weights[number].weight * copies[known]
            called += known


def allele_of(weight: Weight, alleles: Sequence[str]) -> int | str:
    """Return which allele of a variant is the effect allele, or why that cannot be said.

    >>> allele_of(Weight("1", 5, "A", "G", 1.0), ["G", "A"])
    1
    >>> allele_of(Weight("1", 5, "T", "C", 1.0), ["G", "A"])
    1
    >>> allele_of(Weight("1", 5, "A", "T", 1.0), ["A", "T"])
    'ambiguous'
    """
    if weight.other is not None and weight.other == weight.effect.translate(_OTHER_STRAND):
        return "ambiguous"
    for turned in (False, True):
        effect, other = weight.effect, weight.other
        if turned:
            if len(effect) > 1 or (other is not None and len(other) > 1):
                break  # a longer allele would have to be read backwards too: only the file's own strand
            effect = effect.translate(_OTHER_STRAND)
            other = other.translate(_OTHER_STRAND) if other is not None else None
        if effect not in alleles:
            continue
        if other is None:
            return "ambiguous" if effect.translate(_OTHER_STRAND) in alleles else alleles.index(effect)
        if other in alleles and alleles[0] in (effect, other):
            return alleles.index(effect)
    return "alleles-differ"

"""From what is known of each person to the columns of one feature, scaled by public numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from node.features.comorbidities import comorbidity_columns
from node.features.people import People
from node.features.records import days_in_visits, has, listed, picked_value
from node.omop.store import OmopStore
from protocols.study_features import Feature

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Columns = tuple[list[Floats], Bools]  # the columns (without a missing flag), and whether each person has it


def columns(feature: Feature, people: People, store: OmopStore, *, known: bool) -> Columns:
    """Return the columns of one feature, and for whom it was observed.

    Args: known, whether only records count that were recorded by the index date. Raises: NoSuchTable.
    """
    return _KINDS[feature.kind](feature, people, store, known)


def _sex(feature: Feature, people: People, _store: OmopStore, _known: bool) -> Columns:
    return [_yes_or_no(feature, np.isin(people.sex, feature.concept_ids))], _everyone(people)


def _age(feature: Feature, people: People, _store: OmopStore, _known: bool) -> Columns:
    return scaled(feature, people.age_years), np.isfinite(people.age_years)


def _present(feature: Feature, people: People, store: OmopStore, known: bool) -> Columns:
    assert feature.records is not None  # the study's parser gives these kinds their records
    return [_yes_or_no(feature, has(feature.records, people, store, known=known))], _everyone(people)


def _value(feature: Feature, people: People, store: OmopStore, known: bool) -> Columns:
    assert feature.records is not None
    picked = picked_value(
        feature.records,
        people,
        store,
        value="value_as_concept_id" if feature.categories else "value_as_number",
        pick=feature.pick,
        within=feature.plausible,
        known=known,
    )
    seen = np.isfinite(picked)
    if feature.kind == "category":
        return [np.where(seen, _yes_or_no(feature, picked == level), 0.0) for level in feature.levels], seen
    return scaled(feature, picked), seen


def _count(feature: Feature, people: People, store: OmopStore, known: bool) -> Columns:
    assert feature.records is not None
    found = listed(feature.records, people, store, known=known)
    counts = np.bincount(found.place, minlength=len(people.ids)).astype(np.float64)
    return [_logarithmic(counts, feature.most)], _everyone(people)


def _stay(feature: Feature, people: People, store: OmopStore, known: bool) -> Columns:
    assert feature.records is not None
    spent = days_in_visits(feature.records, people, store, known=known)
    return [_logarithmic(spent, feature.most)], _everyone(people)


def _sequence(feature: Feature, people: People, store: OmopStore, known: bool) -> Columns:
    assert feature.records is not None
    found = listed(feature.records, people, store, known=known)
    columns = []
    for concept in feature.records.concept_ids:
        chosen = found.concept == concept
        place, ago = found.place[chosen], np.abs(found.ago[chosen]).astype(np.float64)
        for half_life in feature.half_lives_days:
            told = np.bincount(place, weights=np.exp2(-ago / half_life), minlength=len(people.ids))
            columns.append(1.0 - np.exp(-told))
    return columns, _everyone(people)


def _comorbidity(feature: Feature, people: People, store: OmopStore, known: bool) -> Columns:
    return comorbidity_columns(feature, people, store, known=known)


_KINDS: dict[str, Callable[[Feature, People, OmopStore, bool], Columns]] = {
    "value": _value,
    "category": _value,
    "present": _present,
    "age": _age,
    "sex": _sex,
    "count": _count,
    "stay": _stay,
    "sequence": _sequence,
    "comorbidity": _comorbidity,
}


def scaled(feature: Feature, values: Floats) -> list[Floats]:
    """Map the feature's public range to [-1, 1], clip, and fill what is missing; or run along its knots."""
    if feature.knots:
        finite = np.where(np.isfinite(values), values, -np.inf)
        return [np.clip((finite - low) / (high - low), 0.0, 1.0) for low, high in pairwise(feature.knots)]
    assert feature.range is not None
    assert feature.fill is not None
    low, high = feature.range
    filled = np.where(np.isfinite(values), values, feature.fill)
    return [np.clip(2.0 * (filled - low) / (high - low) - 1.0, -1.0, 1.0)]


def _yes_or_no(feature: Feature, yes: Bools) -> Floats:
    return np.where(yes, 1.0, -1.0 if feature.signed else 0.0)


def _logarithmic(counts: Floats, most: float) -> Floats:
    found: Floats = np.minimum(np.log1p(counts) / np.log1p(most), 1.0)
    return found


def _everyone(people: People) -> Bools:
    return np.ones(len(people.ids), dtype=bool)

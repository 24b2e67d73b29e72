"""From OMOP records to the numbers a model is trained on: one row per person, columns as the study says.

Guarantee: a person's row, and whether there is one, follows from that person's own records and the public
plan alone, never from other persons (no means, no standard deviations, no vocabulary of what occurs). So one
person more or less changes one row. No value in a row is NaN or infinite; all lie in [-1, 1].
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from node.features.outcomes import outcomes
from node.features.people import People
from node.features.records import has, picked_value
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from protocols.study import Study
from protocols.study_features import Feature


def feature_table(study: Study, store: OmopStore) -> FeatureTable:
    """Return the rows of everyone in the study's cohort whose outcome and required features are known.

    Raises: NoSuchTable if the store lacks a table that the study reads.
    """
    people = People.read(study.cohort, store)
    columns: list[NDArray[np.float64]] = []
    observed: list[NDArray[np.bool_]] = []
    y, keep = outcomes(study.outcome, people, store)
    for feature in study.features:
        values, seen = _columns(feature, people, store)
        if feature.exclude_missing:
            keep &= seen
        columns += values
        observed += [seen] * len(values)
        if feature.missing_flag:
            columns.append((~seen).astype(np.float64))
            observed.append(np.ones(len(seen), dtype=bool))
    x = np.column_stack(columns).astype(np.float32)
    mask = np.column_stack(observed)
    return FeatureTable(people.ids[keep], x[keep], mask[keep], y[keep].astype(np.float32))


def _columns(
    feature: Feature, people: People, store: OmopStore
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """The columns of one feature (without its missing flag), and whether each person has it."""
    everyone = np.ones(len(people.ids), dtype=bool)
    if feature.kind == "sex":
        return [np.isin(people.sex, feature.concept_ids).astype(np.float64)], everyone
    if feature.kind == "present":
        assert feature.records is not None  # the study's parser gives these kinds their records
        return [has(feature.records, people, store).astype(np.float64)], everyone
    if feature.kind == "age":
        return _encoded(feature, people.age_years), np.isfinite(people.age_years)
    assert feature.records is not None
    value = "value_as_concept_id" if feature.categories else "value_as_number"
    picked = picked_value(
        feature.records, people, store, value=value, pick=feature.pick, within=feature.plausible
    )
    seen = np.isfinite(picked)
    if feature.kind == "category":
        return [(picked == level).astype(np.float64) for level in feature.levels], seen
    return _encoded(feature, picked), seen


def _encoded(feature: Feature, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Map the feature's public range to [-1, 1], clip, and fill what is missing; or run along its knots."""
    if feature.knots:
        finite = np.where(np.isfinite(values), values, -np.inf)
        pairs = pairwise(feature.knots)
        return [np.clip((finite - low) / (high - low), 0.0, 1.0) for low, high in pairs]
    assert feature.range is not None
    assert feature.fill is not None
    low, high = feature.range
    filled = np.where(np.isfinite(values), values, feature.fill)
    return [np.clip(2.0 * (filled - low) / (high - low) - 1.0, -1.0, 1.0)]

"""From OMOP records to the numbers a model is trained on: one row per person, columns as the study says.

Guarantee: a person's row, and whether there is one, follows from that person's own records and the public
plan alone, never from other persons (no means, no standard deviations, no vocabulary of what occurs). So one
person more or less changes one row. No value in a row is NaN or infinite; all lie in [-1, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.features.encoding import columns
from node.features.outcomes import outcomes
from node.features.people import People
from node.features.records import has
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from protocols.feature_set import ANY, FeatureSet
from protocols.study import Study
from protocols.study_features import Feature
from protocols.study_records import Records

Bools = NDArray[np.bool_]


def feature_table(study: Study, store: OmopStore) -> FeatureTable:
    """Return the rows of everyone in the study's cohort whose outcome and required features are known.

    With a feature set, nothing goes in that was not known on a person's index date.
    Raises: NoSuchTable if the store lacks a table that the study reads.
    """
    people = People.read(study.cohort, store)
    y, keep = outcomes(study.outcome, people, store)
    x, mask, complete = feature_rows(study.features, study.feature_set, people, store)
    keep &= complete
    return FeatureTable(people.ids[keep], x[keep], mask[keep], y[keep].astype(np.float32))


def feature_rows(
    features: tuple[Feature, ...], rules: FeatureSet | None, people: People, store: OmopStore
) -> tuple[NDArray[np.float32], Bools, Bools]:
    """Return the columns and what was observed, per person, and who has all that may not be missing."""
    found: list[NDArray[np.float64]] = []
    observed: list[Bools] = []
    complete = np.ones(len(people.ids), dtype=bool)
    visible = _visible(rules, people, store)
    for feature in features:
        values, seen = columns(feature, people, store, known=rules is not None)
        seen = seen & visible.get(feature.modality, True)
        if feature.exclude_missing:
            complete &= seen
        found += values
        observed += [seen] * len(values)
        if feature.missing_flag:
            found.append((~seen).astype(np.float64))
            observed.append(np.ones(len(seen), dtype=bool))
    if not found:  # a survival curve has no features
        nothing = np.zeros((len(people.ids), 0))
        return nothing.astype(np.float32), nothing.astype(bool), complete
    return np.column_stack(found).astype(np.float32), np.column_stack(observed), complete


def _visible(rules: FeatureSet | None, people: People, store: OmopStore) -> dict[str, Bools]:
    """Who has the records that make a modality present, for modalities of which a table decides."""
    return {
        rule.name: has(Records(rule.observed_by, (), window=rule.window), people, store, known=True)
        for rule in (rules.modalities if rules else ())
        if rule.observed_by != ANY
    }

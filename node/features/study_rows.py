"""From OMOP records to the numbers a model is trained on: one row per person, columns as the study says.

Guarantee: a person's row, and whether there is one, follows from that person's own records and the public
plan alone, never from other persons (no means, no standard deviations, no vocabulary of what occurs). So one
person more or less changes one row. No value in a row is NaN or infinite; all lie in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table
from numpy.typing import NDArray

from node.features.table import FeatureTable
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES
from node.queries.cohort import indexed_persons
from protocols.study import Study
from protocols.study_features import Feature, Outcome, Records


def feature_table(study: Study, store: OmopStore) -> FeatureTable:
    """Return the rows of everyone in the study's cohort whose outcome and required features are known.

    Raises: NoSuchTable if the store lacks a table that the study reads.
    """
    people = _People.read(study, store)
    columns: list[NDArray[np.float64]] = []
    observed: list[NDArray[np.bool_]] = []
    y, keep = _outcome(study.outcome, people, store)
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


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """The cohort: persons in ascending order, with what `person` says about them."""

    relation: Table
    ids: NDArray[np.int64]
    sex: NDArray[np.int64]
    age_years: NDArray[np.float64]

    @classmethod
    def read(cls, study: Study, store: OmopStore) -> _People:
        indexed = indexed_persons(study.cohort, store)
        person = store.table("person").select("person_id", "year_of_birth", "gender_concept_id")
        found = indexed.inner_join(person, "person_id").mutate(age=_.index_date.year() - _.year_of_birth)
        rows = found.order_by("person_id").to_pyarrow()
        return cls(
            indexed,
            _int64(rows["person_id"]),
            _int64(rows["gender_concept_id"]),
            _float64(rows["age"]),
        )

    def at(self, person_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of persons who are all in the cohort."""
        return np.searchsorted(self.ids, person_ids)


def _columns(
    feature: Feature, people: _People, store: OmopStore
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """The columns of one feature (without its missing flag), and whether each person has it."""
    everyone = np.ones(len(people.ids), dtype=bool)
    if feature.kind == "sex":
        return [np.isin(people.sex, feature.concept_ids).astype(np.float64)], everyone
    if feature.kind == "present":
        assert feature.records is not None  # the study's parser gives these kinds their records
        return [_has(feature.records, people, store).astype(np.float64)], everyone
    if feature.kind == "age":
        return [_scaled(feature, people.age_years)], np.isfinite(people.age_years)
    assert feature.records is not None
    value = "value_as_concept_id" if feature.categories else "value_as_number"
    picked = _picked(feature.records, people, store, value=value, pick=feature.pick, within=feature.plausible)
    seen = np.isfinite(picked)
    if feature.kind == "category":
        return [(picked == level).astype(np.float64) for level in feature.levels], seen
    return [_scaled(feature, picked)], seen


def _scaled(feature: Feature, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map the feature's public range to [-1, 1], clip, and fill what is missing."""
    assert feature.range is not None
    assert feature.fill is not None
    low, high = feature.range
    filled = np.where(np.isfinite(values), values, feature.fill)
    return np.clip(2.0 * (filled - low) / (high - low) - 1.0, -1.0, 1.0)


def _outcome(
    outcome: Outcome, people: _People, store: OmopStore
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The outcome, and for whom it is known."""
    if outcome.kind == "present":
        return _has(outcome.records, people, store), np.ones(len(people.ids), dtype=bool)
    values = _picked(outcome.records, people, store, value="value_as_number", pick="latest", within=None)
    known = np.isfinite(values)
    return np.where(known, values, -np.inf) >= outcome.at_least, known


def _has(records: Records, people: _People, store: OmopStore) -> NDArray[np.bool_]:
    ids = _int64(_matching(records, people, store).select("person_id").distinct().to_pyarrow()["person_id"])
    found = np.zeros(len(people.ids), dtype=bool)
    found[people.at(ids)] = True
    return found


def _picked(
    records: Records,
    people: _People,
    store: OmopStore,
    *,
    value: str,
    pick: str,
    within: tuple[float, float] | None,
) -> NDArray[np.float64]:
    """One value per person, NaN where there is none. Ties within a day go to the larger value."""
    start = EVENT_TABLES[records.table].start
    rows = _matching(records, people, store).select("person_id", start, value).to_pyarrow()
    numbers = _float64(rows[value])
    low, high = within or (-np.inf, np.inf)
    valid = np.isfinite(numbers) & (numbers >= low) & (numbers <= high)
    place = people.at(_int64(rows["person_id"])[valid])
    days = rows[start].cast(pa.date32()).cast(pa.int32()).to_numpy()[valid]
    numbers = numbers[valid]
    order = np.lexsort((numbers, days, place))  # so that nothing depends on the order the engine returns
    place, numbers = place[order], numbers[order]
    picked = np.full(len(people.ids), np.nan)
    if not len(place):
        return picked
    first = np.flatnonzero(np.diff(place, prepend=-1))
    present = place[first]
    if pick == "mean":
        counts = np.diff(first, append=len(place))
        picked[present] = np.add.reduceat(numbers, first) / counts
    elif pick in ("minimum", "maximum"):
        best = np.minimum if pick == "minimum" else np.maximum
        picked[present] = best.reduceat(numbers, first)
    else:
        last = np.append(first[1:], len(place)) - 1
        picked[present] = numbers[first if pick == "earliest" else last]
    return picked


def _matching(records: Records, people: _People, store: OmopStore) -> Table:
    """The records meant, of persons in the cohort, in the window around their index dates."""
    shape = EVENT_TABLES[records.table]
    table = store.table(records.table)
    matching = table.filter(table[shape.concept].isin(records.concept_ids))
    if records.unit_concept_id is not None:
        matching = matching.filter(_.unit_concept_id == records.unit_concept_id)
    if records.window is None:
        return matching.semi_join(people.relation, "person_id")
    joined = matching.inner_join(people.relation, "person_id")
    days = joined[shape.start].delta(joined.index_date, unit="day")
    return joined.filter(days.between(records.window.from_days, records.window.to_days))


def _int64(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.fill_null(0).cast(pa.int64()).to_numpy(), dtype=np.int64)


def _float64(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), dtype=np.float64)

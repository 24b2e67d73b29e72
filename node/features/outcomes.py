"""What is predicted of each person, and for whom it is known."""

from __future__ import annotations

import numpy as np
from ibis import _
from numpy.typing import NDArray

from node.features.people import People, days, int64
from node.features.records import first_days, has, listed, picked_value
from node.omop.store import OmopStore
from protocols.study_outcome import DEATH, Outcome

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def outcomes(outcome: Outcome, people: People, store: OmopStore) -> tuple[Floats, Bools]:
    """Return y as `FeatureTable.y` describes it, and for whom it is known. Raises: NoSuchTable."""
    everyone = np.ones(len(people.ids), dtype=bool)
    if outcome.kind == "present":
        return has(outcome.records, people, store).astype(np.float64), everyone
    if outcome.kind == "time":
        return _times(outcome, people, store)
    if outcome.kind == "days":
        return _days(outcome, people, store)
    if outcome.kind == "count":
        records = np.bincount(listed(outcome.records, people, store).place, minlength=len(people.ids))
        return np.minimum(records, outcome.most).astype(np.float64), everyone
    value = "value_as_concept_id" if outcome.categories else "value_as_number"
    values = picked_value(outcome.records, people, store, value=value, pick="latest", within=None)
    known = np.isfinite(values)
    if outcome.kind == "class":
        levels = np.array(outcome.levels)
        place = np.minimum(np.searchsorted(levels, np.where(known, values, levels[0])), len(levels) - 1)
        return place.astype(np.float64), known & (levels[place] == values)
    if outcome.kind == "amount":
        assert outcome.range is not None  # the parser gives this kind its range
        low, high = outcome.range
        filled = np.where(known, values, low)
        return np.clip(2.0 * (filled - low) / (high - low) - 1.0, -1.0, 1.0), known
    return (np.where(known, values, -np.inf) >= outcome.at_least).astype(np.float64), known


def _times(outcome: Outcome, people: People, store: OmopStore) -> tuple[Floats, Bools]:
    """[persons, 2]: intervals lived through, and whether the outcome came in the next one."""
    edges = np.array(outcome.edges, dtype=np.float64)
    until = first_days(outcome.records, people, store) - people.index_day
    watched = _last_days(people, store) - people.index_day
    came = np.isfinite(until) & (until < edges[-1])
    lived = np.searchsorted(edges, np.where(came, until, np.minimum(watched, edges[-1])), side="right")
    at_risk = ~(until < 0) & (came | (watched >= 0))
    return np.column_stack([lived, came]).astype(np.float64), at_risk


def _days(outcome: Outcome, people: People, store: OmopStore) -> tuple[Floats, Bools]:
    """[persons, 2]: the day on which the outcome came, or the person was last observed; 1 if it came.

    Who is observed for longer than `until_days` is censored on that day.
    """
    until = first_days(outcome.records, people, store) - people.index_day
    watched = _last_days(people, store) - people.index_day
    came = np.isfinite(until) & (until <= outcome.until_days)
    last = np.where(came, until, np.minimum(watched, float(outcome.until_days)))
    at_risk = ~(until < 0) & (came | (watched >= 0))
    return np.column_stack([np.where(at_risk, last, 0.0), came]).astype(np.float64), at_risk


def _last_days(people: People, store: OmopStore) -> Floats:
    """The last day each person was observed in the period that holds their index day, death ending it.

    NaN where no period holds it: nothing is known of what came after.
    """
    found = np.full(len(people.ids), np.nan)
    rows = store.table("observation_period").semi_join(people.relation, "person_id")
    rows = rows.select(
        "person_id", "observation_period_start_date", "observation_period_end_date"
    ).to_pyarrow()
    place = people.at(int64(rows["person_id"]))
    start, end = (days(rows[f"observation_period_{name}_date"]) for name in ("start", "end"))
    holds = (start <= people.index_day[place]) & (people.index_day[place] <= end)
    np.fmax.at(found, place[holds], end[holds].astype(np.float64))
    if store.has(DEATH):
        dead = store.table(DEATH).semi_join(people.relation, "person_id")
        rows = dead.group_by("person_id").aggregate(day=_.death_date.min()).to_pyarrow()
        place = people.at(int64(rows["person_id"]))
        found[place] = np.fmin(found[place], days(rows["day"]).astype(np.float64))
    return found

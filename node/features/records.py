"""From the records that a plan means to one value, or one yes or no, per person."""

from __future__ import annotations

import numpy as np
from ibis import _
from ibis.expr.types import Table
from numpy.typing import NDArray

from node.features.people import People, days, float64, int64
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES
from protocols.study_outcome import DEATH
from protocols.study_records import Records


def has(records: Records, people: People, store: OmopStore) -> NDArray[np.bool_]:
    """Return for each person whether there is such a record."""
    ids = int64(matching(records, people, store).select("person_id").distinct().to_pyarrow()["person_id"])
    found = np.zeros(len(people.ids), dtype=bool)
    found[people.at(ids)] = True
    return found


def picked_value(
    records: Records,
    people: People,
    store: OmopStore,
    *,
    value: str,
    pick: str,
    within: tuple[float, float] | None,
) -> NDArray[np.float64]:
    """Return one value per person, NaN where there is none. Ties within a day go to the larger value."""
    start = start_of(records.table)
    rows = matching(records, people, store).select("person_id", start, value).to_pyarrow()
    numbers = float64(rows[value])
    low, high = within or (-np.inf, np.inf)
    valid = np.isfinite(numbers) & (numbers >= low) & (numbers <= high)
    place = people.at(int64(rows["person_id"])[valid])
    when = days(rows[start])[valid]
    numbers = numbers[valid]
    order = np.lexsort((numbers, when, place))  # so that nothing depends on the order the engine returns
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


def matching(records: Records, people: People, store: OmopStore) -> Table:
    """Return the records meant, of persons in the cohort, in the window around their index dates."""
    table = store.table(records.table)
    found = table
    if records.concept_ids:
        found = found.filter(table[EVENT_TABLES[records.table].concept].isin(records.concept_ids))
    if records.unit_concept_id is not None:
        found = found.filter(_.unit_concept_id == records.unit_concept_id)
    if records.window is None:
        return found.semi_join(people.relation, "person_id")
    joined = found.inner_join(people.relation, "person_id")
    after = joined[start_of(records.table)].delta(joined.index_date, unit="day")
    return joined.filter(after.between(records.window.from_days, records.window.to_days))


def first_days(records: Records, people: People, store: OmopStore) -> NDArray[np.float64]:
    """Return the day of each person's first record since 1970-01-01; NaN where there is none."""
    start = start_of(records.table)
    rows = matching(records, people, store).group_by("person_id").aggregate(day=_[start].min()).to_pyarrow()
    found = np.full(len(people.ids), np.nan)
    found[people.at(int64(rows["person_id"]))] = days(rows["day"])
    return found


def start_of(table: str) -> str:
    """Return the name of the column that says when a record of `table` begins."""
    return "death_date" if table == DEATH else EVENT_TABLES[table].start

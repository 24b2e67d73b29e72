"""From the records that a plan means to numbers per person: values, counts, codes with their days.

Every table is brought to one form first: whose, when (a day), which record, which concept, value and unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ibis
import numpy as np
from ibis import _
from ibis.expr.types import Table
from numpy.typing import NDArray

from node.features.people import People, days, float64, int64
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES
from protocols.study_outcome import DEATH
from protocols.study_records import Records, Window

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """Records of persons of the cohort: `place` in the cohort, `ago` days before the index date."""

    place: Ints
    day: Ints
    ago: Ints
    concept: Ints

    def __len__(self) -> int:
        return len(self.place)


def has(records: Records, people: People, store: OmopStore, *, known: bool = False) -> Bools:
    """Return for each person whether there is such a record."""
    rows = matching(records, people, store, known=known).select("person_id").distinct().to_pyarrow()
    found = np.zeros(len(people.ids), dtype=bool)
    found[people.at(int64(rows["person_id"]))] = True
    return found


def listed(records: Records, people: People, store: OmopStore, *, known: bool = False) -> Found:
    """Return the records one by one, in an order that they alone decide."""
    rows = matching(records, people, store, known=known).select("person_id", "day", "concept_id").to_pyarrow()
    place, day, concept = people.at(int64(rows["person_id"])), days(rows["day"]), int64(rows["concept_id"])
    order = np.lexsort((concept, day, place))
    place, day, concept = place[order], day[order], concept[order]
    return Found(place, day, people.index_day[place] - day, concept)


def days_in_visits(records: Records, people: People, store: OmopStore, *, known: bool = False) -> Floats:
    """Return the days each person spent in visits, counting up to the index date."""
    rows = matching(records, people, store, known=known).select("person_id", "day", "end_day").to_pyarrow()
    place = people.at(int64(rows["person_id"]))
    start, end = days(rows["day"]), days(rows["end_day"])
    until = np.minimum(np.maximum(end, start), np.maximum(people.index_day[place], start))
    found: Floats = np.bincount(place, weights=until - start + 1.0, minlength=len(people.ids)).astype(
        np.float64
    )
    return found


def picked_value(
    records: Records,
    people: People,
    store: OmopStore,
    *,
    value: str,
    pick: str,
    within: tuple[float, float] | None,
    known: bool = False,
) -> Floats:
    """Return one value per person, NaN where there is none. Ties within a day go to the larger value."""
    rows = matching(records, people, store, known=known).select("person_id", "day", value).to_pyarrow()
    numbers = float64(rows[value])
    low, high = within or (-np.inf, np.inf)
    valid = np.isfinite(numbers) & (numbers >= low) & (numbers <= high)
    place = people.at(int64(rows["person_id"])[valid])
    when, numbers = days(rows["day"])[valid], numbers[valid]
    order = np.lexsort((numbers, when, place))  # so that nothing depends on the order the engine returns
    place, when, numbers = place[order], when[order], numbers[order]
    picked = np.full(len(people.ids), np.nan)
    if not len(place):
        return picked
    first = np.flatnonzero(np.diff(place, prepend=-1))
    last = np.append(first[1:], len(place)) - 1
    picked[place[first]] = _PICKS[pick](numbers, when.astype(np.float64), first, last)
    return picked


Pick = Callable[[Floats, Floats, Ints, Ints], Floats]


def _mean(numbers: Floats, _when: Floats, first: Ints, last: Ints) -> Floats:
    found: Floats = np.add.reduceat(numbers, first) / (last - first + 1)
    return found


def _spread(numbers: Floats, when: Floats, first: Ints, last: Ints) -> Floats:
    count = last - first + 1
    centred = numbers - np.repeat(_mean(numbers, when, first, last), count)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt(np.add.reduceat(centred**2, first) / (count - 1))
    return np.where(count > 1, found, np.nan)


def _change(numbers: Floats, _when: Floats, first: Ints, last: Ints) -> Floats:
    return np.where(last > first, numbers[last] - numbers[first], np.nan)


def _slope(numbers: Floats, when: Floats, first: Ints, last: Ints) -> Floats:
    count = last - first + 1
    value = numbers - np.repeat(_mean(numbers, when, first, last), count)
    time = when - np.repeat(_mean(when, when, first, last), count)
    squares = np.add.reduceat(time**2, first)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squares > 0, np.add.reduceat(value * time, first) / squares, np.nan)


_PICKS: dict[str, Pick] = {
    "latest": lambda numbers, when, first, last: numbers[last],
    "earliest": lambda numbers, when, first, last: numbers[first],
    "mean": _mean,
    "minimum": lambda numbers, when, first, last: np.minimum.reduceat(numbers, first),
    "maximum": lambda numbers, when, first, last: np.maximum.reduceat(numbers, first),
    "spread": _spread,
    "change": _change,
    "slope": _slope,
}


def first_days(records: Records, people: People, store: OmopStore) -> Floats:
    """Return the day of each person's first record since 1970-01-01; NaN where there is none."""
    rows = matching(records, people, store).group_by("person_id").aggregate(day=_.day.min()).to_pyarrow()
    found = np.full(len(people.ids), np.nan)
    found[people.at(int64(rows["person_id"]))] = days(rows["day"])
    return found


def matching(records: Records, people: People, store: OmopStore, *, known: bool = False) -> Table:
    """Return the records meant, of persons in the cohort, in the window around their index dates.

    Args: known, only those whose source had recorded them by the index date. Where it does not say when it
        recorded one, the record's own date has to do.
    """
    found = in_one_form(records.table, store)
    if records.concept_ids:
        found = found.filter(_.concept_id.isin(records.concept_ids))
    if records.source_values:
        found = found.filter(_.source_value.isin(records.source_values))
    if records.unit_concept_id is not None:
        found = found.filter(_.unit_concept_id == records.unit_concept_id)
    joined = found.inner_join(people.relation, "person_id")
    if records.window is not None:
        joined = joined.filter(_inside(joined, records.window))
    if known and store.has("fedtwin_provenance"):
        told = store.table("fedtwin_provenance")
        told = told.filter(told.table_name == ("note" if records.table == "note_nlp" else records.table))
        told = told.group_by("record_id").aggregate(recorded_at=_.recorded_at.max())
        late = joined.inner_join(told, "record_id").filter(_.recorded_at.date() > _.index_date)
        joined = joined.anti_join(late.select("record_id"), "record_id")
    return joined


def _inside(joined: Table, window: Window) -> ibis.expr.types.BooleanValue:
    return joined.day.delta(joined.index_date, unit="day").between(window.from_days, window.to_days)


def in_one_form(name: str, store: OmopStore) -> Table:
    """Return a table's records in one form. Raises: NoSuchTable."""
    if name == "note_nlp":
        return _note_concepts(store)
    table = store.table(name)
    record, concept, start, end = _columns_of(name)
    source = EVENT_TABLES[name].source_value if name in EVENT_TABLES else ""
    there = set(table.columns)
    return table.select(
        person_id=_.person_id,
        record_id=table[record],
        day=table[start],
        end_day=table[end].coalesce(table[start]) if end in there else table[start],
        concept_id=table[concept] if concept in there else ibis.literal(0, "int64"),
        value_as_number=_or_null(table, "value_as_number", "float64"),
        value_as_concept_id=_or_null(table, "value_as_concept_id", "int64"),
        unit_concept_id=_or_null(table, "unit_concept_id", "int64"),
        source_value=_or_null(table, source, "string"),
    )


def _columns_of(name: str) -> tuple[str, str, str, str]:
    if name == DEATH:
        return "person_id", "cause_concept_id", "death_date", "death_date"
    if name == "visit_occurrence":
        return "visit_occurrence_id", "visit_concept_id", "visit_start_date", "visit_end_date"
    if name == "device_exposure":
        stem = "device_exposure"
        return f"{stem}_id", "device_concept_id", f"{stem}_start_date", f"{stem}_end_date"
    shape = EVENT_TABLES[name]
    return shape.id, shape.concept, shape.start, shape.end or shape.start


def _note_concepts(store: OmopStore) -> Table:
    """What notes say of their person. What a note denies, or says of somebody else, is not said of them."""
    said, note = store.table("note_nlp"), store.table("note").select("note_id", "person_id", "note_date")
    joined = said.filter((said.term_exists == "Y") & (said.note_nlp_concept_id != 0)).inner_join(
        note, "note_id"
    )
    return joined.select(
        person_id=_.person_id,
        record_id=_.note_id,
        day=_.note_date,
        end_day=_.note_date,
        concept_id=_.note_nlp_concept_id,
        value_as_number=ibis.null("float64"),
        value_as_concept_id=ibis.null("int64"),
        unit_concept_id=ibis.null("int64"),
        source_value=ibis.null("string"),
    )


def _or_null(table: Table, name: str, kind: str) -> ibis.expr.types.Value:
    return table[name] if name in table.columns else ibis.null(kind)
